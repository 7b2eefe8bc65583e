//! The directory of a run's scratch disks.

use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;

use crate::{
    error::Error,
    host::{LockedDir, Place},
};

/// `<cache>/scratch/<id of the run>`, made and locked with the first disk.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    root: PathBuf,
    id: String,
    path: PathBuf,
    made: OnceCell<LockedDir>,
}

impl ScratchDir {
    /// Where it will be. Makes nothing.
    pub(crate) fn new(root: PathBuf, id: &str) -> Self {
        Self { path: root.join(id), root, id: id.to_owned(), made: OnceCell::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// [`Kind::Host`](crate::Kind::Host) when it cannot be made or locked.
    pub(crate) fn ensure(&self) -> Result<(), Error> {
        self.made.get_or_try_init(|| LockedDir::create(&self.root, &self.id, Place::Scratch)).map(drop)
    }

    /// Removes it, if it was made, with all in it. Idempotent.
    ///
    /// # Errors
    /// Naming what is left.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.made.get().map_or(Ok(()), LockedDir::remove)
    }
}
