//! What is seen of a run while it happens, and what is kept of it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[path = "../evidence/event.rs"]
mod event;
#[path = "../evidence/health.rs"]
mod health;
#[path = "../evidence/work.rs"]
mod work;

use crate::{elsewhere::Never, error::Error};
pub use crate::{
    host::{Holder, Waiting},
    spec::Rung,
};
pub use event::{Event, Observer};
pub use health::Sign;
pub(crate) use work::Span;
pub use work::{Outcome, Printed, Work};

/// Where a test keeps files beyond its end.
#[derive(Debug, Clone)]
pub struct Artifacts(pub(crate) Never);

impl Artifacts {
    /// The directory, made if it is not there.
    ///
    /// # Errors
    /// When nothing is kept of this run.
    pub fn dir(&self) -> Result<PathBuf, Error> {
        match self.0 {}
    }

    /// Writes a file there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, _name: impl AsRef<Path>, _content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        match self.0 {}
    }
}

/// Says in the timeline of the calling test's run what its body does from now on; there is none.
pub fn step(_what: impl Into<String>) {}

/// Writes past the capture of libtest.
pub(crate) fn say(line: impl std::fmt::Display) {
    // Nobody can be told that nobody listens.
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Of a run, which there is none.
#[derive(Debug)]
pub(crate) struct Recorder(Never);

impl Recorder {
    pub(crate) fn current() -> Option<Arc<Self>> {
        None
    }

    pub(crate) fn work(self: &Arc<Self>, _node: Option<&str>, _kind: Work, _what: impl Into<String>) -> Span {
        match self.0 {}
    }

    fn ended(&self, _id: u64, _outcome: &Outcome) -> Duration {
        match self.0 {}
    }

    fn emit(&self, _event: &Event) {
        match self.0 {}
    }
}
