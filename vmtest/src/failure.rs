//! What a test's body returns when it fails.

use std::{error::Error as StdError, fmt, panic::Location};

/// The error of a test: made by `?` from any error, it remembers the line of the `?`.
///
/// It is to tests what `anyhow::Error` is to programs, and like it no [`std::error::Error`] itself.
pub struct Failure {
    cause: Box<dyn StdError + Send + Sync>,
    at: &'static Location<'static>,
}

impl Failure {
    /// A failure with this message, at the caller's line.
    #[track_caller]
    pub fn msg(message: impl fmt::Display) -> Self {
        Self::from(message.to_string())
    }
}

impl Failure {
    /// A failure with this message, at a line that was noted before.
    pub(crate) fn at(message: impl fmt::Display, at: &'static Location<'static>) -> Self {
        Self { at, ..Self::msg(message) }
    }

    /// The error that it was made from, if that is one of this type.
    pub fn cause<E: StdError + 'static>(&self) -> Option<&E> {
        self.cause.downcast_ref()
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    #[track_caller]
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), at: Location::caller() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        let mut cause = self.cause.source();
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            cause = e.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}\n  at {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_knows_the_line_of_the_question_mark() {
        fn body() -> Result<(), Failure> {
            "no number".parse::<u32>()?;
            Ok(())
        }
        let line = line!() - 3;
        let text = format!("{:?}", body().unwrap_err());
        assert_eq!(text, format!("invalid digit found in string\n  at {}:{line}:13", file!()));
    }
}
