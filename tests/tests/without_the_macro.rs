//! A binary that makes clusters in code only: nothing tells that it needs rights, so it is left where it is.

use vmtest_tests::Victim;

/// What is run by a user without rights.
mod victims {
    use std::fs;

    use vmtest::prelude::*;

    #[test]
    #[ignore = "run without rights"]
    fn plain() {
        let map = fs::read_to_string("/proc/self/uid_map").expect("/proc is there");
        assert_eq!(Ok(map), std::env::var("UID_MAP"));
    }

    #[test]
    #[ignore = "run without rights"]
    fn cluster() {
        Cluster::builder().backend("fake").run(async |_| ()).expect("it cannot run");
    }

    #[test]
    #[ignore = "run without rights"]
    fn late() {
        vmtest::enter_rootless().expect("libtest has threads");
    }
}

#[test]
fn a_binary_without_tests_of_machines_is_left_alone() {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("/proc is there");
    Victim::without_rights("plain").env("UID_MAP", map).run().assert_passed().assert_nothing_left();
}

#[test]
fn a_cluster_in_it_says_what_to_call() {
    let said =
        ["call `vmtest::enter_rootless()` before all else in `main`", "write `vmtest::rootless!();` beside the tests"];
    Victim::without_rights("cluster").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn who_calls_it_too_late_is_told_so() {
    let said = ["a process can do so only while it has one thread"];
    Victim::without_rights("late").run().assert_failed_with(&said).assert_nothing_left();
}
