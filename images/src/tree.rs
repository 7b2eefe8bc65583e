//! An initramfs as a directory, for machines that have no kernel of their own to unpack it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::{Component, Path, PathBuf},
};

use cpio::newc::Reader;

use crate::{Error, GuestConfig, Result, seed};

/// The part of an entry's mode that says what it is, from `stat(2)`.
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The content of an image's initramfs as a directory beside it, unpacked on first use; everything in it belongs to this
/// user and this group. Devices are left out. Blocks: 10 ms the first time, then well under one.
///
/// # Errors
/// When the initramfs cannot be read or the directory cannot be written.
pub fn tree(initramfs: &Path, owner: u32) -> Result<PathBuf> {
    let cache = initramfs.parent().unwrap_or(Path::new("."));
    let name = format!("tree-{owner}");
    let dir = cache.join(&name);
    if dir.exists() {
        return Ok(dir);
    }
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = File::options().create(true).append(true).open(&lock_path).map_err(Error::file("open", &lock_path))?;
    lock.lock().map_err(Error::file("lock", &lock_path))?;
    if dir.exists() {
        return Ok(dir);
    }
    // What a killed unpacking left, if anything; nobody else works on it under the lock.
    let work = cache.join(format!(".{name}"));
    match fs::remove_dir_all(&work) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", work)(e)),
        _ => {}
    }
    let archive = File::open(initramfs).map_err(Error::file("open", initramfs))?;
    unpack(BufReader::new(archive), &work, owner).map_err(Error::file("unpack into", &work))?;
    fs::rename(&work, &dir).map_err(Error::file("rename", &work))?;
    Ok(dir)
}

/// Writes what a guest is told as a directory; what [`crate::append_seed`] puts behind an initramfs.
///
/// # Errors
/// When a file cannot be written; what was written stays for the caller to remove.
pub fn write_seed(dir: &Path, owner: u32, config: &GuestConfig) -> io::Result<()> {
    let archive = seed::write_archive(Vec::new(), config)?;
    unpack(archive.as_slice(), dir, owner)
}

/// Unpacks the first archive of the stream. Names that lead out of the directory are an error.
fn unpack(mut archive: impl Read, dir: &Path, owner: u32) -> io::Result<()> {
    make_dir(dir, owner)?;
    loop {
        let mut entry = Reader::new(archive)?;
        if entry.entry().is_trailer() {
            return Ok(());
        }
        let (name, mode) = (PathBuf::from(entry.entry().name()), entry.entry().mode());
        let path = below(dir, &name, owner)?;
        let permissions = Permissions::from_mode(mode & 0o7777);
        match mode & TYPE {
            DIRECTORY => {
                make_dir(&path, owner)?;
                fs::set_permissions(&path, permissions)?;
            }
            REGULAR => {
                let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
                io::copy(&mut entry, &mut file)?;
                // In this order, because a change of owner clears a setuid bit.
                lchown(&path, Some(owner), Some(owner))?;
                fs::set_permissions(&path, permissions)?;
            }
            SYMLINK => {
                let mut target = String::new();
                entry.read_to_string(&mut target)?;
                symlink(target, &path)?;
                lchown(&path, Some(owner), Some(owner))?;
            }
            // Only root can make devices, and a machine without a kernel of its own gets them in another way.
            _ => {}
        }
        archive = entry.finish()?;
    }
}

/// The path of this entry, whose parents are made if no entry has made them.
fn below(dir: &Path, name: &Path, owner: u32) -> io::Result<PathBuf> {
    let mut path = dir.to_owned();
    let mut parts = name.components().filter(|part| *part != Component::CurDir).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else {
            return Err(io::Error::other(format!("the entry `{}` leads out of the archive", name.display())));
        };
        path.push(part);
        if parts.peek().is_some() {
            make_dir(&path, owner)?;
        }
    }
    Ok(path)
}

fn make_dir(path: &Path, owner: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => lchown(path, Some(owner), Some(owner)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.symlink_metadata()?.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::cpio_writer::Archive;

    fn archive(fill: impl FnOnce(&mut Archive<Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        fill(&mut archive).expect("it is written to memory");
        archive.finish().expect("it is written to memory")
    }

    #[test]
    fn an_archive_becomes_a_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let initramfs = dir.path().join("initramfs");
        let content = archive(|a| {
            a.directory("bin", 0o751)?;
            a.file("bin/tool", 0o755, b"#!")?;
            a.file("deep/er/file", 0o600, b"x")?;
            a.symlink("bin/link", "/bin/tool")?;
            a.character_device("dev-null", 0o666, 1, 3)
        });
        fs::write(&initramfs, content).expect("it can be written");
        let owner = rustix::process::geteuid().as_raw();
        let tree = tree(&initramfs, owner).expect("it is unpacked");
        let mode = |name: &str| fs::symlink_metadata(tree.join(name)).expect("it is there").mode() & 0o7777;
        assert_eq!([mode("bin"), mode("bin/tool"), mode("deep/er/file")], [0o751, 0o755, 0o600]);
        assert_eq!(fs::read_link(tree.join("bin/link")).expect("it is a link"), Path::new("/bin/tool"));
        assert!(!tree.join("dev-null").exists());
        let again = super::tree(&initramfs, owner).expect("it is there");
        assert_eq!(again, tree);
    }

    #[test]
    fn nothing_is_unpacked_elsewhere() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let owner = rustix::process::geteuid().as_raw();
        let out = |a: &mut Archive<Vec<u8>>| a.file("../out", 0o600, b"x");
        let error = unpack(archive(out).as_slice(), &dir.path().join("t"), owner).expect_err("it is refused");
        assert!(error.to_string().contains("`../out` leads out"), "{error}");
        let through = |a: &mut Archive<Vec<u8>>| {
            a.symlink("etc", "/tmp")?;
            a.file("etc/x", 0o600, b"x")
        };
        assert!(unpack(archive(through).as_slice(), &dir.path().join("u"), owner).is_err());
    }
}
