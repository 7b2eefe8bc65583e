//! The directory of one run, and the lock that says whether anybody owns it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{if_there, random};
use crate::error::{Error, Kind};

/// The name of the lock in a run directory.
const LOCK: &str = "lock";

/// Where the run directories of this user are.
///
/// `VMTEST_RUN`, else `$XDG_RUNTIME_DIR/vmtest`, else `/tmp/vmtest-<uid>`.
///
/// # Errors
/// [`Kind::Host`] when the directory cannot be made, or belongs to somebody else.
pub(crate) fn runs_root(setting: Option<&Path>) -> Result<PathBuf, Error> {
    let uid = nix::unistd::Uid::effective().as_raw();
    let root = match (setting, std::env::var_os("XDG_RUNTIME_DIR")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(runtime)) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("vmtest"),
        _ => PathBuf::from(format!("/tmp/vmtest-{uid}")),
    };
    let failed = |e: io::Error| {
        Error::new(Kind::Host, format!("cannot use {} for run directories", root.display())).caused_by(e)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed)?;
    let owner = fs::metadata(&root).map_err(failed)?.uid();
    if owner != uid {
        let message = format!(
            "{} belongs to user {owner}: remove it, or set VMTEST_RUN to a directory of your own",
            root.display()
        );
        return Err(Error::new(Kind::Host, message));
    }
    Ok(root)
}

/// A run directory whose lock this value holds. A free lock proves that nobody owns the run.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    id: String,
    /// Held, not read: closing it frees the run. Opened O_CLOEXEC, so that no VMM inherits it.
    _lock: File,
}

impl RunDir {
    /// The id of a run that is to come.
    ///
    /// # Errors
    /// [`Kind::Host`] when the kernel has no random numbers.
    pub(crate) fn new_id() -> Result<String, Error> {
        random_id().map_err(|e| Error::new(Kind::Host, "cannot choose the id of a run").caused_by(e))
    }

    /// Makes the directory of a new run and takes its lock.
    ///
    /// # Errors
    /// [`Kind::Host`] when the directory or its lock cannot be made, a full disk for example.
    pub(crate) fn create(root: &Path, id: String) -> Result<Self, Error> {
        let failed = |e: io::Error| {
            Error::new(Kind::Host, format!("cannot make a run directory in {}", root.display())).caused_by(e)
        };
        // Under this lock nobody sees a directory that has been made and not yet locked.
        let _registry = registry(root).map_err(failed)?;
        let path = root.join(&id);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let lock = open_lock(&path, true).and_then(|lock| lock.lock().map(|()| lock));
        match lock {
            Ok(lock) => Ok(Self { path, id, _lock: lock }),
            Err(e) => {
                // Best effort: the reason that is reported is why the lock could not be made.
                drop(fs::remove_dir_all(&path));
                Err(failed(e))
            }
        }
    }

    /// All runs whose owner is gone, each now locked by the caller. Live ones are left alone.
    ///
    /// # Errors
    /// [`Kind::Host`] when the root cannot be read.
    pub(crate) fn abandoned(root: &Path) -> Result<Vec<Self>, Error> {
        let failed = |e: io::Error| {
            Error::new(Kind::Host, format!("cannot look for old runs in {}", root.display())).caused_by(e)
        };
        let _registry = registry(root).map_err(failed)?;
        let mut runs = Vec::new();
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let id = entry.file_name().to_string_lossy().into_owned();
            if !is_id(&id) || !path.is_dir() {
                continue;
            }
            let lock = open_lock(&path, true).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => runs.push(Self { path, id, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Ok(runs)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Removes the directory with all in it; the lock is freed with `self`.
    ///
    /// # Errors
    /// [`Kind::Host`], naming the directory that is left.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        if_there(fs::remove_dir_all(&self.path))
            .map_err(|e| Error::new(Kind::Host, format!("cannot remove {}", self.path.display())).caused_by(e))
    }
}

fn registry(root: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join("registry.lock"))?;
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

    #[test]
    fn a_held_run_is_never_abandoned_and_a_dropped_one_is() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), RunDir::new_id().unwrap()).unwrap();
        assert!(RunDir::abandoned(root.path()).unwrap().is_empty());
        let path = run.path().to_owned();
        drop(run);
        let abandoned = RunDir::abandoned(root.path()).unwrap();
        assert_eq!(abandoned.iter().map(RunDir::path).collect::<Vec<_>>(), [path.as_path()]);
        assert!(RunDir::abandoned(root.path()).unwrap().is_empty(), "whoever found it holds it");
        abandoned[0].remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn foreign_entries_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("somebody-elses")).unwrap();
        assert!(RunDir::abandoned(root.path()).unwrap().is_empty());
        assert!(root.path().join("somebody-elses").exists());
    }
}
