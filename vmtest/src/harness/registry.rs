//! What of a binary makes clusters, gathered by the linker.

use std::io::Write;

use linkme::distributed_slice;

use super::case::TestCase;

/// Something in a binary that makes clusters.
#[derive(Debug)]
#[non_exhaustive]
pub enum Maker {
    /// A test that was written with `#[vm_test]`.
    Test(&'static TestCase),
    /// The code of this module: [`crate::rootless!`].
    Code(&'static str),
}

/// Everything in this binary that makes clusters, in no order.
#[distributed_slice]
pub static MAKERS: [Maker];

/// Has a test binary print the paths of its tests that make clusters, one a line, and end; set by `cargo vmtest up`.
pub const LIST: &str = "VMTEST_INTERNAL_LIST";
/// What such a line begins with: others may print too before `main`.
pub const LISTED: &str = "vmtest: test ";

/// Does what [`LIST`] says, if it is set.
pub(super) fn list_if_asked() {
    if std::env::var_os(LIST).is_none() {
        return;
    }
    let tests = MAKERS.iter().filter_map(|maker| match maker {
        Maker::Test(test) => Some(format!("{LISTED}{}\n", test.path())),
        Maker::Code(_) => None,
    });
    let listed: String = tests.collect();
    // Whoever asked has gone when it cannot be written.
    let written = std::io::stdout().write_all(listed.as_bytes());
    std::process::exit(i32::from(written.is_err()));
}
