//! Directories of runs that cannot be used, or hold what a run cannot have left: each is said with what to do, and
//! nothing is worse afterwards.

use std::{fs, path::Path};

use rstest::rstest;
use vmtest_tests::Victim;

/// Tests whose run directories are in a bad place.
mod victims {
    use std::collections::BTreeMap;

    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    use vmtest::prelude::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run where the run directories are"]
    async fn plain(_node: Node) {}

    /// In a process whose storage has no locks, as far as it can tell.
    #[test]
    #[ignore = "run by storage_without_locks_is_refused"]
    fn without_locks() {
        let refuse = SeccompAction::Errno(libc::EOPNOTSUPP.cast_unsigned());
        let arch = std::env::consts::ARCH.try_into().expect("seccomp knows this machine");
        let filter =
            SeccompFilter::new(BTreeMap::from([(libc::SYS_flock, vec![])]), SeccompAction::Allow, refuse, arch);
        let program = filter.and_then(BpfProgram::try_from).expect("one rule is a filter");
        apply_filter(&program).expect("a process may take rights from itself");
        let cluster = Cluster::builder().backend("fake").backend("qemu").node(NodeSpec::new("node"));
        cluster.run(async |_| ()).expect("there are locks");
    }
}

/// A test that runs where this was done before, with the root of the run directories as `$runs`, in mounts of its own.
fn where_mounted(how: &str) -> Victim {
    let script = format!("set -e; runs=$VMTEST_RUN; {how}; exec \"$@\"");
    Victim::within(&["unshare", "--mount", "sh", "-c", &script, "sh"], "plain")
}

#[test]
fn a_read_only_place_is_refused() {
    let said =
        ["cannot look for old runs in", "set VMTEST_RUN to a directory that you can write", "Read-only file system"];
    let ended = where_mounted("mount -t tmpfs -o ro tmpfs $runs").run();
    ended.assert_failed_with(&said).assert_nothing_left();
}

/// From so small that there is no room for the first line of a journal to large enough for a machine: what fails
/// differs, and each time it is said, and nothing is left.
#[test]
fn a_full_place_is_said() {
    let said = ["free space there, or set VMTEST_RUN to another place", "No space left on device"];
    let sizes = (1..SMALL_PAGES).chain((0..).map(|doubled| SMALL_PAGES << doubled));
    let failed = sizes.map(|pages| where_mounted(&format!("mount -t tmpfs -o size={}k tmpfs $runs", 4 * pages)).run());
    let failed = failed.take_while(|ended| !ended.passed()).map(|ended| {
        let ended = ended.assert_failed_with(&said);
        assert!(!ended.text().contains("left behind"), "{}", ended.text());
        ended.assert_nothing_left();
    });
    assert!(failed.count() >= 2, "a journal and a machine take more than one page each");
}

/// A place of fewer pages is too small for some of the small files; each number of them is tried.
const SMALL_PAGES: u64 = 8;

#[test]
fn storage_without_locks_is_refused() {
    let said = ["the storage has no file locks", "set VMTEST_RUN to a directory on a local disk"];
    Victim::new("without_locks").run().assert_failed_with(&said).assert_nothing_left();
}

const BEGIN: &str = r#"{"type":"begin","version":3,"test":"t","owner":{"pid":1,"start":1,"boot":"b"},"at":0}"#;

/// Puts a run with this journal where the next test finds it.
fn leave_a_run(runs: &Path, journal: &str) {
    let run = runs.join("0000000a");
    fs::create_dir(&run).expect("it can be made");
    fs::write(run.join("lock"), "").expect("it can be written");
    fs::write(run.join("journal.jsonl"), journal).expect("it can be written");
}

#[rstest]
#[case::empty("")]
#[case::cut_in_its_first_line(&BEGIN[..40])]
#[case::cut_in_a_later_line(&format!("{BEGIN}\n{{\"type\":\"inten"))]
fn a_run_that_had_announced_nothing_is_removed(#[case] journal: &str) {
    let victim = Victim::new("plain");
    leave_a_run(victim.runs(), journal);
    victim.run().assert_passed().assert_nothing_left();
}

#[rstest]
#[case::newer(&BEGIN.replace("\"version\":3", "\"version\":4"), "is of version 4; this vmtest reads 3")]
#[case::damaged(&format!("{BEGIN}\nnonsense"), "is damaged in line 2")]
fn a_run_that_cannot_be_understood_fails_the_next_and_stays(#[case] journal: &str, #[case] said: &str) {
    let victim = Victim::new("plain");
    leave_a_run(victim.runs(), &format!("{journal}\n"));
    let ended = victim.run().assert_failed_with(&["what killed runs left cannot be removed", "run 0000000a", said]);
    let journal_is = fs::read_to_string(ended.runs().join("0000000a/journal.jsonl")).expect("it is there");
    assert_eq!(journal_is, format!("{journal}\n"));
}

/// What takes a second user, and root to act for it.
mod as_root {
    use super::*;

    #[test]
    fn a_run_of_another_user_fails_the_next_and_stays() {
        let victim = Victim::new("plain");
        leave_a_run(victim.runs(), BEGIN);
        let run = victim.runs().join("0000000a");
        std::os::unix::fs::chown(&run, Some(65534), None).expect("root may give it away");
        let said = ["what killed runs left cannot be removed", "belongs to user 65534, not to 0, and is left alone"];
        let ended = victim.run().assert_failed_with(&said);
        assert!(ended.runs().join("0000000a/journal.jsonl").exists());
    }
}

/// A mount in the way stands for whatever keeps a file from being removed.
#[test]
fn what_a_reconcile_cannot_remove_fails_its_run_and_goes_with_the_next() {
    let victim = where_mounted("mount -t tmpfs tmpfs $runs/0000000a/alice/busy");
    let intent = r#"{"type":"intent","id":0,"effect":{"kind":"node_dir","name":"alice"}}"#;
    leave_a_run(victim.runs(), &format!("{BEGIN}\n{intent}\n"));
    let busy = victim.runs().join("0000000a/alice/busy");
    fs::create_dir_all(&busy).expect("it can be made");
    let ended = victim.run();
    let journal = fs::read_to_string(ended.runs().join("0000000a/journal.jsonl")).expect("it is there");
    let said = ["what killed runs left cannot be removed", "run 0000000a", "0000000a/alice: Device or resource busy"];
    let ended = ended.assert_failed_with(&said);
    assert_eq!(journal, format!("{BEGIN}\n{intent}\n"), "its record stays");

    drop(Victim::new("plain").beside(ended.runs()).run().assert_passed());
    ended.assert_nothing_left();
}
