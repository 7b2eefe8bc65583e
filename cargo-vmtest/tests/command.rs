//! The command as a person or a program calls it.

use std::process::{Command, Output};

fn vmtest(args: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    change(command.args(args));
    command.output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_demo_boots_three_machines_and_leaves_nothing() {
    let runs = tempfile::tempdir().expect("a temporary directory");
    // As cargo calls it, for `cargo vmtest demo`.
    let demo = vmtest(&["vmtest", "demo", "--json"], |command| _ = command.env("VMTEST_RUN", runs.path()));
    assert!(demo.status.success(), "{}", text(&demo.stderr));
    let events = text(&demo.stdout);
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("planned")[0]["nodes"], serde_json::json!(["alice", "bob", "carol"]));
    assert_eq!(of("reached").len(), 3 * 6, "three machines climb six rungs");
    assert!(of("ready")[0]["after"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(of("torn_down")[0]["left"], serde_json::json!([]));
    let names = |dir: &str| -> Vec<_> {
        let entries = runs.path().join(dir).read_dir().expect("it is there").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names("").iter().all(|name| ["registry.lock", "lease"].contains(&name.as_str())), "{:?}", names(""));
    assert_eq!([names("lease/claims"), names("lease/queue")], [vec![] as Vec<String>, vec![]]);
}

#[test]
fn pruning_a_clean_host_says_so() {
    let runs = tempfile::tempdir().expect("a temporary directory");
    let prune = vmtest(&["prune"], |command| _ = command.env("VMTEST_RUN", runs.path()));
    assert_eq!((prune.status.code(), text(&prune.stdout).trim()), (Some(0), "nothing is left of killed runs"));
}

#[test]
fn what_is_missing_is_named_with_the_line_that_installs_it() {
    let demo = vmtest(&["demo"], |command| _ = command.env("PATH", "/nonexistent"));
    let said = text(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1));
    for part in ["not found: qemu-system-x86_64", "sudo apt-get install -y --no-install-recommends qemu-system-x86"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    assert_eq!(vmtest(&["demolish"], |_| {}).status.code(), Some(2));
    assert_eq!(vmtest(&["bench", "--pairs", "0"], |_| {}).status.code(), Some(2));
    assert!(text(&vmtest(&["--help"], |_| {}).stdout).contains("Exit codes: 0 success"));
}
