//! What a body does that takes its time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Event, Recorder};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Work {
    /// A command that runs to its end.
    Command,
    /// A process that runs beside the test.
    Process,
    /// A file or a tree on its way to or from a machine.
    Copy,
    /// Waiting until something is true.
    Wait,
    /// A change of a machine's power, a snapshot, a removal.
    Power,
    /// A span of `tracing` of the body, where the process has no subscriber of its own.
    Span,
}

/// How a piece of work ended. Without a code, a signal, an error and `given_up` it has succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The exit code of a command or process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, without `SIG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it was dropped before its end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// What a command printed on standard output.
    #[serde(skip_serializing_if = "Printed::is_empty")]
    pub stdout: Printed,
    /// What it printed on standard error.
    #[serde(skip_serializing_if = "Printed::is_empty")]
    pub stderr: Printed,
}

impl Outcome {
    /// That of work that failed for this reason, or succeeded.
    pub(crate) fn of<T, E: fmt::Display>(result: &Result<T, E>) -> Self {
        Self { error: result.as_ref().err().map(ToString::to_string), ..Self::default() }
    }

    /// Whether it is what nobody wants: an error, or an exit code other than 0.
    pub(crate) fn is_bad(&self) -> bool {
        self.error.is_some() || self.signal.is_some() || self.code.is_some_and(|code| code != 0)
    }
}

/// What a command printed: in the event when it is short, else in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Printed {
    /// The text, or its beginning; what is not UTF-8 is replaced.
    pub text: String,
    /// The file with more of it, in the directory of the attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How many bytes there were in all.
    pub bytes: u64,
}

impl Printed {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A piece of work that is under way; dropped, it was given up.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) recorder: Arc<Recorder>,
    pub(super) id: u64,
    pub(super) began: Instant,
    pub(super) over: bool,
}

impl Span {
    /// It has ended in this way.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    /// It has ended with this result.
    pub(crate) fn result<T, E: fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        self.end(Outcome::of(&result));
        result
    }

    /// Its number in the run.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn close(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let took = self.began.elapsed();
        self.recorder.ended(self.id, &outcome);
        self.recorder.emit(&Event::Ended { id: self.id, took, outcome });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.close(Outcome { given_up: true, ..Outcome::default() });
    }
}

/// A piece of work as it is told of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) node: Option<String>,
    pub(crate) kind: Work,
    pub(crate) what: String,
    /// Since when, on the clock of the timeline.
    pub(crate) since: Duration,
}
