//! How long the phases of a test take: their budgets, and what is remembered of them.

use rstest::rstest;
use tempfile::TempDir;
use vmtest::{
    evidence::{Ending, Kept, PastRun},
    spec::TimedPhase,
};
use vmtest_tests::Victim;

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use vmtest::{prelude::*, spec::TimedPhase};

    #[vm_test(backend = "fake", budget(boot = "1ms", body = "1h"))]
    #[ignore = "run by a_phase_over_its_budget_fails_a_test"]
    async fn boots_too_slowly(_node: Node) {}

    #[vm_test(backend = "fake", budget(nodes = 1, teardown = "1ms"))]
    #[ignore = "run by a_phase_over_its_budget_fails_a_test"]
    async fn is_removed_too_slowly(_node: Node) {}

    #[vm_test(backend = "fake", budget(boot = "1ms"))]
    #[ignore = "run by a_failure_goes_before_a_budget"]
    async fn fails_anyway(node: Node) -> Result {
        node.sh("false").await?;
        Ok(())
    }

    #[test]
    #[ignore = "run by a_phase_over_its_budget_fails_a_test"]
    fn body_in_code_is_slow() -> Result {
        let cluster = Cluster::builder().backend("fake").node(NodeSpec::new("node"));
        let cluster = cluster
            .phase_budget(TimedPhase::Body, Duration::from_millis(1))
            .phase_budget(TimedPhase::Boot, Duration::MAX);
        cluster.run(async |cluster| cluster.node("node")?.sh("sleep 0.01").await.map(drop))
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by every_run_is_remembered_also_when_its_artifacts_are_not"]
    async fn passes(_node: Node) {}

    #[vm_test(backend = "fake")]
    #[ignore = "run by every_run_is_remembered_also_when_its_artifacts_are_not"]
    async fn fails(web: Node) -> Result {
        web.sh("echo why >&2; exit 7").await?;
        Ok(())
    }
}

fn victim(artifacts: &TempDir, name: &str) -> Victim {
    Victim::new(name).env("VMTEST_ARTIFACTS", artifacts.path())
}

#[rstest]
#[case::boot("boots_too_slowly", "over budget: `boot` took ", "and its budget is 0.001 s")]
#[case::teardown("is_removed_too_slowly", "over budget: `teardown` took ", "and its budget is 0.001 s")]
#[case::body_in_code("body_in_code_is_slow", "over budget: `body` took ", "and its budget is 0.001 s")]
fn a_phase_over_its_budget_fails_a_test(#[case] name: &str, #[case] phase: &str, #[case] budget: &str) {
    let left = TempDir::new().expect("a temporary directory");
    let ended = victim(&left, name).run().assert_failed_with(&[phase, budget]);
    ended.assert_nothing_left();
    assert_eq!(ended.text().matches("over budget").count(), 1, "{}", ended.text());
    assert_eq!(Kept::all(left.path())[0].ending, Ending::Failed);
}

#[test]
fn a_budget_is_scaled_as_a_timeout_is() {
    let left = TempDir::new().expect("a temporary directory");
    let said = ["and its budget is 0.002 s, which is 2 times what it says"];
    drop(victim(&left, "boots_too_slowly").env("VMTEST_TIMEOUT_SCALE", "2").run().assert_failed_with(&said));
    let left = TempDir::new().expect("a temporary directory");
    drop(victim(&left, "boots_too_slowly").env("VMTEST_TIMEOUT_SCALE", "1000000").run().assert_passed());
}

#[test]
fn a_failure_goes_before_a_budget() {
    let ended = victim(&TempDir::new().expect("a temporary directory"), "fails_anyway")
        .run()
        .assert_failed_with(&["`false` ended with exit code 1"]);
    assert!(!ended.text().contains("over budget"), "{}", ended.text());
}

#[test]
fn every_run_is_remembered_also_when_its_artifacts_are_not() {
    let left = TempDir::new().expect("a temporary directory");
    for _ in 0..5 {
        drop(victim(&left, "passes").run().assert_passed());
    }
    drop(victim(&left, "fails").run());
    let runs = PastRun::all(left.path());
    let of = |verdict: &str| runs.iter().filter(|run| run.verdict == verdict).collect::<Vec<_>>();
    assert_eq!((of("passed").len(), of("failed").len()), (5, 1));
    for run in &runs {
        assert_eq!(run.phases.keys().copied().collect::<Vec<_>>(), TimedPhase::ALL, "{run:?}");
        assert!(run.took >= run.phases.values().sum::<f64>() * 0.9, "{run:?}");
    }
    let signature = &of("failed")[0].signature;
    let words = "node `web`: `echo why >&<n>; exit <n>` ended with exit code <n>\nstderr: why\nat tests/tests/suite/phases.rs:<n>";
    assert!(signature.starts_with(words), "{signature}");
}
