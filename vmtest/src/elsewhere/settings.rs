//! The one setting that means something where nothing runs.

use std::convert::Infallible;

/// What becomes of a test whose host lacks something.
pub(super) const ON_MISSING: &str = "VMTEST_ON_MISSING";

/// What the environment says.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whether tests hold their clusters in place of running their bodies.
    pub(super) up: bool,
}

impl Settings {
    pub(super) fn get() -> Result<Self, Infallible> {
        Ok(Self { up: false })
    }
}

/// Whether a test that needs Linux is passed over here, and does not fail.
///
/// # Errors
/// For a wrong value.
pub(super) fn skips_missing() -> Result<bool, String> {
    match std::env::var(ON_MISSING).as_deref() {
        Ok("skip") => Ok(true),
        Ok("fail") | Err(std::env::VarError::NotPresent) => Ok(false),
        Ok(wrong) => Err(format!("{ON_MISSING}: `{wrong}` is neither `fail`, the default, nor `skip`")),
        Err(e) => Err(format!("{ON_MISSING}: {e}")),
    }
}
