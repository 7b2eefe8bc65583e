//! One layer of an image, unpacked over those below it.
//!
//! Every path is resolved by the kernel within the root (`openat2` with `RESOLVE_IN_ROOT`), so that neither `..` nor a link of a
//! layer leads out of it.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, chmodat,
        chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat,
        symlinkat, utimensat,
    },
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

use super::removal::{DIRECTORY, names, remove};

/// What the name of a file begins with that says that the rest of it is gone.
const WHITEOUT: &[u8] = b".wh.";
/// The file that says that of everything below its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// In archives, before the names of extended attributes.
const ATTRIBUTE: &str = "SCHILY.xattr.";
const CAPABILITIES: &str = "security.capability";
/// As many ids as a system has.
const IDS: u64 = 1 << 16;

/// As much of a file is written at once; `io::copy` takes 8 KiB.
const BUFFER: usize = 128 << 10;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the entry `{}` leads out of the image", .0.display())]
    Escape(PathBuf),
    #[error("`{}` belongs to {id}, and a system has {IDS} ids", .path.display())]
    Owner { path: PathBuf, id: u64 },
    #[error("`{}`: {source}", .path.display())]
    Entry { path: PathBuf, source: io::Error },
}

impl From<io::ErrorKind> for Failure {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// Unpacks this layer into the directory; its owners are counted from this id.
pub(super) fn unpack(layer: impl Read, root: &Path, first: u32) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).map_err(io::Error::from)?;
    let buffer = vec![0; BUFFER];
    let mut unpacking = Unpacking { root, first, own: HashSet::new(), times: Vec::new(), last: None, buffer };
    let mut archive = Archive::new(layer);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inner(&entry.path()?)?;
        match unpacking.entry(&mut entry, &path) {
            Err(Failure::Io(source)) => return Err(Failure::Entry { path, source }),
            other => other?,
        }
    }
    unpacking.finish()
}

/// The path from the root on.
fn inner(path: &Path) -> Result<PathBuf, Failure> {
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(Failure::Escape(path.to_owned())),
        }
    }
    Ok(inner)
}

struct Unpacking {
    root: OwnedFd,
    first: u32,
    /// What this layer has made, which its whiteouts do not mean.
    own: HashSet<PathBuf>,
    /// Times of directories, which change while these are filled.
    times: Vec<(PathBuf, Timestamps)>,
    /// The directory of the entry before, which is that of most.
    last: Option<(PathBuf, OwnedFd)>,
    /// Through which the content of files goes.
    buffer: Vec<u8>,
}

impl Unpacking {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), Failure> {
        let Some(name) = path.file_name() else {
            let owner = self.owner(entry, path)?;
            let root = self.directory_at(Path::new(""))?;
            own(root.as_fd(), owner)?;
            fchmod(&root, mode(entry)?).map_err(io::Error::from)?;
            return Ok(());
        };
        let dir = path.parent().unwrap_or(Path::new(""));
        let parent = self.parent(dir)?;
        if name.as_bytes() == OPAQUE {
            self.remove_lower(&parent, dir)?;
        } else if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT) {
            let gone = OsStr::from_bytes(gone);
            if matches!(gone.as_bytes(), b"" | b"." | b"..") {
                return Err(Failure::Escape(path.to_owned()));
            }
            self.remove_unless_own(&parent, gone, &dir.join(gone))?;
        } else {
            self.make(entry, path, &parent, name)?;
            // What is above it is of this layer too, whether the layer says so or not.
            let above = path.ancestors().take_while(|path| *path != Path::new(""));
            above.map(Path::to_owned).map_while(|path| self.own.insert(path).then_some(())).for_each(drop);
        }
        self.last = Some((dir.to_owned(), parent));
        Ok(())
    }

    /// Makes what the entry says, in place of what is there.
    fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Failure> {
        let (owner, mode, times) = (self.owner(entry, path)?, mode(entry)?, times(entry)?);
        match entry.header().entry_type() {
            EntryType::Directory => {
                let dir = self.made_directory(parent, name)?;
                own(dir.as_fd(), owner)?;
                fchmod(&dir, mode).map_err(io::Error::from)?;
                self.attributes(entry, dir.as_fd())?;
                self.times.push((path.to_owned(), times));
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                let target = inner(&target)?;
                let from = self.directory_at(target.parent().unwrap_or(Path::new("")))?;
                let old = target.file_name().ok_or(io::ErrorKind::InvalidData)?;
                // An archive may hold a file twice; one that is a link to itself is there.
                let same = |a: &OwnedFd, x: &OsStr, b: &OwnedFd, y: &OsStr| {
                    let of = |fd: &OwnedFd, name: &OsStr| {
                        statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| (s.st_dev, s.st_ino))
                    };
                    matches!((of(a, x), of(b, y)), (Ok(x), Ok(y)) if x == y)
                };
                if !same(&from, old, parent, name) {
                    self.in_place(parent, name, || linkat(&from, old, parent, name, AtFlags::empty()))?;
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
                let target = OsStr::from_bytes(&target).to_owned();
                self.in_place(parent, name, || symlinkat(&target, parent, name))?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let (uid, gid) = ids(owner);
                chownat(parent, name, Some(uid), Some(gid), flags).map_err(io::Error::from)?;
                utimensat(parent, name, &times, flags).map_err(io::Error::from)?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                self.node(entry, parent, name, owner, mode)?;
            }
            EntryType::XGlobalHeader => {}
            // Whatever else there is in an archive is a file to who does not know it.
            _ => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = || openat(parent, name, flags, Mode::from_raw_mode(0o600));
                let file = self.in_place(parent, name, open)?;
                let mut file = std::fs::File::from(file);
                copy(entry, &mut file, &mut self.buffer)?;
                // In this order, because a change of owner clears a setuid bit and capabilities.
                own(file.as_fd(), owner)?;
                fchmod(&file, mode).map_err(io::Error::from)?;
                self.attributes(entry, file.as_fd())?;
                futimens(&file, &times).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }

    /// A pipe, or a device where this process may make one: a machine has its own in `/dev`.
    fn node(
        &mut self,
        entry: &Entry<'_, impl Read>,
        parent: &OwnedFd,
        name: &OsStr,
        owner: (u32, u32),
        mode: Mode,
    ) -> Result<(), Failure> {
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Fifo => FileType::Fifo,
            EntryType::Char => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let device = if kind == FileType::Fifo {
            0
        } else {
            makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))
        };
        let made = self.in_place(parent, name, || mknodat(parent, name, kind, mode, device));
        match made {
            Err(e) if kind != FileType::Fifo && e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            other => other?,
        }
        let (uid, gid) = ids(owner);
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        chmodat(parent, name, mode, AtFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    /// Does this; where there is something already, once more without it.
    fn in_place<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                remove(parent.as_fd(), name)?;
                Ok(make()?)
            }
            other => Ok(other?),
        }
    }

    /// The directory of this name, which may be there already and then keeps what is in it.
    fn made_directory(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    remove(parent.as_fd(), name)?;
                    mkdirat(parent, name, Mode::RWXU)?;
                }
            }
            Err(e) => return Err(e.into()),
        }
        Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
    }

    /// The directory at this path, made with those above it where no entry has made it.
    fn parent(&mut self, dir: &Path) -> Result<OwnedFd, Failure> {
        if let Some((path, fd)) = self.last.take() {
            // What was put in place of a directory may be a link, and the one that is open is gone then.
            let current = || statat(&self.root, dir, AtFlags::SYMLINK_NOFOLLOW).ok();
            let is = || rustix::fs::fstat(&fd).ok();
            if path == dir
                && matches!((current(), is()), (Some(a), Some(b)) if a.st_ino == b.st_ino && a.st_dev == b.st_dev)
            {
                return Ok(fd);
            }
        }
        match self.directory_at(dir) {
            Err(Failure::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let above = self.parent(dir.parent().unwrap_or(Path::new("")))?;
        let name = dir.file_name().unwrap_or_default();
        let made = self.made_directory(&above, name)?;
        own(made.as_fd(), (self.first, self.first))?;
        fchmod(&made, Mode::from_raw_mode(0o755)).map_err(io::Error::from)?;
        Ok(made)
    }

    /// The directory at this path, through links as the image has them.
    fn directory_at(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let path = if path == Path::new("") { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(io::Error::from)?)
    }

    /// Removes what is below the directory at this path, but for what is of this layer.
    fn remove_lower(&self, dir: &OwnedFd, path: &Path) -> io::Result<()> {
        for name in names(dir.as_fd())? {
            self.remove_unless_own(dir, &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn remove_unless_own(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        if !self.own.contains(path) {
            return remove(parent.as_fd(), name);
        }
        match openat(parent, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => self.remove_lower(&dir, path),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn owner(&self, entry: &Entry<'_, impl Read>, path: &Path) -> Result<(u32, u32), Failure> {
        let id = |id: u64| match u32::try_from(id) {
            Ok(small) if id < IDS => Ok(self.first + small),
            _ => Err(Failure::Owner { path: path.to_owned(), id }),
        };
        Ok((id(entry.header().uid()?)?, id(entry.header().gid()?)?))
    }

    /// Capabilities, and what programs have written; another system's labels mean nothing here.
    fn attributes(&self, entry: &mut Entry<'_, impl Read>, of: BorrowedFd<'_>) -> io::Result<()> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
        for extension in extensions {
            let extension = extension?;
            let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE)) else { continue };
            if name == CAPABILITIES {
                let value = capabilities(extension.value_bytes(), self.first);
                fsetxattr(of, name, &value, XattrFlags::empty())?;
            } else if name.starts_with("user.") {
                fsetxattr(of, name, extension.value_bytes(), XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        for (path, times) in &self.times {
            // A later entry may have put something else there.
            if let Ok(dir) = self.directory_at(path) {
                futimens(&dir, times).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }
}

/// Writes all of the entry.
fn copy(entry: &mut impl Read, file: &mut impl Write, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match entry.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => file.write_all(&buffer[..read])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn mode(entry: &Entry<'_, impl Read>) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(entry.header().mode()? & 0o7777))
}

fn times(entry: &Entry<'_, impl Read>) -> io::Result<Timestamps> {
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or_default();
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    })
}

fn ids((uid, gid): (u32, u32)) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid))
}

fn own(file: BorrowedFd<'_>, owner: (u32, u32)) -> io::Result<()> {
    let (uid, gid) = ids(owner);
    Ok(fchown(file, Some(uid), Some(gid))?)
}

/// The capabilities of a file whose system's root is this id here: the kernel shows the second form to that system, and
/// takes the third from this one.
fn capabilities(value: &[u8], first: u32) -> Vec<u8> {
    const SECOND: u32 = 0x0200_0000;
    const THIRD: u32 = 0x0300_0000;
    const VERSION: u32 = 0xff00_0000;
    match value.first_chunk::<4>().map(|magic| u32::from_le_bytes(*magic)) {
        Some(magic) if first > 0 && magic & VERSION == SECOND && value.len() == 20 => {
            let magic = (magic & !VERSION) | THIRD;
            [&magic.to_le_bytes(), &value[4..], &first.to_le_bytes()].concat()
        }
        _ => value.to_owned(),
    }
}
