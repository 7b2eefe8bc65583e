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
