//! Every way in which a test can end, and what it leaves: nothing.

use std::time::Instant;

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::Victim;

/// Tests that end badly, each run by a test below in a process of its own.
mod victims {
    use std::{future::pending, thread, time::Duration};

    use vmtest::prelude::*;

    /// The line of the panic in `panics`.
    pub(super) const PANIC_LINE: u32 = line!() + 6;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_panic_of_the_body_keeps_its_message_and_line"]
    async fn panics(node: Node) {
        let name = node.name();
        panic!("the words of the body on {name}");
    }

    /// The line of the question mark in `fails`.
    pub(super) const FAILURE_LINE: u32 = line!() + 5;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_failure_names_its_line"]
    async fn fails(node: Node) -> Result {
        node.sh("echo why >&2; exit 7").await?;
        Ok(())
    }

    #[vm_test(timeout = "10m")]
    #[ignore = "run by a_guest_that_panics_fails_the_test_while_the_body_waits"]
    async fn guest_panics(node: Node, other: Node) {
        node.sh("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &").await.expect("it starts");
        println!("{} lives", other.name());
        pending::<()>().await;
    }

    #[vm_test(timeout = "10m")]
    #[ignore = "run by a_guest_that_joined_late_and_panics_fails_the_test"]
    async fn late_guest_panics(cluster: Cluster) -> Result {
        let late = cluster.add(NodeSpec::new("late")).await?;
        late.sh("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &").await?;
        pending().await
    }

    #[vm_test(timeout = "10m")]
    #[ignore = "run by a_command_on_a_machine_that_dies_ends_at_once"]
    async fn guest_powers_off(node: Node) -> Result {
        node.sh("poweroff -f; sleep 1000").await?;
        Ok(())
    }

    #[vm_test(timeout = "10m", kernel_args = "rdinit=/nonexistent init=/nonexistent")]
    #[ignore = "run by a_guest_that_panics_at_boot_fails_the_test"]
    async fn guest_panics_at_boot(_node: Node) {}

    #[vm_test(timeout = "5s", kernel_args = "rdinit=/bin/sh")]
    #[ignore = "run by a_machine_that_never_answers_names_its_rung"]
    async fn never_answers(_mute: Node) {}

    #[vm_test(backend = "qemu, fake", timeout = "4s")]
    #[ignore = "run by a_body_that_never_ends_is_ended"]
    async fn never_ends(_node: Node) {
        println!("the body runs");
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "4s")]
    #[ignore = "run by a_body_that_never_ends_is_ended"]
    async fn blocks(_node: Node) {
        println!("the body runs");
        loop {
            thread::sleep(Duration::from_secs(1000));
        }
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn waits([_a, _b, _c]: [Node; 3]) {
        println!("the machines are up");
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn passes(_cluster: Cluster) {}

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by what_cannot_be_removed_fails_the_test"]
    async fn leaves_a_mount(node: Node, cluster: Cluster) {
        let runs = std::env::var("VMTEST_RUN").expect("a victim has its own runs");
        let at = format!("{runs}/{}/{}/busy", cluster.id(), node.name());
        std::fs::create_dir(&at).expect("it can be made");
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, at.as_str(), Some("tmpfs"), flags, none).expect("it can be mounted");
    }
}

#[test]
fn a_panic_of_the_body_keeps_its_message_and_line() {
    let place = format!("tests/suite/endings.rs:{}", victims::PANIC_LINE);
    let ended = Victim::new("panics").run();
    let said = ["thread 'endings::victims::panics'", &place, "the words of the body on node"];
    ended.assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_failure_names_its_line() {
    let place = format!("tests/suite/endings.rs:{}", victims::FAILURE_LINE);
    let said = ["node `node`: `echo why >&2; exit 7` ended with exit code 7", "stderr: why", &place];
    Victim::new("fails").run().assert_failed_with(&said).assert_nothing_left();
}

#[rstest]
#[case::awaiting("never_ends", "has not ended within its timeout of")]
#[case::blocking("blocks", "it blocks its thread")]
fn a_body_that_never_ends_is_ended(#[case] victim: &str, #[case] said: &str) {
    // Its time begins before its machine boots, which takes as long as the host takes.
    let within = |scale: u32| Victim::new(victim).env("VMTEST_TIMEOUT_SCALE", scale.to_string()).run();
    let mut tries = [1, 4, 16].into_iter().map(within);
    let ended =
        tries.find(|ended| ended.text().contains("the body runs")).expect("its machine boots within four minutes");
    ended.assert_failed_with(&["has not ended within its timeout of", said]).assert_nothing_left();
}

#[test]
fn after_sigkill_the_kernel_ends_the_machines_and_the_next_run_removes_the_rest() {
    let mut running = Victim::new("waits").start();
    running.wait_for("the machines are up");
    let vmms = running.host().vmms();
    assert_eq!(vmms.len(), 3);
    running.signal(Signal::SIGKILL);
    let killed = running.finish();
    assert_eq!(killed.signal(), Some(Signal::SIGKILL));
    vmms.iter().for_each(|vmm| vmm.assert_gone());
    assert_eq!(killed.host().run_dirs().len(), 1, "nobody was left to remove it");

    let next = Victim::new("passes").beside(killed.runs()).run().assert_passed();
    killed.assert_nothing_left();
    next.assert_nothing_left();
}

/// Kills a run at moments spread over its life; `VMTEST_INTERNAL_KILLS` says at how many.
#[test]
fn a_run_can_be_killed_at_any_moment() {
    let kills = std::env::var("VMTEST_INTERNAL_KILLS").map_or(20, |kills| kills.parse().expect("a number of kills"));
    let mut running = Victim::new("waits").start();
    let began = Instant::now();
    running.wait_for("the machines are up");
    let life = began.elapsed();
    running.signal(Signal::SIGKILL);
    let first = running.finish();
    for n in 0..kills {
        let running = Victim::new("waits").beside(first.runs()).start();
        std::thread::sleep(life * n / kills);
        let vmms = first.host().vmms();
        running.signal(Signal::SIGKILL);
        running.finish();
        vmms.iter().for_each(|vmm| vmm.assert_gone());
    }
    // Whoever was forked after the last look has died with its parent too.
    first.host().vmms().iter().for_each(|vmm| vmm.assert_gone());
    Victim::new("passes").beside(first.runs()).run().assert_passed().assert_nothing_left();
    first.assert_nothing_left();
}

#[test]
fn a_live_run_is_never_touched_by_another() {
    let mut running = Victim::new("waits").start();
    running.wait_for("the machines are up");
    let before = running.host().run_dirs();
    Victim::new("passes").beside(running.runs()).run().assert_passed().assert_nothing_left();
    assert_eq!(running.host().run_dirs(), before);
    assert_eq!(running.host().vmms().len(), 3);
    running.signal(Signal::SIGTERM);
    running.finish().assert_nothing_left();
}

#[test]
fn what_cannot_be_removed_fails_the_test() {
    // Among mounts of its own, which end with it: an ordinary user may make no others.
    let ended = Victim::within(&["unshare", "--mount"], "leaves_a_mount").run();
    let dirs = ended.host().run_dirs();
    let ended = ended.assert_failed_with(&["left behind on this host", &dirs[0].join("node").display().to_string()]);
    // What could not be removed then can be now.
    Victim::new("passes").beside(ended.runs()).run().assert_passed().assert_nothing_left();
    ended.assert_nothing_left();
}

/// What only a machine with a kernel of its own can show.
mod real {
    use super::*;

    #[test]
    fn a_guest_that_panics_fails_the_test_while_the_body_waits() {
        let mut running = Victim::new("guest_panics").start();
        running.wait_for("other lives");
        let said =
            ["node `node`: the guest's kernel panicked", "sysrq triggered crash", "last console lines", "Call Trace"];
        running.finish().assert_failed_with(&said).assert_nothing_left();
    }

    #[test]
    fn a_guest_that_joined_late_and_panics_fails_the_test() {
        let said = ["node `late`: the guest's kernel panicked", "sysrq triggered crash"];
        Victim::new("late_guest_panics").run().assert_failed_with(&said).assert_nothing_left();
    }

    #[test]
    fn a_command_on_a_machine_that_dies_ends_at_once() {
        let said = ["node `node`: the machine ended with exit code 0", "reboot: Power down"];
        Victim::new("guest_powers_off").run().assert_failed_with(&said).assert_nothing_left();
    }

    #[test]
    fn a_guest_that_panics_at_boot_fails_the_test() {
        let said = ["the guest's kernel panicked", "Kernel panic - not syncing", "last console lines"];
        Victim::new("guest_panics_at_boot").run().assert_failed_with(&said).assert_nothing_left();
    }

    #[test]
    fn a_machine_that_never_answers_names_its_rung() {
        let said = [
            "not all machines were ready within",
            "node `mute` waits for `network answers` after: VMM alive",
            "API answers",
            "kernel speaks",
            "last console lines",
            "Run /bin/sh as init process",
        ];
        Victim::new("never_answers").run().assert_failed_with(&said).assert_nothing_left();
    }
}
