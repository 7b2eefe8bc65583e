//! The commands that talk to the owner of a run, on fake machines; and one terminal on an emulated one.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixListener, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vmtest_tests::{Running, Terminal, Victim, WITHOUT_RIGHTS};

/// Tests whose clusters are looked into, each run by a test below in a process of its own.
mod victims {
    use std::future::pending;

    use vmtest::{
        prelude::*,
        spec::{Fake, Fault, Reply, Rung},
    };

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn fails(alice: Node, _bob: Node) -> Result {
        alice.write("/run/state", "as the test left it").await?;
        Err(Failure::msg("the words of the failure"))
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn waits(_alice: Node) {
        println!("the body begins");
        pending::<()>().await;
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_machine_that_does_not_answer_is_not_called"]
    async fn adds_one_that_never_answers(alice: Node, bob: Node, cluster: Cluster) -> Result {
        alice.kill().await?;
        bob.pause().await?;
        let mute = Fake::new().fault(Fault::Stops(Rung::SshBanner));
        cluster.add(NodeSpec::new("mute").fake(mute)).await?;
        Ok(())
    }

    /// A machine without ids of its own, which not every user has: it knows answers.
    #[vm_test(backend = "fake")]
    #[ignore = "run by who_is_not_root_enters_runs_that_are_not_roots"]
    async fn scripted(cluster: Cluster) -> Result {
        cluster.add(NodeSpec::new("db").fake(Fake::new().on("true", Reply::default()))).await?;
        Err(Failure::msg("the words of the failure"))
    }

    #[vm_test(backend = "qemu")]
    #[ignore = "run by ssh_gives_a_terminal"]
    async fn real(alice: Node, cluster: Cluster) -> Result {
        alice.sh("true").await?;
        cluster.hold().await?;
        Ok(())
    }
}

/// The command, with runs in this place.
fn command(runs: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    command.args(args).env("VMTEST_RUN", runs).stdin(Stdio::null());
    command
}

fn vmtest(runs: &Path, args: &[&str]) -> Output {
    command(runs, args).output().expect("the command runs")
}

/// What it prints when it succeeds.
fn said(runs: &Path, args: &[&str]) -> String {
    let output = vmtest(runs, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What it complains of when it fails.
fn complaint(runs: &Path, args: &[&str]) -> String {
    let output = vmtest(runs, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn held(name: &str) -> Running {
    let mut running = Victim::new(name).env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    running
}

fn runs_of(running: &Running) -> PathBuf {
    running.runs().to_owned()
}

#[test]
fn a_run_that_is_held_is_listed_and_let_go() {
    let running = held("fails");
    let runs = runs_of(&running);
    let listed: Value = serde_json::from_str(&said(&runs, &["ls", "--json"])).expect("it is JSON");
    assert_eq!((&listed["version"], &listed["silent"]), (&json!(1), &json!([])));
    let run = &listed["runs"][0];
    assert_eq!((&run["state"], &run["test"]), (&json!("held"), &json!("victims::fails")));
    assert_eq!(run["nodes"][1]["interfaces"][0]["ip"], "10.77.0.12");
    let people = said(&runs, &["ls"]);
    assert!(people.contains("it has failed (the words of the failure)"), "{people}");
    assert!(people.contains("bob    10.77.0.12   running") && !people.contains('\x1b'), "{people}");
    assert!(said(&runs, &["resume"]).ends_with("of `victims::fails` goes on\n"));
    running.finish().assert_failed_with(&["the words of the failure"]).assert_nothing_left();
    assert_eq!(said(&runs, &["ls"]), "no test runs now\n");
}

#[test]
fn down_returns_when_nothing_is_left() {
    let held = held("fails");
    let runs = runs_of(&held);
    let said = said(&runs, &["down", "fails"]);
    assert!(said.ends_with("is not held any more\n"), "{said}");
    held.host().assert_as_before_beside(&[held.pid()]);
    held.finish().assert_failed_with(&["the words of the failure"]).assert_nothing_left();

    let mut running = Victim::new("waits").start();
    running.wait_for("the body begins");
    let runs = runs_of(&running);
    assert!(self::said(&runs, &["hold"]).contains("will be held"));
    assert!(self::said(&runs, &["down", "--all"]).contains("its test has failed"));
    running.finish().assert_failed_with(&["was ended by `cargo vmtest down`"]).assert_nothing_left();
}

#[test]
fn ssh_runs_commands_and_passes_on_their_exit_code() {
    let running = held("fails");
    let runs = runs_of(&running);
    assert_eq!(said(&runs, &["ssh", "alice", "--", "hostname; cat /run/state"]), "alice\nas the test left it");
    let failed = vmtest(&runs, &["ssh", "bob", "--", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "{}", text(&failed.stderr));
    // The way of other tools.
    let config = tempfile::NamedTempFile::new().expect("a file");
    fs::write(config.path(), said(&runs, &["ssh-config"])).expect("it can be written");
    let other = Command::new("ssh").arg("-F").arg(config.path()).args(["bob", "hostname"]).output().expect("it runs");
    assert_eq!(text(&other.stdout), "bob\n", "{}", text(&other.stderr));
    drop(said(&runs, &["down"]));
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn a_machine_that_does_not_answer_is_not_called() {
    let running = Victim::new("adds_one_that_never_answers").start();
    let runs = runs_of(&running);
    let state = |name: &str| {
        let listed: Value = serde_json::from_str(&said(&runs, &["ls", "--json"])).expect("it is JSON");
        let nodes = listed["runs"][0]["nodes"].as_array().cloned().unwrap_or_default();
        nodes.into_iter().find(|node| node["name"] == name).map(|node| node["waits_for"].clone())
    };
    while state("mute") != Some(json!("SSH banner")) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for (name, why) in [
        ("mute", "/mute still boots, and waits for `SSH banner`: `cargo vmtest console --follow "),
        ("alice", "/alice is off: `cargo vmtest logs "),
        ("bob", "/bob is paused, and answers nobody until"),
    ] {
        let said = complaint(&runs, &["ssh", name, "--", "true"]);
        assert!(said.contains(why), "{said}");
    }
    drop(said(&runs, &["down"]));
    running.finish().assert_failed_with(&["was ended by `cargo vmtest down`"]).assert_nothing_left();
}

#[test]
fn without_a_terminal_a_shell_reads_what_it_is_given() {
    let running = held("fails");
    let runs = runs_of(&running);
    let mut ssh = command(&runs, &["ssh", "alice"]);
    let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut to = ssh.stdin.take().expect("it was asked for");
    to.write_all(b"hostname; test -t 0 || echo no terminal; exit 7\n").expect("it reads");
    drop(to);
    let output = ssh.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(7), "alice\nno terminal\n"));
    drop(said(&runs, &["down"]));
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn who_is_not_root_enters_runs_that_are_not_roots() {
    let mut running = Victim::without_rights("scripted").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    let runs = runs_of(&running);
    let without_rights = |args: &[&str]| {
        let mut command = Command::new(WITHOUT_RIGHTS[0]);
        command.args(&WITHOUT_RIGHTS[1..]).arg(env!("CARGO_BIN_EXE_cargo-vmtest")).args(args);
        let output = command.env("VMTEST_RUN", &runs).stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(without_rights(&["ls"]).contains("db  10.77.0.11   running"));
    // It runs nothing, but for those who have its key only.
    without_rights(&["ssh", "db", "--", "hostname"]);
    without_rights(&["down"]);
    running.finish().assert_failed_with(&["the words of the failure"]).assert_nothing_left();
}

#[test]
fn files_are_copied_both_ways() {
    let running = held("fails");
    let runs = runs_of(&running);
    let here = tempfile::tempdir().expect("a directory");
    let at = |name: &str| here.path().join(name).display().to_string();
    drop(said(&runs, &["cp", "alice:/run/state", &at("")]));
    assert_eq!(fs::read_to_string(at("state")).expect("it was copied"), "as the test left it");
    fs::create_dir_all(at("tree/below")).expect("it can be made");
    fs::write(at("tree/below/file"), "of the host").expect("it can be written");
    drop(said(&runs, &["cp", &at("tree"), "bob:/srv/"]));
    assert_eq!(said(&runs, &["ssh", "bob", "--", "cat /srv/tree/below/file"]), "of the host");
    assert!(complaint(&runs, &["cp", "alice:/nowhere", &at("x")]).contains("/nowhere"));
    assert!(complaint(&runs, &["cp", "/a", "/b"]).contains("node:path"));
    drop(said(&runs, &["down"]));
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn consoles_are_shown_and_followed_to_their_end() {
    let running = held("fails");
    let runs = runs_of(&running);
    let console = said(&runs, &["console", "alice"]);
    assert!(!console.is_empty());
    let logs = said(&runs, &["logs"]);
    for what in ["alice: VMM", "alice: console", "bob: console"] {
        assert!(logs.contains(what), "{logs}");
    }
    let mut follow = command(&runs, &["console", "--follow", "alice"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("it was asked for"));
    let mut first = String::new();
    lines.read_line(&mut first).expect("it can be read");
    assert!(console.contains(first.trim_end()), "{first}");
    drop(said(&runs, &["ssh", "alice", "--", "echo a line of now >/dev/console"]));
    while !first.contains("a line of now") {
        first.clear();
        assert!(lines.read_line(&mut first).expect("it can be read") > 0, "it ended before the line came");
    }
    drop(said(&runs, &["down"]));
    assert!(follow.wait().expect("it can be waited for").success(), "that a machine ends is no failure");
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn names_that_mean_nothing_or_too_much_are_explained() {
    let first = held("fails");
    let runs = runs_of(&first);
    let mut second = Victim::new("waits").beside(&runs).start();
    second.wait_for("the body begins");
    let ambiguous = complaint(&runs, &["ssh", "alice", "--", "true"]);
    assert!(ambiguous.contains("`alice` can be:") && ambiguous.contains("/alice  of `victims::waits`"), "{ambiguous}");
    assert_eq!(said(&runs, &["ssh", "waits/alice", "--", "hostname"]), "alice\n");
    assert!(complaint(&runs, &["ssh", "carol"]).contains("there is no machine `carol`; there are:"));
    assert!(complaint(&runs, &["down"]).contains("say which run:"));
    assert!(complaint(&runs, &["resume", "waits"]).contains("it is not held"));
    drop(said(&runs, &["down", "--all"]));
    second.finish().assert_failed_with(&[]).assert_nothing_left();
    first.finish().assert_failed_with(&[]).assert_nothing_left();
    assert!(complaint(&runs, &["ssh", "alice"]).contains("no test runs now"));
}

#[test]
fn a_run_whose_owner_died_is_named_with_the_remedy() {
    let running = held("fails");
    let runs = runs_of(&running);
    let listed: Value = serde_json::from_str(&said(&runs, &["ls", "--json"])).expect("it is JSON");
    let id = listed["runs"][0]["run"].as_str().expect("a run has an id").to_owned();
    running.signal(Signal::SIGKILL);
    let ended = running.finish();
    let listed: Value = serde_json::from_str(&said(&runs, &["ls", "--json"])).expect("it is JSON");
    assert_eq!(listed["runs"], json!([]));
    let why = listed["silent"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("has died") && why.contains("cargo vmtest prune"), "{listed}");
    assert!(complaint(&runs, &["ssh", &format!("{id}/alice")]).contains("has died"));
    drop(said(&runs, &["prune"]));
    ended.assert_nothing_left();
}

#[test]
fn an_owner_of_another_version_is_named() {
    let runs = tempfile::tempdir().expect("a directory");
    let dir = runs.path().join("0000000a");
    fs::create_dir(&dir).expect("it can be made");
    let listener = UnixListener::bind(dir.join("control")).expect("it can be bound");
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        stream.write_all(b"{\"control\":99,\"run\":\"0000000a\",\"new\":1}\n").expect("it reads");
    });
    let listed: Value = serde_json::from_str(&said(runs.path(), &["ls", "--json"])).expect("it is JSON");
    let why = listed["silent"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("speaks version 99 of the control protocol, and this command 1"), "{listed}");
    serve.join().expect("it was asked");
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let running = held("fails");
    let runs = runs_of(&running);
    for args in [&["ls"][..], &["logs"], &["completions", "bash"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(&runs, args).stdout(writer).output().expect("it runs");
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{args:?}");
    }
    drop(said(&runs, &["down"]));
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn doctor_says_how_this_host_is() {
    let runs = tempfile::tempdir().expect("a directory");
    let report: Value = serde_json::from_str(&said(runs.path(), &["doctor", "--json"])).expect("it is JSON");
    assert_eq!((&report["version"], &report["ready"]), (&json!(1), &json!(true)));
    let names: Vec<_> = report["backends"].as_array().expect("a list").iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["cloud-hypervisor", "qemu", "firecracker", "fake"]);
    let fake = &report["backends"][3]["can"];
    assert!(fake.as_array().is_some_and(|can| can.contains(&json!("faults"))), "{report}");
    // On a PATH without them programs are missing, which is said with the line that installs them.
    let output = command(runs.path(), &["doctor"]).env("PATH", "/nonexistent").output().expect("it runs");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("missing") && said.contains("sudo apt-get install"), "{said}");
}

#[test]
fn up_holds_the_cluster_of_a_test_in_place_of_its_body() {
    let runs = tempfile::tempdir().expect("a directory");
    let host = vmtest_tests::Host::before(runs.path());
    // What `up` does with a binary that it has found, without building all of them.
    let binary = std::env::current_exe().expect("it has a path");
    let listed = Command::new(&binary).arg("--list").env("VMTEST_INTERNAL_LIST", "1").output().expect("it runs");
    let listed = text(&listed.stdout);
    let declared = listed.lines().map(|line| line.strip_prefix("vmtest: test ").expect("nothing else is printed"));
    let declared = declared.map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    let mut names: Vec<_> = declared.map(|test| test["path"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        ["adds_one_that_never_answers", "fails", "real", "scripted", "waits"].map(|name| format!("victims::{name}"))
    );
    let mut up = Command::new(&binary);
    up.args(["victims::fails", "--exact", "--include-ignored", "--nocapture"]);
    up.env("VMTEST_RUN", runs.path()).env("VMTEST_INTERNAL_UP", "1").stdin(Stdio::null());
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(up.stderr.take().expect("it was asked for"));
    let mut line = String::new();
    while !line.contains("cargo vmtest down") {
        line.clear();
        assert!(lines.read_line(&mut line).expect("it can be read") > 0, "it ended before it held");
    }
    let state = vmtest(runs.path(), &["ssh", "alice", "--", "cat /run/state"]);
    assert!(!state.status.success(), "the body has not run");
    drop(said(runs.path(), &["down"]));
    assert!(up.wait().expect("it can be waited for").success(), "that it is over is no failure");
    host.assert_as_before();
}

/// As a person calls it: built, found by a part of its name, entered, and let go.
#[test]
fn every_test_is_also_a_lab() {
    let runs = tempfile::tempdir().expect("a directory");
    let host = vmtest_tests::Host::before(runs.path());
    // Without arguments, so that what it builds is what the whole suite was built as.
    let mut up = command(runs.path(), &["up", "control/fails"]);
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(up.stderr.take().expect("it was asked for"));
    let (mut line, mut all) = (String::new(), String::new());
    while !line.contains("cargo vmtest down") {
        line.clear();
        assert!(lines.read_line(&mut line).expect("it can be read") > 0, "it ended before it held: {all}");
        all += &line;
    }
    let listed = said(runs.path(), &["ls"]);
    assert!(listed.contains("victims::fails") && listed.contains("bob    10.77.0.12   running"), "{listed}");
    drop(said(runs.path(), &["ssh", "alice", "--", "true"]));
    assert_eq!(
        said(runs.path(), &["ssh", "bob", "--", "test -e /run/state || echo no body has run"]),
        "no body has run\n"
    );
    drop(said(runs.path(), &["down", "fails"]));
    // Somebody reads what it says in the end.
    lines.read_to_string(&mut all).expect("it can be read");
    assert!(up.wait().expect("it can be waited for").success(), "that it is over is no failure: {all}");
    host.assert_as_before();

    let unknown = vmtest(runs.path(), &["up", "control/flies"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = text(&unknown.stderr);
    assert!(said.contains("there is no test `control/flies`") && said.contains("control/victims::waits"), "{said}");
}

#[test]
fn what_tests_declare_is_listed() {
    let runs = tempfile::tempdir().expect("a directory");
    let listed = said(runs.path(), &["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    let tests = listed["tests"].as_array().expect("a list");
    let of_this = |test: &&Value| test["target"] == "control" && test["path"] == "victims::real";
    let test = tests.iter().find(of_this).expect("it is one of this binary");
    assert_eq!((&test["binary_id"], &test["package"]), (&json!("cargo-vmtest::control"), &json!("cargo-vmtest")));
    assert_eq!((&test["backends"], &test["ignored"], &test["nodes"]), (&json!(["qemu"]), &json!(true), &json!(1)));
    let people = said(runs.path(), &["list"]);
    let line = "control/victims::real  1 machine with 256.0 MiB of memory, 1 CPU, micro on qemu, ignored\n";
    assert!(people.contains(line), "{people}");
}

#[test]
fn completions_know_the_commands() {
    let runs = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = said(runs.path(), &["completions", shell]);
        assert!(script.contains("ssh-config") && script.contains("cargo-vmtest"), "{shell}");
    }
}

/// A person's terminal: the guest's shell has one.
#[test]
fn ssh_gives_a_terminal() {
    let mut running = Victim::new("real").start();
    running.wait_to_complain("cargo vmtest down");
    let vmtest = env!("CARGO_BIN_EXE_cargo-vmtest");
    let (mut terminal, mut child) = Terminal::start(vmtest, &["ssh", "alice"], running.runs());
    terminal.read_until("~ # ");
    // It is echoed as it was typed, which is not what it prints.
    terminal.write("test -t 0 -a -t 1 && echo at=$(tty)\n");
    terminal.read_until("at=/dev/pts/");
    terminal.write("exit 7\n");
    assert_eq!(child.wait().expect("it can be waited for").into_raw() >> 8, 7);
    drop(said(running.runs(), &["resume"]));
    running.finish().assert_passed().assert_nothing_left();
}
