//! How the life of a cluster ended.

use std::{any::Any, panic::resume_unwind};

use super::skip::skipped;
use crate::{
    error::{Error, Kind},
    evidence::Ending,
    failure::Failure,
    host::{Panic, panic_message},
};

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// The body returned success and nothing was left.
    Passed,
    /// The message says why.
    Failed(String),
    /// Nothing was touched, because the host lacks what the message says, and `VMTEST_ON_MISSING` is `skip`.
    Skipped(String),
    /// The body panicked; its message has been printed.
    Panicked(Box<dyn Any + Send>),
}

/// Why there is no run.
#[derive(Debug)]
pub(super) struct Unprepared {
    error: Error,
    /// Whether its test is skipped for it, and does not fail.
    skip: bool,
}

impl Unprepared {
    /// There is no plan, and what the host lacks may be passed over.
    pub(super) fn without_plan(error: Error, may_skip: bool) -> Self {
        let skip = may_skip && error.kind() == Kind::Missing;
        Self { error, skip }
    }
}

impl From<Error> for Unprepared {
    fn from(error: Error) -> Self {
        Self { error, skip: false }
    }
}

impl From<Unprepared> for End {
    fn from(Unprepared { error, skip }: Unprepared) -> Self {
        let message = error.to_string();
        if skip { Self::Skipped(message) } else { Self::Failed(message) }
    }
}

impl End {
    /// The same as a result, for callers that are no tests.
    ///
    /// # Panics
    /// With the body's own panic.
    pub(super) fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Passed => Ok(()),
            // Whoever asked in code goes on behind the call, as if the body had run.
            Self::Failed(message) | Self::Skipped(message) => Err(Failure::msg(message)),
            Self::Panicked(payload) => resume_unwind(payload),
        }
    }

    /// What a failure says; `None` for a run that passed.
    pub(super) fn words(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(message) | Self::Skipped(message) => Some(message),
            Self::Panicked(payload) => Some(panic_message(&**payload)),
        }
    }

    /// The same in a word.
    pub(super) fn verdict(&self) -> Ending {
        match self {
            Self::Passed => Ending::Passed,
            Self::Failed(_) | Self::Panicked(_) => Ending::Failed,
            Self::Skipped(_) => Ending::Skipped,
        }
    }

    /// How it ended, in one line for people.
    pub(super) fn told(&self) -> String {
        let first = |message: &str| message.lines().next().unwrap_or_default().to_owned();
        match self {
            Self::Passed => "has passed".to_owned(),
            Self::Failed(message) => format!("has failed ({})", first(message)),
            Self::Skipped(message) => format!("was skipped ({})", first(message)),
            Self::Panicked(payload) => format!("has panicked ({})", first(panic_message(&**payload))),
        }
    }

    /// Adds panics of other tasks and threads; of the body's own only its end counts.
    pub(super) fn beside(self, panics: &[Panic]) -> Self {
        if panics.iter().all(|panic| panic.of_body) {
            return self;
        }
        let panicked = matches!(self, Self::Panicked(_));
        let shown = panics.iter().filter(|panic| panicked || !panic.of_body).map(|panic| format!("{panic}\n"));
        let panics = shown.collect::<String>()
            + "a panic on any task or thread of a cluster fails its test; `allow(\"task-panic\")` lets it pass";
        self.and(panics, |panics, message| format!("{panics}\n{message}"))
    }

    pub(super) fn and_left(self, left: Vec<String>) -> Self {
        if left.is_empty() {
            return self;
        }
        let leak = format!("left behind on this host:\n  - {}", left.join("\n  - "));
        self.and(leak, |leak, message| format!("{message}\n{leak}"))
    }

    /// Fails for one reason more, joined with the message that there is.
    fn and(self, reason: String, join: impl FnOnce(String, String) -> String) -> Self {
        match self {
            Self::Passed => Self::Failed(reason),
            Self::Failed(message) | Self::Skipped(message) => Self::Failed(join(reason, message)),
            Self::Panicked(payload) => {
                eprintln!("{reason}");
                Self::Panicked(payload)
            }
        }
    }
}

/// Fails the calling test if it must.
pub(super) fn report(test: &str, end: End) {
    match end {
        End::Passed => {}
        End::Skipped(why) => skipped(test, &why).unwrap_or_else(fail),
        End::Failed(message) => fail(message),
        End::Panicked(payload) => resume_unwind(payload),
    }
}

/// The same for a harness that shows itself what was skipped, and why.
///
/// # Errors
/// Why it has failed.
///
/// # Panics
/// With the body's own panic.
pub(super) fn of_trial(test: &str, end: End) -> Result<Option<String>, String> {
    match end {
        End::Passed => Ok(None),
        End::Skipped(why) => skipped(test, &why).map(|()| Some(why)),
        End::Failed(message) => Err(message),
        End::Panicked(payload) => resume_unwind(payload),
    }
}

fn fail(message: String) {
    eprintln!("{message}");
    // Not `panic!`, whose hook would add a line about a place in this crate.
    resume_unwind(Box::new(message));
}
