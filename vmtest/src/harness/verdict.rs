//! What a body may return.

use std::fmt;

/// `()`, or a `Result` whose error can be shown.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "neither `()` nor a `Result<(), E>` whose error is `Debug`",
    note = "write `-> vmtest::Result`, whose error is made by `?` from any other"
)]
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
