//! What of a binary makes clusters, gathered by the linker.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use linkme::distributed_slice;

use super::{case::TestCase, declared::Declared};

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

/// Has a test binary print what its tests that make clusters declare, each on a line as a [`Declared`] in JSON, and end.
pub const LIST: &str = "VMTEST_INTERNAL_LIST";
/// What such a line begins with: others may print too before `main`.
pub const LISTED: &str = "vmtest: test ";

/// Does what [`LIST`] says, if it is set.
pub(super) fn list_if_asked() {
    if std::env::var_os(LIST).is_none() {
        return;
    }
    let tests = MAKERS.iter().filter_map(|maker| match maker {
        Maker::Test(test) => Some(*test),
        Maker::Code(_) => None,
    });
    let line = |test| {
        let declared = serde_json::to_string(&Declared::of(test)).expect("a declaration is plain data");
        format!("{LISTED}{declared}\n")
    };
    // What an author's own types declare may panic, which must not unwind into what runs before `main`.
    let Ok(listed) = catch_unwind(AssertUnwindSafe(|| tests.map(line).collect::<String>())) else {
        std::process::exit(1);
    };
    // Whoever asked has gone when it cannot be written.
    let written = std::io::stdout().write_all(listed.as_bytes());
    std::process::exit(i32::from(written.is_err()));
}
