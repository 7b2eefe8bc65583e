//! The journal of a run, open for writing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    reader::{self, Contents},
    record::{Begin, Effect, Entry, JOURNAL, Record, VERSION},
};
use crate::{
    error::{Error, Kind},
    host::{CrashPoint, Place, ProcessId, crash::Moment, storage::storage_error},
};

/// The journal of one run, open for writing. Shared by all tasks of the run.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    contents: Contents,
    /// Whether something may stand behind the last whole line, of a record that could not be written.
    torn: bool,
    crash: Option<CrashPoint>,
}

impl Journal {
    /// Starts the journal of a new run. Our own tests can have the process killed at one of its records.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be written.
    pub(crate) fn create(dir: &Path, test: &str, crash: Option<CrashPoint>) -> Result<Self, Error> {
        let path = dir.join(JOURNAL);
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(|e| storage_error(format!("cannot make {}", path.display()), Place::Run, e))?;
        let journal = Self::new(path, file, Contents::default(), crash);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        journal.append(|_| {
            Record::Begin(Begin {
                version: VERSION,
                test: test.to_owned(),
                owner: ProcessId::own(),
                at: u64::try_from(at).unwrap_or(u64::MAX),
            })
        })?;
        Ok(journal)
    }

    /// Opens the journal of a run whose owner is gone. `None` where the owner died before it wrote anything. Writes
    /// nothing by itself.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be read, belongs to somebody else, comes from a newer version or is damaged.
    pub(crate) fn open(dir: &Path, crash: Option<CrashPoint>) -> Result<Option<Self>, Error> {
        let path = dir.join(JOURNAL);
        let failed = |e: io::Error| Error::new(Kind::Host, format!("cannot read {}", path.display())).caused_by(e);
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let (owner, own) = (file.metadata().map_err(failed)?.uid(), nix::unistd::Uid::effective().as_raw());
        if owner != own {
            let message = format!("{} belongs to user {owner}, not to {own}: it is left alone", path.display());
            return Err(Error::new(Kind::Host, message));
        }
        let contents = reader::read(&fs::read(&path).map_err(failed)?);
        let contents = contents.map_err(|e| Error::new(Kind::Host, format!("{} {e}", path.display())))?;
        Ok(contents.begin.is_some().then(|| Self::new(path, file, contents, crash)))
    }

    fn new(path: PathBuf, file: File, contents: Contents, crash: Option<CrashPoint>) -> Self {
        // Where nothing is torn, cutting at the end changes nothing.
        Self { path, state: Mutex::new(State { file, contents, torn: true, crash }) }
    }

    /// Records that the effect is about to happen, synced before this returns. The result is the effect's number.
    ///
    /// # Errors
    /// [`Kind::Host`]; then the effect must not happen.
    pub(crate) fn intent(&self, effect: Effect) -> Result<u32, Error> {
        let mut id = 0;
        self.append(|next| {
            id = next;
            Record::Intent { id, effect }
        })?;
        Ok(id)
    }

    /// Records that the effect has happened.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be written.
    pub(crate) fn done(&self, id: u32, process: Option<ProcessId>) -> Result<(), Error> {
        self.append(|_| Record::Done { id, process })
    }

    /// Records that the effect is undone. Where that cannot be written, on a full disk, it is undone all the same, and
    /// undone once more by a reconcile: everything that undoes may be done twice.
    pub(crate) fn released(&self, id: u32) {
        let record = Record::Released { id };
        if let Err(e) = self.append(|_| record.clone()) {
            tracing::warn!("{e}");
            drop(self.lock().contents.apply(&record));
        }
    }

    /// What may be on the host now, latest first: the order in which to undo it.
    pub(crate) fn outstanding(&self) -> Vec<Entry> {
        self.lock().contents.entries.iter().rev().cloned().collect()
    }

    /// Its first line; it has one once it is created or opened.
    pub(crate) fn begin(&self) -> Option<Begin> {
        self.lock().contents.begin.clone()
    }

    fn append(&self, make: impl FnOnce(u32) -> Record) -> Result<(), Error> {
        let mut state = self.lock();
        let record = make(state.contents.next);
        let failed = |e| storage_error(format!("cannot write {}", self.path.display()), Place::Run, e);
        state.write(&record).map_err(failed)?;
        state.contents.apply(&record).map_err(|why| failed(io::Error::other(why)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let line = record.line();
        if self.torn {
            self.file.set_len(self.contents.whole as u64)?;
        }
        self.torn = true;
        let names = self.crash.as_ref().map(|_| record.names(&self.contents.entries));
        if let (Some(crash), Some(names)) = (&mut self.crash, names) {
            crash.reached(Moment::Before, &names);
            crash.reached_in_the_middle(&names, || self.file.write_all(&line[..line.len() / 2]))?;
        }
        self.file.write_all(&line)?;
        if matches!(record, Record::Begin(_) | Record::Intent { .. }) {
            // An intent that the disk does not have is an effect that nobody can undo.
            self.file.sync_data()?;
        }
        self.contents.whole += line.len();
        self.torn = false;
        if let Some(crash) = &mut self.crash {
            crash.reached(Moment::After, &record.names(&self.contents.entries));
        }
        Ok(())
    }
}
