//! What of a binary makes clusters, gathered by the linker.

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

/// Has a test binary print what its tests that make clusters declare, each on a line as a `Declared` in JSON, and end.
pub const LIST: &str = "VMTEST_INTERNAL_LIST";
/// What such a line begins with: others may print too before `main`.
pub const LISTED: &str = "vmtest: test ";
