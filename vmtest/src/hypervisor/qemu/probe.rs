//! Finds QEMU on this host.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Kind},
    hypervisor::kvm::{KvmProbe, probe_kvm},
};

const PROGRAM: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";

/// What is known of QEMU here.
#[derive(Debug)]
pub(super) struct QemuFacts {
    pub(super) program: PathBuf,
    pub(super) version: String,
    pub(super) kvm: KvmProbe,
}

/// Looks for QEMU at the given path, else on PATH, and asks it for its version.
///
/// # Errors
/// [`Kind::Missing`] with the line that installs it.
pub(super) fn probe(binary: Option<&Path>) -> Result<QemuFacts, Error> {
    let program = match binary {
        Some(path) => path.to_owned(),
        None => on_path().ok_or_else(|| {
            let line = "apt-get install --no-install-recommends qemu-system-x86";
            Error::new(
                Kind::Missing,
                format!("no {PROGRAM} on PATH: run `{line}` as root, or set VMTEST_QEMU to its path"),
            )
        })?,
    };
    let failed = |why: String| Error::new(Kind::Missing, format!("{} is no QEMU that runs: {why}", program.display()));
    let output = Command::new(&program).arg("--version").output().map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_once("version ").and_then(|(_, rest)| rest.split_whitespace().next());
    let version = version.ok_or_else(|| failed(format!("it says `{}`", text.trim())))?.to_owned();
    Ok(QemuFacts { version, kvm: probe_kvm(Path::new(KVM)), program })
}

fn on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(PROGRAM)).find(|path| path.is_file())
}
