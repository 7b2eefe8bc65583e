//! Removing and replacing files.

use std::{fs, io, os::unix::fs::symlink, path::Path};

/// The result of a removal, for which what was not there is removed as well.
///
/// # Errors
/// Every other one of the removal.
pub(crate) fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes a symbolic link at this place, in place of the one that is there.
///
/// # Errors
/// When it cannot be made, or what is there is a directory.
pub(crate) fn relink(to: &Path, at: &Path) -> io::Result<()> {
    if_there(fs::remove_file(at))?;
    symlink(to, at)
}
