//! Where images are kept.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// How the names of downloads end that are not complete; what is before it is locked by whoever fetches it.
pub(crate) const PART: &str = ".part";

/// A directory that is shared by all tests of a user.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens a cache, and makes its directory where there is none.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let cache = Self { root: root.into() };
        fs::create_dir_all(cache.images()).map_err(Error::file("make", cache.images()))?;
        Ok(cache)
    }

    /// `$VMTEST_CACHE`, else `$XDG_CACHE_HOME/vmtest`, else `~/.cache/vmtest`, else a directory of this user in
    /// `/tmp`.
    pub fn default_dir(user: u32) -> PathBuf {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        var("VMTEST_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("vmtest")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache/vmtest")))
            .unwrap_or_else(|| format!("/tmp/vmtest-cache-{user}").into())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where files of the network are kept.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Where what has come from registries is kept.
    pub(crate) fn registries(&self) -> PathBuf {
        self.root.join("registries")
    }

    /// Where programs are that were fetched, by their names.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Waits until nobody else builds the image of this name, and says so if it must. The lock is freed with the result.
    pub(crate) fn lock(&self, name: &str, waits: impl FnOnce()) -> Result<File> {
        self.lock_in(&self.images(), name, waits)
    }

    /// The same without waiting: `None` where somebody builds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>> {
        self.try_lock_in(&self.images(), name)
    }

    /// The same for what has this name in this directory of the cache.
    pub(crate) fn try_lock_in(&self, dir: &Path, name: &str) -> Result<Option<File>> {
        try_lock(lock_file(dir, name)?)
    }

    /// Waits as [`Self::lock`] does, for what has this name in this directory of the cache.
    pub(crate) fn lock_in(&self, dir: &Path, name: &str, waits: impl FnOnce()) -> Result<File> {
        let (file, path) = lock_file(dir, name)?;
        if file.try_lock().is_err() {
            waits();
            file.lock().map_err(Error::file("lock", path))?;
        }
        Ok(file)
    }
}

/// The file by which this name is locked in a directory.
fn lock_file(dir: &Path, name: &str) -> Result<(File, PathBuf)> {
    let path = dir.join(format!("{name}.lock"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    Ok((file.map_err(Error::file("open", &path))?, path))
}

/// Locks a file for this process alone, if nobody has it now.
pub(crate) fn try_lock((file, path): (File, PathBuf)) -> Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::file("lock", path)(e)),
    }
}
