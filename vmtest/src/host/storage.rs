//! Where files of runs are, and what to do where they cannot be.

use std::{fs::TryLockError, io, path::Path};

use nix::libc;
use serde::Serialize;

use crate::error::{Error, Kind};

/// One of the two places in which a run has files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Place {
    /// The run directories.
    Run,
    /// The scratch disks, in the cache.
    Scratch,
}

impl Place {
    /// The variable by which a user puts it elsewhere.
    fn setting(self) -> &'static str {
        match self {
            Self::Run => "VMTEST_RUN",
            Self::Scratch => "VMTEST_CACHE",
        }
    }
}

/// An effect on files that was refused, with what to do about it where that is known.
pub(crate) fn storage_error(what: impl Into<String>, place: Place, why: io::Error) -> Error {
    let setting = place.setting();
    let hint = match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!(" (free space there, or set {setting} to another place)")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!(" (set {setting} to a directory that you can write)")
        }
        _ if has_no_locks(&why) => format!(
            " (the storage has no file locks, which say whether a run has an owner: set {setting} to a directory on a \
             local disk)"
        ),
        _ => String::new(),
    };
    Error::new(Kind::Host, what.into() + &hint).caused_by(why)
}

/// Whether this is how a file system without `flock` answers: some network file systems, as they are mounted.
fn has_no_locks(why: &io::Error) -> bool {
    why.raw_os_error().is_some_and(|errno| [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS].contains(&errno))
}

/// Whether the lock was taken; `false` where somebody holds it.
///
/// # Errors
/// When the storage refuses.
pub(super) fn taken(locked: Result<(), TryLockError>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Removes a folder with all in it. Somebody else may be removing it too.
///
/// # Errors
/// When something in it cannot be removed.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    loop {
        match std::fs::remove_dir_all(path) {
            // Of something in it, which another has removed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_ok() => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
}
