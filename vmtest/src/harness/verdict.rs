//! What a body may return.

use std::fmt;

/// `()`, or a `Result` whose error can be shown.
pub trait Verdict {
    /// The verdict, with the text of the error.
    fn into_result(self) -> Result<(), String>;
}

impl Verdict for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Debug> Verdict for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|e| format!("{e:?}"))
    }
}
