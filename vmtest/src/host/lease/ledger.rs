//! The files by which test processes share the host: who holds what, and who waits.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    record::{Record, VERSION},
    ticket::Ticket,
    usage::used,
};
use crate::{
    error::{Error, Kind},
    host::{
        Place, if_there,
        storage::{storage_error, taken},
    },
    spec::Resources,
};

/// The folder of the lease, beside the run directories.
const FOLDER: &str = "lease";

/// Where the claims and tickets of this user are.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    runs: PathBuf,
    dir: PathBuf,
}

/// The ledger while nobody else changes it: held for well under a millisecond a claim.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    ledger: &'a Ledger,
    _lock: File,
}

/// A claim whose owner lives.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) run: String,
    pub(super) record: Record,
}

impl Ledger {
    /// That of the runs in this root.
    ///
    /// # Errors
    /// [`Kind::Host`] when its folders cannot be made.
    pub(crate) fn open(runs: &Path) -> Result<Self, Error> {
        let ledger = Self::of(runs);
        for dir in [ledger.claims(), ledger.queue()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| ledger.failed(e))?;
        }
        Ok(ledger)
    }

    /// Removes the claims and tickets of processes that are gone.
    ///
    /// # Errors
    /// [`Kind::Host`] when they cannot be read or removed.
    pub(crate) fn sweep(runs: &Path) -> Result<(), Error> {
        let ledger = Self::of(runs);
        if !ledger.dir.exists() {
            return Ok(());
        }
        let locked = ledger.lock()?;
        for dir in [ledger.claims(), ledger.queue()] {
            locked.held(&dir).map_err(|e| ledger.failed(e))?;
        }
        Ok(())
    }

    fn of(runs: &Path) -> Self {
        Self { runs: runs.to_owned(), dir: runs.join(FOLDER) }
    }

    pub(super) fn claims(&self) -> PathBuf {
        self.dir.join("claims")
    }

    pub(super) fn queue(&self) -> PathBuf {
        self.dir.join("queue")
    }

    /// Blocks until nobody else changes it.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let open =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.dir.join("ledger.lock"));
        let lock = open.and_then(|file| file.lock().map(|()| file)).map_err(|e| self.failed(e))?;
        Ok(Locked { ledger: self, _lock: lock })
    }

    /// What the machines of this run take up now.
    pub(super) fn used_by(&self, run: &str) -> Resources {
        used(&self.runs.join(run))
    }

    pub(super) fn failed(&self, why: io::Error) -> Error {
        let what = format!("cannot share the host with other tests by the files in {}", self.dir.display());
        storage_error(what, Place::Run, why)
    }
}

impl Locked<'_> {
    /// The claims whose owners live.
    pub(super) fn claims(&self) -> Result<Vec<Live>, Error> {
        let held = self.held(&self.ledger.claims()).map_err(|e| self.ledger.failed(e))?;
        held.into_iter().map(|(run, file)| Ok(Live { record: self.read(&run, &file)?, run })).collect()
    }

    /// The numbers of those who wait, in their order.
    pub(super) fn tickets(&self) -> Result<Vec<u64>, Error> {
        let held = self.held(&self.ledger.queue()).map_err(|e| self.ledger.failed(e))?;
        let mut numbers: Vec<_> = held.into_iter().filter_map(|(name, _)| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A place behind all others.
    pub(super) fn new_ticket(&self) -> Result<Ticket, Error> {
        Ticket::behind(self.tickets()?.last().copied(), &self.ledger.queue()).map_err(|e| self.ledger.failed(e))
    }

    /// Makes the claim of this run; it holds for as long as the file is open.
    pub(super) fn new_claim(&self, run: &str, record: &Record) -> Result<File, Error> {
        let path = self.ledger.claims().join(run);
        let make = new_locked_file(&path).and_then(|file| write(&file, record).map(|()| file));
        make.map_err(|e| {
            // Best effort: without its lock it is nobody's, and the next one who looks removes it.
            drop(fs::remove_file(&path));
            self.ledger.failed(e)
        })
    }

    /// Changes what a claim of this process says.
    pub(super) fn rewrite(&self, file: &File, record: &Record) -> Result<(), Error> {
        write(file, record).map_err(|e| self.ledger.failed(e))
    }

    /// The files in this folder whose locks are held, by name. The others are nobody's, and removed.
    fn held(&self, dir: &Path) -> io::Result<Vec<(String, File)>> {
        let mut held = Vec::new();
        let entries = match fs::read_dir(dir) {
            // The first test of this host is making it at this moment.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(held),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let file = match File::open(entry.path()) {
                Ok(file) => file,
                // Given up at this moment, which needs no lock.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if taken(file.try_lock_shared())? {
                if_there(fs::remove_file(entry.path()))?;
            } else {
                held.push((entry.file_name().to_string_lossy().into_owned(), file));
            }
        }
        Ok(held)
    }

    fn read(&self, run: &str, file: &File) -> Result<Record, Error> {
        let text = io::read_to_string(file).map_err(|e| self.ledger.failed(e))?;
        let record = serde_json::from_str(&text).ok().filter(|record: &Record| record.version <= VERSION);
        record.ok_or_else(|| {
            let path = self.ledger.claims().join(run);
            let message = format!(
                "{} is of another version of vmtest: wait for the end of the test that holds it, or set VMTEST_RUN to \
                 another directory",
                path.display()
            );
            Error::new(Kind::Host, message)
        })
    }
}

/// A file that is there only together with its held lock, under the ledger's own.
pub(super) fn new_locked_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

fn write(file: &File, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record).expect("a record is plain data");
    // Nobody reads it meanwhile, and whoever dies in the middle holds nothing any more.
    file.set_len(0)?;
    file.write_all_at(&text, 0)
}
