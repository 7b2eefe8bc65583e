//! Tests that do not run, because their host lacks something and `VMTEST_ON_MISSING` is `skip`.

use std::{fs::File, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::settings::ON_MISSING;
use crate::evidence::say;

/// The variable that names a file to which each skipped test adds a line, a [`Skipped`] as JSON. libtest calls these tests
/// passed, and a runner may show nothing of what a passed test prints, so whoever counts them has no other way.
pub const SKIPPED: &str = "VMTEST_INTERNAL_SKIPPED";

/// A test that was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path.
    pub test: String,
    /// What its host lacks, with the remedies.
    pub why: String,
}

/// Says that a test is skipped, where libtest cannot hide it, and in the file of whoever counts.
///
/// # Errors
/// When it cannot be counted: nobody would know of it.
pub(super) fn skipped(test: &str, why: &str) -> Result<(), String> {
    say(format_args!("vmtest: skipped ({ON_MISSING}=skip): {why}"));
    let Some(path) = std::env::var_os(SKIPPED) else { return Ok(()) };
    let line = serde_json::to_string(&Skipped { test: test.to_owned(), why: why.to_owned() });
    let line = line.expect("two texts are plain data") + "\n";
    // In one piece, since other processes write there too.
    let file = File::options().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|e| format!("cannot add a skipped test to the list in {}: {e}", Path::new(&path).display()))
}
