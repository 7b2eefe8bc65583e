//! What a run is about to do, on disk before it does it. The format is specified in `docs/journal.md`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::ProcessId;
use crate::error::{Error, Kind};

/// The file in the run directory.
const FILE: &str = "journal.jsonl";
/// Version of the format; a reader refuses a newer one and leaves the run alone.
const VERSION: u32 = 2;

/// Something that a run changes on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Effect {
    /// A network interface in the run's own network namespace, which the kernel removes with the run's last thread.
    Link {
        /// Its name there.
        name: String,
    },
    /// The folder of a node in the run directory.
    NodeDir {
        /// Its name, which is the node's.
        name: String,
    },
    /// A folder for a scratch disk, in the cache: disks are large, and run directories may be in memory.
    Scratch {
        /// Its path, `<cache>/scratch/<id of the run>/<position of the node>`.
        path: PathBuf,
    },
    /// A VMM.
    Process {
        /// The node that it runs.
        node: String,
    },
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line: who owns the run.
    Begin {
        /// Format version.
        version: u32,
        /// The test's path.
        test: String,
        /// The owner.
        owner: ProcessId,
        /// Milliseconds since the epoch.
        at: u64,
    },
    /// The effect is about to happen.
    Intent {
        /// Number of the effect in this journal, from 0.
        id: u32,
        /// What will happen.
        effect: Effect,
    },
    /// The effect has happened.
    Done {
        /// The effect's number.
        id: u32,
        /// For a process, which one it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<ProcessId>,
    },
    /// The effect has been undone.
    Released {
        /// The effect's number.
        id: u32,
    },
}

/// An effect that is not released: something that may be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    pub(crate) effect: Effect,
    pub(crate) process: Option<ProcessId>,
}

/// The journal of one run, open for writing. Shared by all tasks of the run.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    entries: Vec<Entry>,
    next: u32,
}

impl Journal {
    /// Starts the journal of a new run.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be written.
    pub(crate) fn create(dir: &Path, test: &str) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::new(Kind::Host, format!("cannot make {}", path.display())).caused_by(e))?;
        let journal = Self { path, state: Mutex::new(State { file, entries: Vec::new(), next: 0 }) };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        journal.append(|_| Record::Begin {
            version: VERSION,
            test: test.to_owned(),
            owner: ProcessId::own(),
            at: u64::try_from(at).unwrap_or(u64::MAX),
        })?;
        Ok(journal)
    }

    /// Opens the journal of a run whose owner is gone. `None` where the owner died before it wrote anything.
    ///
    /// A last line that was cut off by the death is ignored: its effect had not begun.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be read or comes from a newer version.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(FILE);
        let failed = |e: io::Error| Error::new(Kind::Host, format!("cannot read {}", path.display())).caused_by(e);
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let mut state = State { file: file.try_clone().map_err(failed)?, entries: Vec::new(), next: 0 };
        let mut began = false;
        for line in BufReader::new(file).split(b'\n') {
            let Ok(record) = serde_json::from_slice(&line.map_err(failed)?) else { continue };
            if let Record::Begin { version, .. } = &record {
                if *version > VERSION {
                    let message = format!(
                        "{} is of version {version}; this vmtest reads {VERSION}: prune it with a newer one",
                        path.display()
                    );
                    return Err(Error::new(Kind::Host, message));
                }
                began = true;
            }
            state.apply(&record);
        }
        Ok(began.then(|| Self { path, state: Mutex::new(state) }))
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

    /// Records that the effect is undone.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot be written.
    pub(crate) fn released(&self, id: u32) -> Result<(), Error> {
        self.append(|_| Record::Released { id })
    }

    /// What may be on the host now, latest first: the order in which to undo it.
    pub(crate) fn outstanding(&self) -> Vec<Entry> {
        self.lock().entries.iter().rev().cloned().collect()
    }

    fn append(&self, make: impl FnOnce(u32) -> Record) -> Result<(), Error> {
        let mut state = self.lock();
        let record = make(state.next);
        let mut line = serde_json::to_vec(&record).expect("a record is plain data");
        line.push(b'\n');
        let written = state.file.write_all(&line).and_then(|()| match record {
            // An intent that the disk does not have is an effect that nobody can undo.
            Record::Begin { .. } | Record::Intent { .. } => state.file.sync_data(),
            Record::Done { .. } | Record::Released { .. } => Ok(()),
        });
        written.map_err(|e| Error::new(Kind::Host, format!("cannot write {}", self.path.display())).caused_by(e))?;
        state.apply(&record);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Begin { .. } => {}
            Record::Intent { id, effect } => {
                self.entries.push(Entry { id: *id, effect: effect.clone(), process: None });
                self.next = id + 1;
            }
            Record::Done { id, process } => {
                for entry in self.entries.iter_mut().filter(|entry| entry.id == *id) {
                    entry.process.clone_from(process);
                }
            }
            Record::Released { id } => self.entries.retain(|entry| entry.id != *id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Effect {
        Effect::Link { name: name.into() }
    }

    #[test]
    fn what_is_not_released_is_outstanding_latest_first() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), "t").unwrap();
        let bridge = journal.intent(link("br0")).unwrap();
        let tap = journal.intent(link("tap0")).unwrap();
        journal.intent(link("tap1")).unwrap();
        journal.done(bridge, None).unwrap();
        journal.released(tap).unwrap();
        let reopened = Journal::open(dir.path()).unwrap().unwrap();
        assert_eq!(journal.outstanding(), reopened.outstanding());
        let effects: Vec<_> = reopened.outstanding().into_iter().map(|entry| entry.effect).collect();
        assert_eq!(effects, [link("tap1"), link("br0")]);
    }

    #[test]
    fn a_line_cut_off_by_death_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        Journal::create(dir.path(), "t").unwrap().intent(link("br0")).unwrap();
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            drop(Journal::open(dir.path()).unwrap());
        }
        std::fs::write(&path, [&whole[..], b"{\"type\":\"inten"].concat()).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().unwrap().outstanding().len(), 1);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"type":"begin","version":99,"test":"t","owner":{"pid":1,"start":1,"boot":"b"},"at":0}"#;
        std::fs::write(dir.path().join(FILE), format!("{line}\n")).unwrap();
        assert!(Journal::open(dir.path()).unwrap_err().to_string().contains("version 99"));
    }
}
