//! Removing, replacing and copying files.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::Path,
};

use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
};

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

/// Copies a file to one that is new and the caller's alone: as a reference where the file system has such, else without its
/// holes. Blocks.
///
/// # Errors
/// When the file is there already, or one of them cannot be read or written.
pub(crate) fn copy_sparse(mut from: &File, to: &Path) -> io::Result<()> {
    let mut to = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    if ioctl_ficlone(&to, from).is_ok() {
        return Ok(());
    }
    let bytes = from.metadata()?.len();
    to.set_len(bytes)?;
    let mut done = 0;
    while done < bytes {
        let data = match seek(from, SeekFrom::Data(done)) {
            // There is only a hole left.
            Err(Errno::NXIO) => break,
            data => data?,
        };
        done = seek(from, SeekFrom::Hole(data))?;
        for mut file in [from, &to] {
            file.seek(io::SeekFrom::Start(data))?;
        }
        io::copy(&mut from.by_ref().take(done - data), &mut to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn a_copy_has_the_same_content_and_no_more_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("from"), dir.path().join("to"));
        let from = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        from.set_len(64 << 20).unwrap();
        for (at, byte) in [(0, 1), (20 << 20, 2), ((40 << 20) - 3, 3)] {
            from.write_all_at(&[byte; 10_000], at).unwrap();
        }
        copy_sparse(&from, &copy).unwrap();
        assert!(fs::read(&path).unwrap() == fs::read(&copy).unwrap());
        let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
        assert!(blocks(&copy) <= blocks(&path), "{} of {}", blocks(&copy), blocks(&path));
        assert_eq!(copy_sparse(&from, &copy).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
