//! Finds QEMU on this host.

use std::path::PathBuf;

use crate::{
    error::{Error, Kind},
    hypervisor::{QEMU, Search, kvm::KvmProbe, search::version},
};

const PROGRAM: &str = "qemu-system-x86_64";

/// What is known of QEMU here.
#[derive(Debug)]
pub(super) struct QemuFacts {
    pub(super) program: PathBuf,
    pub(super) version: String,
    pub(super) kvm: KvmProbe,
}

/// Looks for QEMU at the path that is set, else on PATH, and asks it for its version.
///
/// # Errors
/// [`Kind::Missing`] with the line that installs it.
pub(super) fn probe(search: &Search) -> Result<QemuFacts, Error> {
    let program = search.program(QEMU, PROGRAM).ok_or_else(|| {
        let line = "apt-get install --no-install-recommends qemu-system-x86";
        Error::new(Kind::Missing, format!("no {PROGRAM} on PATH: run `{line}` as root, or set VMTEST_QEMU to its path"))
    })?;
    let version = version(&program, "QEMU", "version ")?;
    Ok(QemuFacts { version, kvm: search.kvm().clone(), program })
}
