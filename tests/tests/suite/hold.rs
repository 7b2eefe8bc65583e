//! Clusters that are kept, and what their owner says at its control socket.

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest::{
    Kind,
    harness::control::{Answer, Client, Description, Request, RunState},
};
use vmtest_tests::{Running, Terminal, Victim};

/// Longer than the limit of `holds`, with the second that a body has to end.
const LONGER: Duration = Duration::from_secs(4);
/// What a fake cluster takes at most to get into a state.
const HAPPENS_WITHIN: Duration = Duration::from_secs(60);
/// What an announcement says.
const HELD: &str = "its cluster is held as run";

/// Tests whose clusters are kept, each run by a test below in a process of its own.
mod victims {
    use std::{future::pending, thread};

    use vmtest::prelude::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn fails(alice: Node, _bob: Node) -> Result {
        alice.write("/run/state", "as the test left it").await?;
        Err(Failure::msg("the words of the failure"))
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn panics(_alice: Node) {
        panic!("the words of the panic");
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn passes(_alice: Node) {}

    #[vm_test(backend = "fake", timeout = "2s")]
    #[ignore = "run by many"]
    async fn holds(_alice: Node, cluster: Cluster) -> Result {
        cluster.hold().await?;
        println!("the body goes on");
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn waits(_alice: Node) {
        println!("the body begins");
        pending::<()>().await;
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_run_that_is_ended_fails"]
    async fn blocks(_alice: Node) {
        println!("the body begins");
        loop {
            thread::sleep(Duration::from_secs(1000));
        }
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_run_is_kept_because_somebody_asks_while_it_runs"]
    async fn waits_for_a_file(alice: Node) -> Result {
        println!("the body begins");
        alice.wait_until("test -e /run/go").await?;
        Ok(())
    }
}

/// The directory of the only run.
fn run_dir(running: &Running) -> PathBuf {
    let entries = fs::read_dir(running.runs()).expect("it is there").flatten().map(|entry| entry.path());
    let mut dirs = entries.filter(|path| path.join("control").exists());
    dirs.next().expect("a run has a control socket")
}

fn client(running: &Running) -> Client {
    Client::connect(&run_dir(running)).expect("its owner answers")
}

fn description(running: &Running) -> Description {
    client(running).describe().expect("its owner answers")
}

fn ask(running: &Running, request: &Request) {
    assert_eq!(client(running).ask(request).expect("it is done"), Answer::Done);
}

#[test]
fn the_cluster_of_a_failed_test_is_kept_until_somebody_lets_it_go() {
    let mut running = Victim::new("fails").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    let held = description(&running);
    assert_eq!((held.test.as_str(), held.backend.as_str()), ("hold::victims::fails", "fake"));
    assert_eq!((held.state, held.pid), (RunState::Held, running.pid()));
    assert_eq!(held.held.as_deref(), Some("has failed (the words of the failure)"));
    let machines: Vec<_> = held.nodes.iter().map(|node| (node.name.as_str(), node.state.as_str())).collect();
    assert_eq!(machines, [("alice", "running"), ("bob", "running")]);
    assert!(held.nodes.iter().all(|node| node.vmm.is_some() && node.console.exists()));
    assert_eq!(vmtest_tests::Claims::of(running.runs()).look().0.len(), 1, "it counts in the lease");

    let here = tempfile::tempdir().expect("a directory");
    let to = here.path().join("state");
    ask(&running, &Request::Download { node: "alice".into(), from: "/run/state".into(), to: to.clone() });
    assert_eq!(fs::read_to_string(to).expect("it was copied"), "as the test left it");

    ask(&running, &Request::Resume);
    let ended = running.finish().assert_failed_with(&["the words of the failure", HELD, "goes on"]);
    ended.assert_nothing_left();
    assert_eq!(ended.text().matches(HELD).count(), 1, "it is said once");
    assert!(ended.text().contains(&format!("cargo vmtest ssh {}/alice", held.run)), "{}", ended.text());
}

#[rstest]
#[case("passes", "failed", false)]
#[case("passes", "always", true)]
#[case("panics", "failed", true)]
#[case("fails", "never", false)]
fn the_setting_says_which_are_kept(#[case] victim: &str, #[case] setting: &str, #[case] kept: bool) {
    let mut running = Victim::new(victim).env("VMTEST_HOLD", setting).start();
    if kept {
        running.wait_to_complain("cargo vmtest down");
        ask(&running, &Request::Down);
    }
    let ended = running.finish();
    assert_eq!(ended.text().contains(HELD), kept, "{}", ended.text());
    assert_eq!(ended.passed(), victim == "passes", "{}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn a_body_that_holds_uses_none_of_its_time() {
    let mut running = Victim::new("holds").start();
    running.wait_to_complain("cargo vmtest down");
    assert_eq!(description(&running).held.as_deref(), Some("waits in its body"));
    thread::sleep(LONGER);
    ask(&running, &Request::Resume);
    let ended = running.finish().assert_passed();
    assert!(ended.text().contains("the body goes on"), "{}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn where_nobody_would_come_a_body_does_not_hold() {
    let ended = Victim::new("holds").env("VMTEST_HOLD", "never").run().assert_passed();
    assert!(!ended.text().contains(HELD), "{}", ended.text());
}

#[rstest]
#[case("waits", "was ended by `cargo vmtest down`")]
#[case("blocks", "it blocks its thread")]
fn a_run_that_is_ended_fails(#[case] victim: &str, #[case] said: &str) {
    let mut running = Victim::new(victim).env("VMTEST_HOLD", "always").start();
    running.wait_for("the body begins");
    ask(&running, &Request::Down);
    let ended = running.finish().assert_failed_with(&["was ended by `cargo vmtest down`", said]);
    assert!(!ended.text().contains(HELD), "whoever has ended it does not want to see it: {}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn a_body_that_holds_and_is_ended_fails() {
    let mut running = Victim::new("holds").start();
    running.wait_to_complain("cargo vmtest down");
    ask(&running, &Request::Down);
    running.finish().assert_failed_with(&["was ended by `cargo vmtest down`"]).assert_nothing_left();
}

#[test]
fn a_run_is_kept_because_somebody_asks_while_it_runs() {
    let mut running = Victim::new("waits_for_a_file").start();
    running.wait_for("the body begins");
    let no = client(&running).ask(&Request::Resume).expect_err("it is not held");
    assert_eq!(no.to_string(), "it is not held");
    ask(&running, &Request::Hold);
    assert!(description(&running).hold_asked);
    let here = tempfile::NamedTempFile::new().expect("a file");
    ask(&running, &Request::Upload { node: "alice".into(), from: here.path().into(), to: "/run/go".into() });
    running.wait_to_complain("cargo vmtest down");
    assert_eq!(description(&running).held.as_deref(), Some("has passed"));
    ask(&running, &Request::Resume);
    running.finish().assert_passed().assert_nothing_left();
}

#[test]
fn a_signal_ends_a_run_that_is_kept() {
    let mut running = Victim::new("fails").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    running.signal(Signal::SIGINT);
    let ended = running.finish();
    assert_eq!(ended.signal(), Some(Signal::SIGINT), "{}", ended.text());
    // Nobody else would say it.
    assert!(
        ended.text().contains("its cluster was held; it has failed (the words of the failure)"),
        "{}",
        ended.text()
    );
    ended.assert_nothing_left();
}

#[test]
fn nothing_is_left_of_a_run_whose_owner_is_killed_while_it_is_kept() {
    let mut running = Victim::new("fails").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    let dir = run_dir(&running);
    running.signal(Signal::SIGKILL);
    let ended = running.finish();
    assert_eq!(Client::connect(&dir).expect_err("it is dead").kind(), Kind::Connection);
    Victim::new("passes").beside(ended.runs()).run().assert_passed().assert_nothing_left();
    ended.assert_nothing_left();
}

#[test]
fn ports_and_consoles_are_reached_through_the_owner() {
    let mut running = Victim::new("fails").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    let mut to_ssh = client(&running);
    let connect = |port| Request::Connect { node: "alice".into(), port };
    assert_eq!(to_ssh.ask(&connect(22)).expect("its SSH server listens"), Answer::Connected);
    let (mut stream, mut banner) = to_ssh.into_stream();
    let mut more = [0; 4];
    while banner.len() < 4 {
        let length = stream.read(&mut more).expect("it can be read");
        banner.extend(&more[..length]);
    }
    assert!(banner.starts_with(b"SSH-"), "{}", String::from_utf8_lossy(&banner));
    let refused = client(&running).ask(&connect(81)).expect_err("nobody listens there");
    assert!(refused.to_string().contains("nobody listens on port 81"), "{refused}");
    let unknown = client(&running).ask(&Request::Console { node: "carol".into() }).expect_err("it has no such machine");
    assert!(unknown.to_string().contains("the cluster has alice, bob"), "{unknown}");
    let mut console = client(&running);
    let first = console.ask(&Request::Console { node: "bob".into() }).expect("it has a console");
    assert!(matches!(first, Answer::Line { .. }), "{first:?}");
    ask(&running, &Request::Down);
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

/// A request of a client that is newer, no JSON at all, and one that never ends.
#[test]
fn a_client_that_talks_nonsense_harms_nobody() {
    let mut running = Victim::new("fails").env("VMTEST_HOLD", "failed").start();
    running.wait_to_complain("cargo vmtest down");
    for nonsense in ["{\"request\":\"fly\"}\n", "hello\n"] {
        let (mut stream, _) = client(&running).into_stream();
        stream.write_all(nonsense.as_bytes()).expect("it reads");
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).expect("it answers");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.contains("knows no such request"), "{answer}");
    }
    let (mut endless, _) = client(&running).into_stream();
    // It hangs up in the middle.
    drop(endless.write_all(&vec![b'x'; 2 << 20]));
    assert_eq!(description(&running).state, RunState::Held);
    ask(&running, &Request::Down);
    running.finish().assert_failed_with(&[]).assert_nothing_left();
}

#[test]
fn enter_on_the_terminal_lets_a_cluster_go() {
    let runs = tempfile::tempdir().expect("a directory");
    let host = vmtest_tests::Host::before(runs.path());
    let binary = std::env::current_exe().expect("it has a path");
    let victim = ["hold::victims::holds", "--exact", "--ignored", "--nocapture"];
    let (mut terminal, mut child) = Terminal::start(binary, &victim, runs.path());
    terminal.read_within("Enter, ", HAPPENS_WITHIN);
    terminal.write("\n");
    terminal.read_within("the body goes on", HAPPENS_WITHIN);
    terminal.read_within("1 passed", HAPPENS_WITHIN);
    assert!(child.wait().expect("it can be waited for").success());
    host.assert_as_before();
}
