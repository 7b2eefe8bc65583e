//! What a run is about to do, on disk before it does it. The format is specified in `docs/journal.md`.

#[cfg(any(test, fuzzing))]
mod properties;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(fuzzing)]
pub(crate) use properties::check as check_journal;
pub(crate) use record::{Effect, Entry, HOST_LINKS, JOURNAL, host_prefix};
pub(crate) use writer::Journal;
