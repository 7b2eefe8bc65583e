//! Writing a cpio archive as the kernel reads it.

use std::io::{self, Write};

use cpio::newc::{Builder, trailer};

/// Types of entries, from `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the `newc` format. Owners are root and times 0, so that the same content gives the same bytes.
pub(crate) struct Archive<W: Write> {
    out: Option<W>,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out: Some(out), next_inode: 1 }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, DIRECTORY | mode, None, b"")
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, None, content)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK | 0o777, None, target.as_bytes())
    }

    pub(crate) fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, CHARACTER_DEVICE | mode, Some((major, minor)), b"")
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        trailer(self.out.take().ok_or(io::ErrorKind::BrokenPipe)?)
    }

    fn entry(&mut self, path: &str, mode: u32, device: Option<(u32, u32)>, content: &[u8]) -> io::Result<()> {
        let mut entry = Builder::new(path.trim_start_matches('/')).ino(self.next_inode).mode(mode).nlink(1);
        if let Some((major, minor)) = device {
            entry = entry.rdev_major(major).rdev_minor(minor);
        }
        self.next_inode += 1;
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut writer = entry.write(self.out.take().ok_or(io::ErrorKind::BrokenPipe)?, size);
        writer.write_all(content)?;
        self.out = Some(writer.finish()?);
        Ok(())
    }
}
