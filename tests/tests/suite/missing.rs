//! What becomes of a test whose host lacks something.

use std::{fs, process::Command};

use rstest::rstest;
use vmtest_tests::{Victim, WITHOUT_KVM};

/// Tests that a host may not be able to run.
mod victims {
    use vmtest::prelude::*;

    #[vm_test(backend = "qemu")]
    #[ignore = "run where there is no QEMU"]
    async fn boots(_node: Node) {
        unreachable!("there is no QEMU");
    }

    #[vm_test(backend = "qemu", fixture("tests/data/no-such-directory"))]
    #[ignore = "run where there is no QEMU"]
    async fn wrong(_node: Node) {}

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run where there is no KVM"]
    async fn plain(_node: Node) {}

    #[test]
    #[ignore = "run where there is no QEMU"]
    fn in_code() {
        Cluster::builder().backend("qemu").run(async |_| ()).expect("it runs");
    }
}

fn skipping(name: &str) -> Victim {
    Victim::new(name).env("PATH", "/nonexistent").env("VMTEST_ON_MISSING", "skip")
}

const NO_QEMU: &str = "`missing::victims::boots` cannot run: no qemu-system-x86_64 on PATH: run `apt-get install";

#[test]
fn it_fails_if_nothing_else_is_said() {
    Victim::new("boots").env("PATH", "/nonexistent").run().assert_failed_with(&[NO_QEMU]).assert_nothing_left();
}

#[test]
fn a_skipped_test_passes_and_is_counted() {
    let list = tempfile::NamedTempFile::new().expect("a temporary file");
    let ended = skipping("boots").env("VMTEST_INTERNAL_SKIPPED", list.path()).run().assert_passed();
    assert!(ended.text().contains(&format!("vmtest: skipped (VMTEST_ON_MISSING=skip): {NO_QEMU}")), "{}", ended.text());
    let counted = fs::read_to_string(list.path()).expect("it is there");
    assert!(
        counted.starts_with("{\"test\":\"missing::victims::boots\",\"why\":\"`missing::victims::boots` cannot run: "),
        "{counted}"
    );
    assert_eq!(counted.lines().count(), 1);
    ended.assert_nothing_left();
    // Nobody would know of it otherwise.
    let said = ["cannot add a skipped test to the list in /nonexistent/list"];
    let victim = skipping("boots").env("VMTEST_INTERNAL_SKIPPED", "/nonexistent/list");
    victim.run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn what_is_skipped_is_said_past_the_capture() {
    let runs = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(std::env::current_exe().expect("a running test knows its binary"));
    command
        .args(["missing::victims::boots", "--exact", "--ignored"])
        .env("PATH", "/nonexistent")
        .env("VMTEST_RUN", runs.path());
    let output = command.env("VMTEST_ON_MISSING", "skip").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("vmtest: skipped (VMTEST_ON_MISSING=skip): "), "{said}");
}

#[rstest]
#[case::required("boots", "qemu", "VMTEST_REQUIRE names `qemu`, which cannot run here: no qemu-system-x86_64 on PATH")]
#[case::wrong("wrong", "", "no-such-directory")]
#[case::in_code("in_code", "", "no qemu-system-x86_64 on PATH")]
fn not_everything_is_skipped(#[case] victim: &str, #[case] require: &str, #[case] said: &str) {
    skipping(victim).env("VMTEST_REQUIRE", require).run().assert_failed_with(&[said]).assert_nothing_left();
}

#[test]
fn kvm_can_be_required() {
    let victim = |backend: &str| {
        let victim = Victim::within(&WITHOUT_KVM, "plain").env("VMTEST_BACKEND", backend);
        victim.env("VMTEST_REQUIRE", "kvm").env("VMTEST_ON_MISSING", "skip")
    };
    let said = ["VMTEST_REQUIRE names `kvm`, which runs no guests here: "];
    victim("qemu").run().assert_failed_with(&said).assert_nothing_left();
    victim("fake").run().assert_passed().assert_nothing_left();
}
