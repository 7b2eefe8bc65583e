//! The macro among other macros and attributes. The clusters here have no machines, so that they cost milliseconds.

use std::{error::Error as StdError, io};

use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};
use rstest::{fixture, rstest};
use vmtest::prelude::*;

#[fixture]
fn greeting() -> String {
    "hello".to_owned()
}

#[rstest]
#[case::one(1, 2)]
#[case::two(2, 4)]
#[vmtest::test(backend = "qemu, fake")]
async fn a_case_is_a_test(#[case] n: u32, #[case] doubled: u32, #[ignore] cluster: Cluster) {
    assert_eq!((n * 2, cluster.nodes().len()), (doubled, 0));
}

#[rstest]
#[vmtest::test(backend = "qemu, fake")]
async fn values_make_a_matrix(#[values("a", "b")] text: &str, #[values(1, 2)] n: usize, #[ignore] cluster: Cluster) {
    assert_eq!(text.repeat(n).len() + cluster.nodes().len(), n);
}

#[rstest]
#[vmtest::test(backend = "qemu, fake")]
async fn fixtures_of_rstest_are_arguments(greeting: String, #[ignore] cluster: Cluster) -> Result {
    assert_eq!((greeting.as_str(), cluster.nodes().len()), ("hello", 0));
    Ok(())
}

#[rstest]
#[case(1)]
#[test_attr(vm_test(timeout = "2m", backend = "qemu, fake"))]
async fn the_attribute_of_a_case_may_be_named(#[case] n: usize, #[ignore] cluster: Cluster) {
    assert_ne!(n, cluster.nodes().len());
    assert_eq!(cluster.plan().timeout.as_secs_f64(), 120.0 * cluster.plan().timeout_scale);
}

#[rstest]
#[case::passed(0)]
#[should_panic(expected = "one too many")]
#[case::expected(1)]
#[ignore = "to be seen as ignored"]
#[case::ignored(2)]
#[vmtest::test(backend = "qemu, fake")]
async fn a_case_has_attributes_of_its_own(#[case] n: usize, #[ignore] cluster: Cluster) {
    assert_eq!(n, cluster.nodes().len(), "one too many");
}

/// A documented test.
#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "the words that were expected")]
#[allow(clippy::unused_async)]
async fn a_panic_can_be_expected(_cluster: Cluster) {
    panic!("these are the words that were expected, among others");
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "a failure as expected")]
async fn a_failure_can_be_expected(_cluster: Cluster) -> Result {
    Err(Failure::msg("a failure as expected"))
}

#[vm_test(backend = "qemu, fake")]
#[ignore = "to be seen as ignored"]
async fn a_test_can_be_ignored(_cluster: Cluster) {
    unreachable!("it is ignored");
}

/// Lint levels hold for the body too.
#[vm_test(backend = "qemu, fake")]
#[deny(unused_must_use)]
#[expect(unused_variables, reason = "to be seen as fulfilled")]
async fn a_test_has_lint_levels(cluster: Cluster) {
    let unused = 1;
}

/// A crate that hands the framework on.
mod toolkit {
    pub(super) use vmtest as machines;
}

#[toolkit::machines::vm_test(crate = "toolkit::machines", backend = "qemu, fake")]
async fn the_framework_may_come_from_another_crate(cluster: Cluster) {
    assert!(cluster.nodes().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_case_of_a_property_has_a_cluster(name in "[a-z]{1,8}") {
        let cluster = Cluster::builder().backend("qemu").backend("fake").name(&name);
        let end = cluster.run(async move |cluster| {
            prop_assert_eq!(&cluster.plan().name, &name);
            Ok(())
        });
        end.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    }
}

#[test]
fn a_property_shrinks_over_clusters() {
    let property = |n: u32| {
        let end = Cluster::builder().backend("qemu").backend("fake").run(async move |_| {
            prop_assert!(n < 3, "{} is too much", n);
            Ok(())
        });
        end.map_err(|failure| TestCaseError::fail(failure.to_string()))
    };
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match TestRunner::new(config).run(&(0..100_u32), property) {
        Err(TestError::Fail(reason, 3)) => assert!(reason.message().contains("3 is too much"), "{reason}"),
        other => panic!("it did not shrink to 3: {other:?}"),
    }
}

mod nested {
    mod deeper {
        use vmtest::prelude::*;

        #[vm_test(backend = "qemu, fake")]
        async fn a_test_knows_its_path(cluster: Cluster) {
            assert_eq!(cluster.plan().name, "composition::nested::deeper::a_test_knows_its_path");
        }
    }
}

#[vm_test(backend = "qemu, fake")]
async fn a_body_may_return_any_result(_cluster: Cluster) -> std::result::Result<(), Box<dyn StdError>> {
    "1".parse::<u32>()?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_body_may_return_a_concrete_error(_cluster: Cluster) -> io::Result<()> {
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "Custom")]
async fn the_error_of_another_result_is_shown(_cluster: Cluster) -> std::result::Result<(), io::Error> {
    Err(io::Error::other("not today"))
}

/// The error of another library, with a cause of its own.
fn read_config() -> anyhow::Result<u16> {
    anyhow::Context::context("x".parse(), "cannot read the port")
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(
    expected = "cannot read the port: invalid digit found in string\n  at tests/tests/suite/composition.rs:"
)]
async fn the_question_mark_takes_errors_of_anyhow(_cluster: Cluster) -> Result {
    read_config()?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "the service: cannot read the port: invalid digit found in string")]
async fn errors_of_anyhow_take_a_context(_cluster: Cluster) -> Result {
    read_config().context("the service")?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "there is no node `other`")]
async fn the_question_mark_takes_our_errors(cluster: Cluster) -> Result {
    cluster.node("other")?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "cannot read the port\n\nCaused by:\n    invalid digit found in string")]
async fn a_body_may_return_a_result_of_anyhow(cluster: Cluster) -> anyhow::Result<()> {
    assert!(cluster.node("other").is_err());
    read_config()?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "there is no node `other`")]
async fn our_errors_become_those_of_anyhow(cluster: Cluster) -> anyhow::Result<()> {
    cluster.node("other")?;
    Ok(())
}

/// An error that is none of the standard library's, as eyre has.
#[derive(Debug)]
struct Report(#[expect(dead_code, reason = "it is shown")] &'static str);

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "Report(\"of another kind\")")]
async fn a_body_may_return_what_can_only_be_shown(_cluster: Cluster) -> std::result::Result<(), Report> {
    Err(Report("of another kind"))
}
