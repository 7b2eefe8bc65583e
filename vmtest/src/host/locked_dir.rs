//! A directory of one run, and the lock that says whether anybody owns it.

use std::{
    fs::{self, DirBuilder, DirEntry, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    Place, if_there, random,
    storage::{remove_folder, storage_error, taken},
};
use crate::error::{Error, Kind};

/// The name of the lock in the directory of a run.
pub(crate) const LOCK: &str = "lock";
/// Held for the moment in which a directory appears, is looked at or goes.
const REGISTRY: &str = "registry.lock";

/// A directory of a run whose lock this value holds. A free lock proves that nobody owns the run.
#[derive(Debug)]
pub(crate) struct LockedDir {
    path: PathBuf,
    id: String,
    place: Place,
    /// Held, not read: closing it frees the run. Opened O_CLOEXEC, so that no VMM inherits it.
    _lock: File,
}

/// The directories of runs in one place.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Their owners are gone; each is now locked by the caller.
    pub(crate) abandoned: Vec<LockedDir>,
    /// What is there under the name of a run and could not be looked at, and why.
    pub(crate) unclear: Vec<String>,
}

impl LockedDir {
    /// The id of a run that is to come.
    ///
    /// # Errors
    /// [`Kind::Host`] when the kernel has no random numbers.
    pub(crate) fn new_id() -> Result<String, Error> {
        random_id().map_err(|e| Error::new(Kind::Host, "cannot choose the id of a run").caused_by(e))
    }

    /// Makes the directory of a new run and takes its lock. Makes the place, too, if it must.
    ///
    /// # Errors
    /// [`Kind::Host`] when the directory or its lock cannot be made, on a full disk for example.
    pub(crate) fn create(root: &Path, id: &str, place: Place) -> Result<Self, Error> {
        let failed = |e: io::Error| failed_in(root, place, e);
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        // Under this lock nobody sees a directory that has been made and not yet locked.
        let _registry = registry(root).map_err(failed)?;
        let path = root.join(id);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        match open_lock(&path, true).and_then(|lock| lock.lock().map(|()| lock)) {
            Ok(lock) => Ok(Self { path, id: id.to_owned(), place, _lock: lock }),
            Err(e) => {
                // Best effort: the reason that is reported is why the lock could not be made.
                drop(fs::remove_dir_all(&path));
                Err(failed(e))
            }
        }
    }

    /// All runs in this place whose owner is gone. Live ones are left alone, and everything that has no name of a run or
    /// no lock.
    ///
    /// # Errors
    /// [`Kind::Host`] when the place cannot be read or has no locks.
    pub(crate) fn abandoned(root: &Path, place: Place) -> Result<Found, Error> {
        let failed = |e: io::Error| storage_error(format!("cannot look for old runs in {}", root.display()), place, e);
        let mut found = Found::default();
        let names = || fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.file_name());
        // A cache may be read-only, where no test has a disk; then nobody can take a lock in it.
        if place == Place::Scratch && !names().any(|name| name.to_str().is_some_and(is_id)) {
            return Ok(found);
        }
        let _registry = registry(root).map_err(failed)?;
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match look_at(&entry, place) {
                Ok(run) => found.abandoned.extend(run),
                // Its owner, which removes what is in it without the registry, came first.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => found.unclear.push(storage_error(entry.path().display().to_string(), place, e).to_string()),
            }
        }
        Ok(found)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Removes the directory with all in it; the lock is freed with `self`. Idempotent.
    ///
    /// # Errors
    /// [`Kind::Host`], naming the directory that is left.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let failed = |e: io::Error| storage_error(format!("cannot remove {}", self.path.display()), self.place, e);
        // The lock goes last: as long as anything is there, it says whose it is.
        for entry in others(&self.path).map_err(failed)? {
            let path = entry.path();
            let is_dir = entry.file_type().map_err(failed)?.is_dir();
            let removed = if is_dir { remove_folder(&path) } else { if_there(fs::remove_file(&path)) };
            removed.map_err(failed)?;
        }
        Self::remove_if_empty(&self.path).map_err(failed)
    }

    /// Removes the directory of a run in which there is nothing any more but its lock. One that is gone is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn remove_if_empty(path: &Path) -> io::Result<()> {
        let root = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let _registry = registry(root)?;
        if others(path)?.is_empty() {
            if_there(fs::remove_file(path.join(LOCK)))?;
            if_there(fs::remove_dir(path))?;
        }
        Ok(())
    }
}

fn failed_in(root: &Path, place: Place, why: io::Error) -> Error {
    storage_error(format!("cannot make the directory of a run in {}", root.display()), place, why)
}

/// The run of this name, if its owner is gone; then locked.
fn look_at(entry: &DirEntry, place: Place) -> io::Result<Option<LockedDir>> {
    let (path, id) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
    if !is_id(&id) || !entry.file_type()?.is_dir() {
        return Ok(None);
    }
    let (owner, own) = (entry.metadata()?.uid(), nix::unistd::Uid::effective().as_raw());
    if owner != own {
        return Err(io::Error::other(format!("it belongs to user {owner}, not to {own}, and is left alone")));
    }
    let lock = match open_lock(&path, false) {
        // Whoever made it was killed before it made the lock, or removed it before the directory; then it is empty.
        Err(e) if e.kind() == io::ErrorKind::NotFound && others(&path)?.is_empty() => open_lock(&path, true)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(taken(lock.try_lock())?.then_some(LockedDir { path, id, place, _lock: lock }))
}

/// What is in the directory beside its lock.
fn others(path: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.filter(|entry| !entry.as_ref().is_ok_and(|entry| entry.file_name() == LOCK)).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn registry(root: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join(REGISTRY))?;
    file.lock()?;
    Ok(file)
}

fn open_lock(dir: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().create(create).truncate(false).write(true).mode(0o600).open(dir.join(LOCK))
}

/// Eight hexadecimal digits: short, because socket paths are, and enough for the runs of one user.
fn random_id() -> io::Result<String> {
    Ok(format!("{:08x}", u32::from_ne_bytes(random()?)))
}

fn is_id(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(root: &Path) -> Result<LockedDir, Error> {
        LockedDir::create(root, &LockedDir::new_id()?, Place::Run)
    }

    fn abandoned(root: &Path) -> Vec<LockedDir> {
        let found = LockedDir::abandoned(root, Place::Run).unwrap();
        assert_eq!(found.unclear, Vec::<String>::new());
        found.abandoned
    }

    #[test]
    fn a_held_run_is_never_abandoned_and_a_dropped_one_is() {
        let root = tempfile::tempdir().unwrap();
        let run = create(root.path()).unwrap();
        assert!(abandoned(root.path()).is_empty());
        let path = run.path().to_owned();
        drop(run);
        let found = abandoned(root.path());
        assert_eq!(found.iter().map(LockedDir::path).collect::<Vec<_>>(), [path.as_path()]);
        assert!(abandoned(root.path()).is_empty(), "whoever found it holds it");
        found[0].remove().unwrap();
        assert!(!path.exists());
        found[0].remove().unwrap();
    }

    #[test]
    fn foreign_entries_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("somebody-elses")).unwrap();
        fs::create_dir_all(at("00000001/without-a-lock")).unwrap();
        fs::write(at("00000002"), "a file").unwrap();
        std::os::unix::fs::symlink("/", at("00000003")).unwrap();
        assert!(abandoned(root.path()).is_empty());
        for name in ["somebody-elses", "00000001/without-a-lock", "00000002", "00000003"] {
            assert!(at(name).symlink_metadata().is_ok(), "{name}");
        }
    }

    #[test]
    fn an_owner_that_died_between_directory_and_lock_is_gone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("0000000a")).unwrap();
        abandoned(root.path())[0].remove().unwrap();
        assert!(!root.path().join("0000000a").exists());
    }

    #[test]
    fn in_a_cache_without_disks_nothing_is_written() {
        let root = tempfile::tempdir().unwrap();
        assert!(LockedDir::abandoned(root.path(), Place::Scratch).unwrap().abandoned.is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_that_cannot_be_opened_is_named_and_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("0000000a/lock")).unwrap();
        drop(create(root.path()).unwrap());
        let found = LockedDir::abandoned(root.path(), Place::Run).unwrap();
        assert_eq!((found.abandoned.len(), found.unclear.len()), (1, 1));
        assert!(found.unclear[0].contains("0000000a: Is a directory"), "{:?}", found.unclear);
    }

    #[test]
    fn a_run_of_another_user_is_named_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let run = create(root.path()).unwrap().path().to_owned();
        std::os::unix::fs::chown(&run, Some(65534), None).unwrap();
        let found = LockedDir::abandoned(root.path(), Place::Run).unwrap();
        assert!(found.abandoned.is_empty() && run.exists());
        assert!(found.unclear[0].contains("belongs to user 65534"), "{:?}", found.unclear);
    }
}
