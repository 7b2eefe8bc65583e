//! Finds QEMU on this host.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Kind},
    hypervisor::{
        QEMU, Search,
        kvm::KvmProbe,
        search::{number, version},
    },
};

const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest that has all that we say to it: `-action` and the device `pvpanic-pci` came with it.
const OLDEST: (u32, u32) = (6, 0);
/// From this version on a screenshot can be a PNG file.
const WRITES_PNG: (u32, u32) = (7, 1);

/// What is known of QEMU here.
#[derive(Debug)]
pub(super) struct QemuFacts {
    pub(super) program: PathBuf,
    pub(super) version: String,
    /// Whether it writes screenshots that others read.
    pub(super) writes_png: bool,
    pub(super) kvm: KvmProbe,
}

/// Looks for QEMU at the path that is set, else on PATH, and asks it for its version.
///
/// # Errors
/// [`Kind::Missing`] with the line that installs it, and for one that is too old.
pub(super) fn probe(search: &Search) -> Result<QemuFacts, Error> {
    let program = search.program(QEMU, PROGRAM).ok_or_else(|| {
        let line = "apt-get install --no-install-recommends qemu-system-x86";
        Error::new(Kind::Missing, format!("no {PROGRAM} on PATH: run `{line}` as root, or set VMTEST_QEMU to its path"))
    })?;
    let (version, number) = check(&program)?;
    Ok(QemuFacts { version, writes_png: number >= WRITES_PNG, kvm: search.kvm().clone(), program })
}

fn check(program: &Path) -> Result<(String, (u32, u32)), Error> {
    let missing = |why: String| Error::new(Kind::Missing, format!("{} {why}", program.display()));
    let version = version(program, "QEMU", "version ")?;
    let number = number(&version).ok_or_else(|| missing(format!("has no version: {version}")))?;
    if number < OLDEST {
        let (major, minor) = OLDEST;
        let remedy = "get a newer one, and set VMTEST_QEMU to its path where it is not on PATH";
        return Err(missing(format!("is QEMU {version}, and {major}.{minor} is the oldest that works: {remedy}")));
    }
    Ok((version, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::search::saying;

    fn probed(says: &str) -> Result<QemuFacts, Error> {
        let (_program, search) = saying(QEMU, says, true);
        probe(&search)
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        for (says, version, png) in [
            ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6.26)", "6.2.0", false),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22", true),
            ("QEMU emulator version 10.0.2-rc1", "10.0.2-rc1", true),
        ] {
            let facts = probed(says).unwrap();
            assert_eq!((facts.version.as_str(), facts.writes_png), (version, png));
        }
        for (says, part) in [
            ("QEMU emulator version 5.2.0", "is QEMU 5.2.0, and 6.0 is the oldest that works: get a newer one"),
            ("QEMU emulator version next", "has no version: next"),
            ("cloud-hypervisor v53.0", "is no QEMU that runs: it says `cloud-hypervisor v53.0`"),
        ] {
            let error = probed(says).unwrap_err();
            assert_eq!(error.kind(), Kind::Missing);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
