//! Shows that a cluster waits for its share of the host, and for whom.

use std::{
    fmt,
    io::{self, Write},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::Event;
use crate::{error::Error, host::Waiting};

/// Nobody wonders about a test that waits for less, and a suite that fills its host has many of them.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Tells of one wait: every step is an event, and a long one a line on stderr when it is known to be long, and another
/// at its end.
pub(crate) struct ShownWait<'a> {
    test: &'a str,
    emit: &'a (dyn Fn(&Event) + Send + Sync),
    latest: Mutex<Option<Waiting>>,
}

impl fmt::Debug for ShownWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownWait").field("test", &self.test).finish_non_exhaustive()
    }
}

impl<'a> ShownWait<'a> {
    /// That of the test of this path.
    pub(crate) fn of(test: &'a str, emit: &'a (dyn Fn(&Event) + Send + Sync)) -> Self {
        Self { test, emit, latest: Mutex::default() }
    }

    /// It waits for these now.
    pub(crate) fn step(&self, waiting: &Waiting) {
        (self.emit)(&Event::Waiting(waiting.clone()));
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting.clone());
    }

    /// Waits for what calls [`step`](Self::step) meanwhile. Must be awaited on a tokio runtime; cancel-safe as far as
    /// the work is.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let began = Instant::now();
        let mut work = pin!(work);
        let in_short = timeout(SHOWN_AFTER, &mut work).await.ok();
        let long = in_short.is_none();
        if let (true, Some(waiting)) = (long, self.latest()) {
            say(format_args!("vmtest: {} {waiting}", self.test));
        }
        let result = match in_short {
            Some(result) => result,
            None => work.await,
        };
        if let (Ok(_), Some(_)) = (&result, self.latest()) {
            let waited = began.elapsed();
            if long {
                say(format_args!("vmtest: {} goes on, after {:.1} s", self.test, waited.as_secs_f64()));
            }
            (self.emit)(&Event::Granted { waited });
        }
        result
    }

    fn latest(&self) -> Option<Waiting> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Prints a line on stderr that libtest does not capture, as it does with those of `eprintln!`. In one piece, because
/// many processes write to the same terminal.
pub(crate) fn say(line: impl fmt::Display) {
    // Whoever has closed stderr does not want to read it.
    drop(io::stderr().write_all(format!("{line}\n").as_bytes()));
}
