//! How a test ends that has no cluster.

use std::panic::resume_unwind;

use super::{settings::skips_missing, skip::skipped};
use crate::failure::Failure;

/// Why there was none.
#[derive(Debug)]
pub(super) struct End(pub(super) String);

impl End {
    /// The same as a result, for callers that are no tests.
    pub(super) fn into_result(self) -> Result<(), Failure> {
        Err(Failure::msg(self.0))
    }
}

/// Fails the calling test, or passes over it.
pub(super) fn report(test: &str, end: End) {
    if let Err(message) = of_trial(test, end) {
        eprintln!("{message}");
        // Not `panic!`, whose hook would add a line about a place in this crate.
        resume_unwind(Box::new(message));
    }
}

/// The same for a harness that shows itself what was skipped, and why.
pub(super) fn of_trial(test: &str, End(why): End) -> Result<Option<String>, String> {
    if skips_missing()? { skipped(test, &why).map(|()| Some(why)) } else { Err(why) }
}
