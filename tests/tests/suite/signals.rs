//! Signals, terminals and runners that end a test, and Ctrl-Z.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::{Terminal, Victim};

/// How long `takes_a_while` may take, before scaling, and how long it is stopped.
const LIMIT: Duration = Duration::from_secs(4);
/// What a process needs to be stopped; only a broken machine takes longer.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Tests that are ended, each run by a test below in a process of its own.
mod victims {
    use std::future::pending;

    use vmtest::prelude::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn waits([_a, _b, _c]: [Node; 3]) {
        println!("the machines are up");
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_second_interrupt_ends_at_once"]
    async fn passes(_cluster: Cluster) {}

    #[vm_test(backend = "fake", timeout = "4s")]
    #[ignore = "run by a_stopped_test_goes_on"]
    async fn takes_a_while(node: Node) -> Result {
        println!("the machine is up");
        node.sh("sleep 2").await?;
        Ok(())
    }
}

#[rstest]
#[case(Signal::SIGINT)]
#[case(Signal::SIGTERM)]
#[case(Signal::SIGHUP)]
fn a_signal_winds_down_and_ends_the_process(#[case] signal: Signal) {
    let mut running = Victim::new("waits").start();
    running.wait_for("the machines are up");
    let vmms = running.host().vmms();
    assert_eq!(vmms.len(), 3);
    running.signal(signal);
    let ended = running.finish();
    assert_eq!(ended.signal(), Some(signal), "{}", ended.text());
    let text = ended.text();
    assert!(text.contains(&format!("{}: removing 1 cluster", signal.as_str())), "{text}");
    assert!(text.contains(&format!("`signals::victims::waits` was ended by {} after", signal.as_str())), "{text}");
    ended.assert_nothing_left();
    vmms.iter().for_each(|vmm| vmm.assert_gone());
}

/// Ctrl-C in a terminal reaches the whole foreground group, not the test's process alone.
#[test]
fn an_interrupt_of_the_whole_group_does_not_reach_the_machines_first() {
    use std::os::unix::process::CommandExt;
    let own_group = |command: &mut Command| {
        command.process_group(0);
    };
    let mut running = Victim::new("waits").with(own_group).start();
    running.wait_for("the machines are up");
    running.signal_group(Signal::SIGINT);
    let ended = running.finish();
    assert_eq!(ended.signal(), Some(Signal::SIGINT), "{}", ended.text());
    assert!(!ended.text().contains("the machine ended"), "{}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn a_second_interrupt_ends_at_once() {
    // The first one takes a few milliseconds, so the second may come too late.
    let at_once = (0..50).any(|_| {
        let mut running = Victim::new("waits").start();
        running.wait_for("the machines are up");
        let vmms = running.host().vmms();
        running.signal(Signal::SIGINT);
        running.wait_to_complain("removing 1 cluster");
        running.signal(Signal::SIGINT);
        let ended = running.finish();
        assert_eq!(ended.signal(), Some(Signal::SIGINT), "{}", ended.text());
        vmms.iter().for_each(|vmm| vmm.assert_gone());
        Victim::new("passes").beside(ended.runs()).run().assert_passed().assert_nothing_left();
        !ended.text().contains("was ended by SIGINT")
    });
    assert!(at_once, "every second interrupt came after the end");
}

/// A terminal that is closed takes the output with it, and sends SIGHUP.
#[test]
fn a_closed_terminal_winds_down() {
    let runs = tempfile::tempdir().expect("a directory");
    let host = vmtest_tests::Host::before(runs.path());
    let binary = std::env::current_exe().expect("it has a path");
    let victim = ["signals::victims::waits", "--exact", "--ignored", "--nocapture"];
    let (mut terminal, mut victim) = Terminal::start(binary, &victim, runs.path());
    terminal.read_until("the machines are up");
    let vmms = host.vmms();
    assert_eq!(vmms.len(), 3);
    drop(terminal);
    victim.wait().expect("it can be waited for");
    vmms.iter().for_each(|vmm| vmm.assert_gone());
    host.assert_as_before();
}

#[test]
fn a_stopped_test_goes_on() {
    let mut running = Victim::new("takes_a_while").start();
    running.wait_for("the machine is up");
    running.signal(Signal::SIGTSTP);
    let deadline = Instant::now() + STOPS_WITHIN;
    while running.state() != 'T' {
        assert!(Instant::now() < deadline, "it is not stopped but {}", running.state());
        thread::sleep(Duration::from_millis(10));
    }
    // So long that it would have ended if this time counted, for it has a second of grace too.
    thread::sleep(LIMIT + Duration::from_secs(2));
    running.signal(Signal::SIGCONT);
    running.finish().assert_passed().assert_nothing_left();
}

/// A runner that gives a test up sends SIGTERM, and SIGKILL after its period of grace.
#[test]
fn the_verdict_fits_into_the_grace_of_nextest() {
    let Some(nextest) =
        vmtest_tests::Nextest::new("slow-timeout = { period = \"2s\", terminate-after = 2, grace-period = \"10s\" }")
    else {
        eprintln!("not run: cargo-nextest is not installed");
        return;
    };
    let runs = tempfile::tempdir().expect("a directory");
    let host = vmtest_tests::Host::before(runs.path());
    let output = nextest.command("signals::victims::waits").env("VMTEST_RUN", runs.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("TIMEOUT"), "{said}");
    assert!(said.contains("`signals::victims::waits` was ended by SIGTERM after"), "{said}");
    assert!(!said.contains("SIGKILL"), "{said}");
    host.assert_as_before();
}
