//! A place in the queue.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::ledger::new_locked_file;
use crate::host::if_there;

/// A file whose lock is held by whoever waits there; the numbers are the order. It leaves the queue when it is dropped,
/// and for the others when its process ends.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) number: u64,
    path: PathBuf,
    /// Held, not read.
    _file: File,
}

impl Ticket {
    /// The place behind this last one. To be called under the ledger's lock.
    pub(super) fn behind(last: Option<u64>, queue: &Path) -> io::Result<Self> {
        let number = last.map_or(0, |last| last + 1);
        let path = queue.join(number.to_string());
        Ok(Self { number, _file: new_locked_file(&path)?, path })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Err(e) = if_there(fs::remove_file(&self.path)) {
            // The next one who looks removes it: its lock is free from now on.
            tracing::warn!("{}: {e}", self.path.display());
        }
    }
}

/// Blocks until whoever holds this ticket is served or gone.
pub(super) fn wait_for(ticket: &Path) -> io::Result<()> {
    match File::open(ticket) {
        Ok(file) => file.lock_shared(),
        Err(e) => if_there(Err(e)),
    }
}
