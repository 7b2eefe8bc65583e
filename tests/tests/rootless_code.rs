//! A binary that makes clusters in code only, and says so.

use vmtest::prelude::*;
use vmtest_tests::Victim;

vmtest::rootless!();

/// What is run by a user without rights.
mod victims {
    #[test]
    #[ignore = "run without rights"]
    fn cluster() {
        super::empty_cluster().expect("it can be made");
    }
}

fn empty_cluster() -> Result {
    Cluster::builder().backend("fake").run(async |_| ())
}

#[test]
fn a_cluster_in_code_needs_no_rights() {
    Victim::without_rights("cluster").run().assert_passed().assert_nothing_left();
}
