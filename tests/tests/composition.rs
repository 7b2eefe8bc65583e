//! The macro among other macros and attributes. The clusters here have no machines, so that they cost milliseconds.

use std::{error::Error as StdError, io};

use rstest::{fixture, rstest};
use tracing_test::traced_test;
use vmtest::prelude::*;

#[fixture]
fn greeting() -> String {
    "hello".to_owned()
}

#[rstest]
#[case::one(1, 2)]
#[case::two(2, 4)]
#[vmtest::test]
async fn a_case_is_a_test(#[case] n: u32, #[case] doubled: u32, #[ignore] cluster: Cluster) {
    assert_eq!((n * 2, cluster.nodes().len()), (doubled, 0));
}

#[rstest]
#[vmtest::test]
async fn values_make_a_matrix(#[values("a", "b")] text: &str, #[values(1, 2)] n: usize, #[ignore] cluster: Cluster) {
    assert_eq!(text.repeat(n).len() + cluster.nodes().len(), n);
}

#[rstest]
#[vmtest::test]
async fn fixtures_of_rstest_are_arguments(greeting: String, #[ignore] cluster: Cluster) -> Result {
    assert_eq!((greeting.as_str(), cluster.nodes().len()), ("hello", 0));
    Ok(())
}

#[traced_test]
#[vm_test]
async fn traces_are_seen(_cluster: Cluster) {
    tracing::info!("a trace of the body");
    assert!(logs_contain("a trace of the body"));
}

/// A documented test.
#[vm_test]
#[should_panic(expected = "the words that were expected")]
#[allow(clippy::unused_async)]
async fn a_panic_can_be_expected(_cluster: Cluster) {
    panic!("these are the words that were expected, among others");
}

#[vm_test]
#[should_panic(expected = "a failure as expected")]
async fn a_failure_can_be_expected(_cluster: Cluster) -> Result {
    Err(Failure::msg("a failure as expected"))
}

#[vm_test]
#[ignore = "to be seen as ignored"]
async fn a_test_can_be_ignored(_cluster: Cluster) {
    unreachable!("it is ignored");
}

mod nested {
    mod deeper {
        use vmtest::prelude::*;

        #[vm_test]
        async fn a_test_knows_its_path(cluster: Cluster) {
            assert_eq!(cluster.plan().name, "nested::deeper::a_test_knows_its_path");
        }
    }
}

#[vm_test]
async fn a_body_may_return_any_result(_cluster: Cluster) -> std::result::Result<(), Box<dyn StdError>> {
    "1".parse::<u32>()?;
    Ok(())
}

#[vm_test]
async fn a_body_may_return_a_concrete_error(_cluster: Cluster) -> io::Result<()> {
    Ok(())
}

#[vm_test]
#[should_panic(expected = "Custom")]
async fn the_error_of_another_result_is_shown(_cluster: Cluster) -> std::result::Result<(), io::Error> {
    Err(io::Error::other("not today"))
}
