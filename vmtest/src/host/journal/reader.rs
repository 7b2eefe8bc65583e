//! Reading a journal: from bytes to what may be on the host. Touches nothing.

use std::fmt;

use serde::Deserialize;

use super::record::{Begin, Entry, Record, VERSION};

/// What the whole lines of a journal say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// `None` where the owner died before it had written the first line.
    pub(super) begin: Option<Begin>,
    /// What is not released, in the order in which it was announced.
    pub(super) entries: Vec<Entry>,
    /// The number of the next effect.
    pub(super) next: u32,
    /// The length of the whole lines in bytes; what comes after was being written when the owner died.
    pub(super) whole: usize,
}

/// Why a journal cannot be believed. Then nothing that it names is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It was written by a newer vmtest.
    Newer(u32),
    /// This line, from 1, is not what stands there in a journal.
    Corrupt {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(version) => {
                write!(f, "is of version {version}; this vmtest reads {VERSION}: prune it with a newer one")
            }
            Self::Corrupt { line, why } => write!(
                f,
                "is damaged in line {line} ({why}), so the run is left alone: end what it names, if that is still \
                 there, and remove its directory"
            ),
        }
    }
}

/// The one field that all versions of the first line have.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Reads what a journal holds. A last line without an end is ignored: its effect had not begun.
///
/// # Errors
/// When a whole line is no record, out of its order, or of a newer version.
pub(super) fn read(journal: &[u8]) -> Result<Contents, Unreadable> {
    let mut contents = Contents::default();
    for (number, line) in journal.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let corrupt = |why: String| Unreadable::Corrupt { line: number + 1, why };
        if number == 0
            && let Ok(Head { version }) = serde_json::from_slice(text)
            && version > VERSION
        {
            return Err(Unreadable::Newer(version));
        }
        let record: Record = serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))?;
        if matches!(record, Record::Begin(_)) != (number == 0) {
            return Err(corrupt("`begin` is the first line, and no other".to_owned()));
        }
        contents.apply(&record).map_err(corrupt)?;
        contents.whole += line.len();
    }
    Ok(contents)
}

impl Contents {
    /// What is so once this record is written.
    ///
    /// # Errors
    /// When no writer could have written it here.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Begin(begin) => self.begin = Some(begin.clone()),
            Record::Intent { id, effect } => {
                let next = self.next.checked_add(1).filter(|_| *id == self.next);
                self.next = next.ok_or_else(|| format!("effect {id} where {} comes", self.next))?;
                self.entries.push(Entry { id: *id, effect: effect.clone(), process: None });
            }
            Record::Done { id, process } => {
                for entry in self.entries.iter_mut().filter(|entry| entry.id == *id) {
                    entry.process.clone_from(process);
                }
            }
            Record::Released { id } => self.entries.retain(|entry| entry.id != *id),
        }
        Ok(())
    }
}
