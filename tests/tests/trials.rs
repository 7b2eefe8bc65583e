//! A test binary without libtest, and what it is to whoever runs it: a person, and nextest.

use std::{
    process::{Command, ExitCode, Output},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use vmtest::{
    Failure, Node, Result,
    mimic::{self, vm_test},
    prelude::Cluster,
};
use vmtest_tests::Nextest;

/// Tests that are run by those below, each in a process of its own.
mod victims {
    use super::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_trial_runs_as_a_test_does"]
    async fn passes([a, b]: [Node; 2]) -> Result {
        a.sh(format!("ping -c 1 {}", b.name())).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_trial_fails_as_a_test_does"]
    async fn fails(_node: Node) -> Result {
        Err(Failure::msg("the words of the failure"))
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_trial_fails_as_a_test_does"]
    async fn panics(cluster: Cluster) {
        assert_eq!(cluster.nodes().len(), 1, "the words of the panic");
    }
}

/// One that this host may not be able to run, and that is not ignored otherwise.
#[vm_test(backend = "qemu, fake")]
async fn anywhere(node: Node) -> Result {
    node.sh("true").await?;
    Ok(())
}

mod qemu {
    use super::*;

    /// Where there is no QEMU, it is ignored.
    #[vm_test(backend = "qemu")]
    async fn is_there(_cluster: Cluster) {}
}

type Checked = Result<(), Failed>;
type Check = fn() -> Checked;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = mimic::trials(&arguments);
    let checks: [(&str, Check); 5] = [
        ("a_trial_runs_as_a_test_does", a_trial_runs_as_a_test_does),
        ("a_trial_fails_as_a_test_does", a_trial_fails_as_a_test_does),
        ("what_is_missing_is_an_ignored_test_with_its_reason", what_is_missing_is_an_ignored_test_with_its_reason),
        ("what_is_missing_fails_if_nothing_else_is_said", what_is_missing_fails_if_nothing_else_is_said),
        ("nextest_counts_what_is_missing_as_skipped", nextest_counts_what_is_missing_as_skipped),
    ];
    trials.extend(checks.map(|(name, check)| Trial::test(name, check)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// This binary with these arguments, where no QEMU is.
fn without_qemu(args: &[&str], on_missing: &str) -> Output {
    let runs = TempDir::new().expect("a temporary directory");
    let mut command = Command::new(std::env::current_exe().expect("it has a path"));
    command.args(args).env("VMTEST_RUN", runs.path()).env("VMTEST_QEMU", "/nonexistent/qemu");
    command.env("VMTEST_ON_MISSING", on_missing).env_remove("VMTEST_BACKEND");
    command.output().expect("it runs")
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn a_trial_runs_as_a_test_does() -> Checked {
    let ended = vmtest_tests::Victim::new("passes").run().assert_passed();
    assert!(ended.text().contains("test victims::passes ... ok"), "{}", ended.text());
    assert!(ended.took() < Duration::from_secs(60));
    ended.assert_nothing_left();
    Ok(())
}

fn a_trial_fails_as_a_test_does() -> Checked {
    for (victim, words) in [("fails", "the words of the failure"), ("panics", "the words of the panic")] {
        vmtest_tests::Victim::new(victim).run().assert_failed_with(&[words]).assert_nothing_left();
    }
    Ok(())
}

fn what_is_missing_is_an_ignored_test_with_its_reason() -> Checked {
    let ran = without_qemu(&["qemu::is_there", "--exact"], "skip");
    let said = printed(&ran);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("test qemu::is_there ... ignored (`qemu::is_there` cannot run: "), "{said}");
    assert!(said.contains("vmtest: skipped (VMTEST_ON_MISSING=skip): "), "{said}");
    assert!(said.contains("0 passed; 0 failed; 1 ignored"), "{said}");

    let listed = printed(&without_qemu(&["--list", "--format", "terse", "--ignored"], "skip"));
    assert!(listed.contains("qemu::is_there: test\n") && !listed.contains("anywhere: test\n"), "{listed}");
    let listed = printed(&without_qemu(&["--list", "--format", "terse", "--ignored"], "fail"));
    assert!(!listed.contains("qemu::is_there"), "{listed}");
    Ok(())
}

fn what_is_missing_fails_if_nothing_else_is_said() -> Checked {
    let ran = without_qemu(&["qemu::is_there", "--exact"], "fail");
    let said = printed(&ran);
    assert_eq!(ran.status.code(), Some(101), "{said}");
    assert!(said.contains("`qemu::is_there` cannot run: "), "{said}");
    Ok(())
}

fn nextest_counts_what_is_missing_as_skipped() -> Checked {
    let Some(nextest) = Nextest::new("") else {
        eprintln!("not run: cargo-nextest is not installed");
        return Ok(());
    };
    let runs = TempDir::new().expect("a temporary directory");
    for (on_missing, counted) in [("skip", "1 test run: 1 passed, "), ("fail", "2 tests run: 1 passed, 1 failed, ")] {
        let mut run = nextest.all("test(=qemu::is_there) | test(=anywhere)");
        run.env("VMTEST_RUN", runs.path()).env("VMTEST_QEMU", "/nonexistent/qemu");
        run.env("VMTEST_ON_MISSING", on_missing).env("VMTEST_BACKEND", "fake");
        let said = printed(&run.output().expect("it runs"));
        assert!(said.contains(counted), "{said}");
    }
    Ok(())
}
