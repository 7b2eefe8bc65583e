//! The command as a person or a program calls it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

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
    let events: Vec<Value> =
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
fn the_version_has_the_commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| text(&output.stdout).trim().to_owned())
    };
    // In a checkout that of git; a copy of the sources without one has the version alone.
    let commit =
        git(&["ls-files", "--error-unmatch", "build.rs"]).and_then(|_| git(&["rev-parse", "--short=12", "HEAD"]));
    let commit = commit.map_or_else(String::new, |commit| format!(" ({commit})"));
    for flag in ["-V", "--version"] {
        let version = vmtest(&[flag], |_| {});
        let expected = format!("cargo vmtest {}{commit}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((version.status.code(), text(&version.stdout)), (Some(0), expected));
    }
}

#[test]
fn pruning_a_clean_host_says_so() {
    let places = tempfile::tempdir().expect("a temporary directory");
    let prune = vmtest(&["prune"], in_places(places.path()));
    assert_eq!((prune.status.code(), text(&prune.stdout).trim()), (Some(0), "nothing is left of killed runs"));
}

/// Has the command look for runs here only.
fn in_places(root: &Path) -> impl FnOnce(&mut Command) {
    move |command| _ = command.env("VMTEST_RUN", root.join("runs")).env("VMTEST_CACHE", root.join("cache"))
}

/// Two killed runs: one with a journal of this version, of the other only its disks.
fn leave_runs(root: &Path, version: u32) -> [PathBuf; 2] {
    let process = r#"{"pid":1,"start":1,"boot":"another"}"#;
    let journal = format!(
        r#"{{"type":"begin","version":{version},"test":"elects","owner":{process},"at":1795240000000}}
{{"type":"intent","id":0,"effect":{{"kind":"node_dir","name":"alice"}}}}
{{"type":"intent","id":1,"effect":{{"kind":"process","node":"alice"}}}}
{{"type":"done","id":1,"process":{process}}}
"#
    );
    let [run, disks] = ["runs/0000000a", "cache/scratch/0000000b"].map(|path| root.join(path));
    for (dir, file) in [(run.join("alice"), run.join("lock")), (disks.join("0"), disks.join("lock"))] {
        fs::create_dir_all(dir).expect("it can be made");
        fs::write(file, "").expect("it can be written");
    }
    fs::write(run.join("journal.jsonl"), journal).expect("it can be written");
    [run, disks]
}

#[test]
fn killed_runs_are_shown_and_then_removed() {
    let places = tempfile::tempdir().expect("a temporary directory");
    let [run, disks] = leave_runs(places.path(), 2);
    let expected = |dry_run: bool| {
        let of_run = json!({
            "id": "0000000a", "place": "run", "path": run, "test": "elects", "at": 1_795_240_000_000_u64,
            "outstanding": ["VMM of `alice`, process 1", "folder `alice`"], "left": [],
        });
        let of_disks = json!({
            "id": "0000000b", "place": "scratch", "path": disks, "test": null, "at": null,
            "outstanding": [], "left": [],
        });
        json!({ "version": 1, "dry_run": dry_run, "runs": [of_run, of_disks], "unclear": [] })
    };
    for dry_run in [true, false] {
        let args = if dry_run { &["prune", "--json", "--dry-run"][..] } else { &["prune", "--json"] };
        let pruned = vmtest(args, in_places(places.path()));
        let said: Value = serde_json::from_slice(&pruned.stdout).expect("it is JSON");
        assert_eq!((pruned.status.code(), said), (Some(0), expected(dry_run)), "{}", text(&pruned.stderr));
        assert_eq!([run.join("alice").exists(), disks.join("0").exists()], [dry_run; 2]);
    }

    leave_runs(places.path(), 2);
    let pruned = vmtest(&["prune"], in_places(places.path()));
    let said = format!(
        "removed {} of `elects`: VMM of `alice`, process 1, folder `alice`\nremoved {}\n",
        run.display(),
        disks.display()
    );
    assert_eq!((pruned.status.code(), text(&pruned.stdout)), (Some(0), said));
}

#[test]
fn what_cannot_be_removed_fails_and_is_named() {
    let places = tempfile::tempdir().expect("a temporary directory");
    let [run, disks] = leave_runs(places.path(), 99);
    let pruned = vmtest(&["prune", "--json"], in_places(places.path()));
    let said: Value = serde_json::from_slice(&pruned.stdout).expect("it is JSON");
    let left = said["runs"][0]["left"][0].as_str().unwrap_or_default();
    assert!(left.contains("is of version 99"), "{said}");
    assert_eq!(pruned.status.code(), Some(1));
    let complaint = text(&pruned.stderr);
    assert!(complaint.contains(&format!("could not be removed:\n  - run 0000000a: {left}")), "{complaint}");
    assert_eq!([run.exists(), disks.exists()], [true, false], "the other one is gone");
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

/// What needs a real machine.
mod real {
    use super::*;

    fn lab(args: &[&str]) -> Output {
        vmtest(&[&["lab"], args].concat(), |_| ())
    }

    #[test]
    fn what_runs_in_the_lab_prints_and_ends_as_here() {
        let out = tempfile::tempdir().expect("a temporary directory");
        let script = "echo printed; echo complained >&2; test -c /dev/kvm && uname -r >$LAB_OUT/release; exit 3";
        let ended = lab(&["--out", &out.path().display().to_string(), "--", "sh", "-c", script]);
        let (printed, complained) = (text(&ended.stdout), text(&ended.stderr));
        assert_eq!((ended.status.code(), printed.as_str()), (Some(3), "printed\n"), "{complained}");
        assert!(complained.ends_with("complained\n"), "{complained}");
        let files = walk(out.path());
        assert!(files.iter().any(|file| file.ends_with("release")), "{files:?}");
    }

    #[test]
    #[ignore = "takes minutes: `.ci/full` runs it"]
    fn machines_run_in_the_lab_with_kvm_and_without_root() {
        let ended = lab(&["--user", "--", env!("CARGO_BIN_EXE_cargo-vmtest"), "demo"]);
        let printed = text(&ended.stdout);
        assert!(ended.status.success(), "{printed}{}", text(&ended.stderr));
        for said in ["with KVM", "alice pings bob (10.77.0.12)", "nothing was left on this host"] {
            assert!(printed.contains(said), "`{said}` is not in: {printed}");
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it can be read").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_lab_needs_something_to_run() {
    for (args, said) in [
        (&["lab"][..], "say what to run: `cargo vmtest lab -- <program>`"),
        (&["lab", "--", "no-such-program"], "there is no program `no-such-program`"),
    ] {
        let ended = vmtest(args, |_| ());
        assert_eq!(ended.status.code(), Some(1));
        assert!(text(&ended.stderr).contains(said), "{}", text(&ended.stderr));
    }
}

/// Serves this file on loopback for as long as the test runs.
fn serve(content: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    let url = format!("http://{}/cloud-hypervisor-static", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(stream.try_clone().expect("it can be duplicated")).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let length = content.len();
            // A client that goes is none of its business.
            _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}");
        }
    });
    url
}

/// The SHA-256 of a text.
fn sha256(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), text).expect("it can be written");
    vmtest_images::Digest::of_file(file.path()).expect("it can be read").to_string()
}

#[test]
fn a_vmm_is_fetched_checked_and_kept() {
    const NEW: &str = "#!/bin/sh\necho cloud-hypervisor v53.0\n";
    const OLD: &str = "#!/bin/sh\necho cloud-hypervisor v44.0\n";
    let cache = tempfile::tempdir().expect("a temporary directory");
    let install = |more: &[&str]| {
        let args = [&["install", "cloud-hypervisor"], more].concat();
        vmtest(&args, |command| _ = command.env("VMTEST_CACHE", cache.path()))
    };
    let program = cache.path().join("programs/cloud-hypervisor");
    let (new, old) = (serve(NEW), serve(OLD));

    // A mirror with another file.
    let wrong = install(&["--url", &new]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(
        said.contains("is not what it should be: its SHA-256 is ") && said.contains("VMTEST_CLOUD_HYPERVISOR"),
        "{said}"
    );
    assert!(!program.exists());

    let too_old = install(&["--url", &old, "--sha256", &sha256(OLD)]);
    assert!(text(&too_old.stderr).contains("v45.0 is the oldest that works"), "{}", text(&too_old.stderr));
    assert!(!program.exists());

    let done = install(&["--url", &new, "--sha256", &sha256(NEW)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = format!("cloud-hypervisor v53.0 is {}; tests take it where none is on PATH\n", program.display());
    assert_eq!(text(&done.stdout), said);
    assert_eq!(fs::read_to_string(&program).expect("it is there"), NEW);

    let without = install(&["--sha256", &sha256(NEW)]);
    assert_eq!(without.status.code(), Some(2), "{}", text(&without.stderr));
}
