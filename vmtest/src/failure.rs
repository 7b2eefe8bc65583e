//! What a test's body returns when it fails.

use std::{error::Error as StdError, fmt, panic::Location};

/// The error of a test: made by `?` from any error, it remembers the line of the `?`.
///
/// It is to tests what `anyhow::Error` is to programs, and like it no [`std::error::Error`] itself.
pub struct Failure {
    cause: Box<dyn StdError + Send + Sync>,
    /// What was being done, the outermost first.
    context: Option<String>,
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
        Self { cause: cause.into(), context: None, at: Location::caller() }
    }
}

/// Says what was being done when something failed, or what is missing where there is nothing.
pub trait Context<T> {
    /// Puts this before the error's own words; the line is the caller's.
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(node: Node) -> Result {
    /// let port: u16 = node.sh("cat /run/port").await?.stdout().parse().context("the service's port")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error, with its context.
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    #[track_caller]
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        let at = Location::caller();
        self.map_err(|e| {
            let failure: Failure = e.into();
            let inner = failure.context.map_or_else(String::new, |inner| format!(": {inner}"));
            Failure { cause: failure.cause, context: Some(format!("{what}{inner}")), at }
        })
    }
}

/// `None` fails with these words alone.
impl<T> Context<T> for Option<T> {
    #[track_caller]
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        let at = Location::caller();
        self.ok_or_else(|| Failure::at(what, at))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(context) = &self.context {
            write!(f, "{context}: ")?;
        }
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
    fn a_failure_says_what_was_being_done() {
        fn inner() -> Result<u32, Failure> {
            "x".parse::<u32>().context("the port")
        }
        let line = line!() + 1;
        let failure = inner().context(format_args!("the service of {}", "alice")).unwrap_err();
        let text = "the service of alice: the port: invalid digit found in string";
        assert_eq!(failure.to_string(), text);
        assert_eq!(format!("{failure:?}"), format!("{text}\n  at {}:{line}:31", file!()));
        assert!(failure.cause::<std::num::ParseIntError>().is_some());
    }

    #[test]
    fn nothing_fails_with_its_context_alone() {
        fn inner(text: &str) -> Result<&str, Failure> {
            text.split_once('=').map(|(_, value)| value).context("the value")
        }
        let line = line!() - 2;
        assert_eq!(inner("a=1").unwrap(), "1");
        assert_eq!(format!("{:?}", inner("a").unwrap_err()), format!("the value\n  at {}:{line}:58", file!()));
    }

    #[test]
    fn a_failure_that_is_passed_on_keeps_its_first_line() {
        fn inner() -> Result<(), Failure> {
            Err(Failure::msg("broken"))
        }
        fn outer() -> Result<(), Failure> {
            inner()?;
            Ok(())
        }
        let line = line!() - 6;
        assert_eq!(format!("{:?}", outer().unwrap_err()), format!("broken\n  at {}:{line}:17", file!()));
    }

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
