//! How often something is tried again, and when.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::Failed;
use crate::Error;

/// A server that is silent for longer than this is given up: TCP has sent a lost packet again several times by then.
const SILENCE: Duration = Duration::from_secs(30);
/// The pause before the second try; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Tries in a row that bring next to nothing; with their pauses they outlast the restart of a server.
const TRIES: u32 = 5;
/// A server may ask for a longer pause than ours, as those do that count requests, but for no longer one than a person waits
/// without asking why.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// For how long somebody waits for a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For how long the server may be silent.
    pub(crate) silence: Duration,
    /// The pause before the second try.
    pub(crate) first_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: SILENCE, first_pause: FIRST_PAUSE }
    }
}

/// Tells those who fetch something that nobody wants it any more.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until it is set.
    fn wait(&self, pause: Duration) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(set, pause, |set| !*set);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why it was given up.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// What the last try came to, and how many there were in a row.
    Failed {
        why: String,
        tries: u32,
    },
    /// What came could not be written.
    Here(std::io::Error),
    Stopped,
}

impl GivenUp {
    /// The same as an error, about what was to be read from this address.
    pub(crate) fn of(self, url: &str) -> Error {
        let failed = |why, tries| Error::Download { url: url.to_owned(), why, tries };
        match self {
            Self::Failed { why, tries } => failed(why, tries),
            Self::Here(e) => Error::file("read", url)(e),
            Self::Stopped => failed("it was stopped".to_owned(), 1),
        }
    }
}

/// Tries until it is done: again after failures that may pass, each time after a longer pause. `progress` says whether the last
/// try has brought enough to begin anew.
pub(crate) fn patiently<T>(
    what: &str,
    first_pause: Duration,
    stop: &Stop,
    mut one: impl FnMut() -> Result<T, Failed>,
    progress: impl Fn() -> bool,
) -> Result<T, GivenUp> {
    let (mut failures, mut pause) = (0, first_pause);
    loop {
        let (why, after) = match one() {
            Ok(done) => return Ok(done),
            Err(Failed::Here(e)) => return Err(GivenUp::Here(e)),
            Err(Failed::Stopped) => return Err(GivenUp::Stopped),
            Err(Failed::ForGood(why)) => return Err(GivenUp::Failed { why, tries: failures + 1 }),
            Err(Failed::ForNow(why, after)) => (why, after),
        };
        if progress() {
            (failures, pause) = (0, first_pause);
        }
        failures += 1;
        if failures == TRIES {
            return Err(GivenUp::Failed { why, tries: failures });
        }
        if let Some(after) = after.filter(|after| *after > LONGEST_PAUSE) {
            let why = format!("{why}, and asks for a pause of {} s: try again then", after.as_secs());
            return Err(GivenUp::Failed { why, tries: failures });
        }
        let wait = after.unwrap_or_default().max(pause);
        tracing::debug!("{what}: {why}; trying again after {wait:?}");
        stop.wait(wait);
        if stop.is_set() {
            return Err(GivenUp::Stopped);
        }
        pause *= 2;
    }
}
