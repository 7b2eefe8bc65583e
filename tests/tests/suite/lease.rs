//! Many test processes on one host: together they never take more than there is, and nobody waits for the dead.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::{Claims, Running, Seen, Victim};

/// What a fake machine takes.
const MACHINE: u64 = 4 << 20;
/// Longer than the timeout of the victims that wait, which is six seconds: fakes need a fiftieth of that.
const LONGER_THAN_A_TIMEOUT: Duration = Duration::from_secs(7);

/// Tests that share a host, each run by tests below in processes of their own.
mod victims {
    use std::{future::pending, io::Write};

    use vmtest::{evidence::Event, prelude::*, spec::Budget};

    /// Where those that were served write their names.
    const ORDER: &str = "VMTEST_INTERNAL_ORDER";
    /// What is there once those who wait for it may go on.
    const GO: &str = "VMTEST_INTERNAL_GO";

    async fn told_to_go() -> Result {
        let go = std::env::var(GO)?;
        let there = async || std::fs::metadata(&go).map(drop);
        eventually("the test says go", Duration::from_secs(60), there).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn works([_a, _b, _c]: [Node; 3]) {}

    #[vm_test(backend = "fake")]
    #[ignore = "run by processes_that_ask_for_three_times_the_budget_all_pass_and_never_exceed_it"]
    async fn works_when_told([_a, _b, _c]: [Node; 3]) -> Result {
        told_to_go().await
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn holds([_a, _b, _c]: [Node; 3]) {
        println!("the machines are up");
        pending::<()>().await;
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn is_served([_a, _b, _c]: [Node; 3]) -> Result {
        let order = std::env::var(ORDER)?;
        let line = std::env::var("VMTEST_INTERNAL_NAME")? + "\n";
        std::fs::OpenOptions::new().create(true).append(true).open(order)?.write_all(line.as_bytes())?;
        Ok(())
    }

    #[vm_test(backend = "fake", timeout = "6s")]
    #[ignore = "run by a_long_wait_is_shown_and_does_not_count_against_the_timeout"]
    async fn has_little_time([_a, _b, _c]: [Node; 3]) {}

    #[vm_test(backend = "fake", timeout = "6s")]
    #[ignore = "run by what_is_waited_for_late_machines_does_not_count_either"]
    async fn adds_at_once(_node: Node, cluster: Cluster) -> Result {
        println!("the machines are up");
        cluster.add(NodeSpec::new("late")).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by of_two_tests_that_wait_for_each_other_one_fails_and_one_passes"]
    async fn adds_when_told(_node: Node, cluster: Cluster) -> Result {
        println!("the machines are up");
        told_to_go().await?;
        cluster.add(NodeSpec::new("late")).await?;
        Ok(())
    }

    #[vm_test(backend = "fake", budget(nodes = 2))]
    #[ignore = "run by what_a_test_keeps_for_late_machines_is_there_when_they_come"]
    async fn keeps_room(_node: Node, cluster: Cluster) -> Result {
        println!("the machines are up");
        told_to_go().await?;
        // Twice, because what a machine had that is gone is there for the next one.
        for _ in 0..2 {
            let late = cluster.add_all([NodeSpec::new("late1"), NodeSpec::new("late2")]).await?;
            for node in &late {
                node.kill().await?;
                cluster.remove(node).await?;
            }
        }
        Ok(())
    }

    #[vm_test]
    #[ignore = "run by machines_that_need_the_whole_host_run_one_after_the_other"]
    async fn boots(_node: Node) {}

    #[test]
    #[ignore = "run by a_program_sees_who_holds_what"]
    fn is_observed() {
        let observe = |event: &Event| println!("{}", serde_json::to_string(event).expect("an event is data"));
        let cluster = Cluster::builder().name("observed").backend("fake").node(NodeSpec::new("a"));
        cluster.budget(Budget::nodes(1)).observe(observe).run(async |_| ()).expect("it passes");
    }
}

fn budget(machines: u64) -> String {
    format!("memory={}MiB", (machines * MACHINE) >> 20)
}

/// A victim that runs with room for so many machines.
fn victim(name: &str, machines: u64) -> Victim {
    Victim::new(name).env("VMTEST_BUDGET", budget(machines))
}

/// One that has all of the room there is, and its claims.
fn holder(machines: u64) -> (Running, Claims) {
    let mut holder = victim("holds", machines).start();
    holder.wait_for("the machines are up");
    let claims = Claims::of(holder.runs());
    (holder, claims)
}

/// One that waits for the holder and then writes its name; it is in the queue when this returns.
fn waiter(name: &str, runs: &Path, order: &Path, claims: &Claims) -> Running {
    let (_, before) = claims.look();
    let waiter = victim("is_served", 3).beside(runs).env("VMTEST_INTERNAL_ORDER", order);
    let running = waiter.env("VMTEST_INTERNAL_NAME", name).start();
    claims.until(|_, queue| queue > before);
    running
}

#[test]
fn processes_that_ask_for_three_times_the_budget_all_pass_and_never_exceed_it() {
    // Two at once and a part of a third: eight clusters of three machines ask for 24 of 8.
    let whole = 8 * MACHINE;
    let go = tempfile::tempdir().expect("a directory");
    let go = go.path().join("go");
    let works = || victim("works_when_told", 8).env("VMTEST_INTERNAL_GO", &go);
    let first = works().start();
    let runs = first.runs().to_owned();
    let claims = Claims::of(&runs);
    let mut running = vec![first];
    running.extend((1..8).map(|_| works().beside(&runs).start()));
    let sum = |held: &[Seen]| held.iter().map(|claim| claim.memory).sum::<u64>();
    claims.until(|held, queue| {
        assert!(sum(held) <= whole, "{held:?}");
        sum(held) == 6 * MACHINE && queue == 6
    });
    fs::write(&go, "").expect("it can be written");
    claims.until(|held, queue| {
        assert!(sum(held) <= whole, "{held:?}");
        held.is_empty() && queue == 0
    });
    let ended: Vec<_> = running.into_iter().map(|running| running.finish().assert_passed()).collect();
    ended[0].assert_nothing_left();
}

#[test]
fn whoever_came_first_is_served_first_and_the_dead_are_skipped() {
    let (holder, claims) = holder(3);
    let (runs, order) = (holder.runs().to_owned(), tempfile::NamedTempFile::new().expect("a file"));
    let mut waiters: Vec<_> =
        ["1", "2", "3", "4"].iter().map(|name| waiter(name, &runs, order.path(), &claims)).collect();
    assert_eq!(claims.look().1, 4);
    // In the middle of the queue, and without a word to those behind it.
    let dead = waiters.remove(1);
    dead.signal(Signal::SIGKILL);
    assert_eq!(dead.finish().signal(), Some(Signal::SIGKILL));
    holder.signal(Signal::SIGTERM);
    let held = holder.finish();
    for waiter in waiters {
        _ = waiter.finish().assert_passed();
    }
    assert_eq!(fs::read_to_string(order.path()).expect("they wrote it"), "1\n3\n4\n");
    held.assert_nothing_left();
}

#[test]
fn a_killed_holder_frees_its_share_at_once() {
    let (holder, claims) = holder(3);
    let (runs, order) = (holder.runs().to_owned(), tempfile::NamedTempFile::new().expect("a file"));
    let waiter = waiter("next", &runs, order.path(), &claims);
    let (held, _) = claims.look();
    let killed = Instant::now();
    holder.signal(Signal::SIGKILL);
    claims.until(|now, _| now.first().is_some_and(|claim| claim.pid != held[0].pid));
    println!("the next one has its share {:?} after the kill", killed.elapsed());
    _ = waiter.finish().assert_passed();
    let ended = holder.finish();
    // The rest of it is removed by the next run that begins.
    Victim::new("works").beside(&runs).run().assert_passed().assert_nothing_left();
    ended.assert_nothing_left();
}

#[rstest]
#[case(Signal::SIGINT)]
#[case(Signal::SIGTERM)]
fn a_signal_ends_a_test_that_waits(#[case] signal: Signal) {
    let (holder, claims) = holder(3);
    let (runs, order) = (holder.runs().to_owned(), tempfile::NamedTempFile::new().expect("a file"));
    let waiter = waiter("ends", &runs, order.path(), &claims);
    waiter.signal(signal);
    assert_eq!(waiter.finish().signal(), Some(signal));
    assert_eq!(claims.look().1, 0);
    holder.signal(Signal::SIGTERM);
    holder.finish().assert_nothing_left();
}

#[test]
fn a_cluster_larger_than_the_budget_is_refused_with_its_remedy() {
    let said = [
        "`lease::victims::works` cannot run: its machines take 12.0 MiB of memory",
        "VMTEST_BUDGET has 8.0 MiB for machines",
        "VMTEST_BUDGET=\"memory=12MiB\"",
    ];
    victim("works", 2).run().assert_failed_with(&said).assert_nothing_left();
    let said = ["`lease::victims::keeps_room` cannot run: its machines take 12.0 MiB of memory"];
    victim("keeps_room", 2).run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_wrong_budget_is_refused_with_the_valid_forms() {
    let said =
        ["VMTEST_BUDGET: `ram=8GiB` is no part of a budget: give any of `memory=8GiB`, `cpus=8` and `disk=20GiB`"];
    Victim::new("works").env("VMTEST_BUDGET", "ram=8GiB").run().assert_failed_with(&said).assert_nothing_left();
}

/// Its output is captured, as in any run of `cargo test`, and it passes: only what goes past the capture is there.
#[test]
fn a_long_wait_is_shown_and_does_not_count_against_the_timeout() {
    let (holder, claims) = holder(3);
    let captured = Victim::within(&["sh", "-c", "exec \"$0\" \"$1\" --exact --ignored"], "has_little_time");
    let waiter = captured.beside(holder.runs()).env("VMTEST_BUDGET", budget(3)).start();
    claims.until(|_, queue| queue == 1);
    let (held, _) = claims.look();
    thread::sleep(LONGER_THAN_A_TIMEOUT);
    holder.signal(Signal::SIGTERM);
    let freed = holder.finish();
    let ended = waiter.finish().assert_passed();
    assert!(ended.took() > LONGER_THAN_A_TIMEOUT);
    let begins = "vmtest: lease::victims::has_little_time waits for 12.0 MiB of memory, of 12.0 MiB of memory in all: ";
    let holds = format!("`lease::victims::holds` (pid {}) holds 12.0 MiB of memory\n", held[0].pid);
    for said in [begins, &holds, "vmtest: lease::victims::has_little_time goes on, after "] {
        assert!(ended.text().contains(said), "it does not say `{said}`:\n{}", ended.text());
    }
    freed.assert_nothing_left();
}

#[test]
fn what_is_waited_for_late_machines_does_not_count_either() {
    let (holder, claims) = holder(4);
    let mut waiter = victim("adds_at_once", 4).beside(holder.runs()).start();
    waiter.wait_for("the machines are up");
    claims.until(|held, _| held.iter().any(|claim| claim.waits));
    thread::sleep(LONGER_THAN_A_TIMEOUT);
    holder.signal(Signal::SIGTERM);
    let held = holder.finish();
    let ended = waiter.finish().assert_passed();
    assert!(
        ended.text().contains("vmtest: lease::victims::adds_at_once waits for 4.0 MiB of memory"),
        "{}",
        ended.text()
    );
    held.assert_nothing_left();
}

#[test]
fn of_two_tests_that_wait_for_each_other_one_fails_and_one_passes() {
    let go = tempfile::tempdir().expect("a directory");
    let start = |name: &str, victim: Victim| {
        let mut running = victim.env("VMTEST_INTERNAL_GO", go.path().join(name)).start();
        running.wait_for("the machines are up");
        running
    };
    let tell = |name: &str| fs::write(go.path().join(name), "").expect("it can be written");
    let first = start("first", victim("adds_when_told", 2));
    let last = start("last", victim("adds_when_told", 2).beside(first.runs()));
    let claims = Claims::of(first.runs());
    tell("first");
    claims.until(|held, _| held.iter().any(|claim| claim.waits));
    tell("last");
    let said = [
        "there is no room for the machines that join: they need 4.0 MiB of memory beside the 4.0 MiB",
        "and waits for more as well",
        "budget(nodes = ..)",
    ];
    last.finish().assert_failed_with(&said).assert_nothing_left();
    first.finish().assert_passed().assert_nothing_left();
}

#[test]
fn what_a_test_keeps_for_late_machines_is_there_when_they_come() {
    let go = tempfile::tempdir().expect("a directory");
    let go = go.path().join("go");
    let mut keeps = victim("keeps_room", 6).env("VMTEST_INTERNAL_GO", &go).start();
    keeps.wait_for("the machines are up");
    let claims = Claims::of(keeps.runs());
    assert_eq!(claims.look().0[0].memory, 3 * MACHINE);
    // All the rest is taken, for longer than the test takes.
    let mut holder = victim("holds", 6).beside(keeps.runs()).start();
    holder.wait_for("the machines are up");
    fs::write(&go, "").expect("it can be written");
    let kept = keeps.finish().assert_passed();
    holder.signal(Signal::SIGTERM);
    holder.finish();
    kept.assert_nothing_left();
}

#[test]
fn a_program_sees_who_holds_what() {
    let (holder, claims) = holder(3);
    let mut observed = victim("is_observed", 3).beside(holder.runs()).start();
    observed.wait_for("\"event\":\"waiting\"");
    let (held, queue) = claims.look();
    assert_eq!(queue, 1);
    holder.signal(Signal::SIGTERM);
    let freed = holder.finish();
    let ended = observed.finish().assert_passed();
    let events = ended.text().lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let events: Vec<_> = events.collect();
    let waiting = &events[0];
    assert_eq!(waiting["wants"]["memory"], 2 * MACHINE);
    assert_eq!(waiting["budget"]["memory"], 3 * MACHINE);
    assert_eq!(waiting["holders"][0]["test"], "lease::victims::holds");
    assert_eq!(waiting["holders"][0]["pid"], held[0].pid);
    assert_eq!(waiting["holders"][0]["memory"], 3 * MACHINE);
    assert_eq!(waiting["ahead"], 0);
    let granted = events.iter().find(|event| event["event"] == "granted").expect("it has got its share");
    assert!(granted["waited"].as_f64().is_some_and(|seconds| seconds > 0.0));
    freed.assert_nothing_left();
}

/// What only machines with memory of their own can show.
mod real {
    use super::*;

    #[test]
    fn machines_that_need_the_whole_host_run_one_after_the_other() {
        let one_and_a_half = "memory=500MiB";
        let first = Victim::new("boots").env("VMTEST_BUDGET", one_and_a_half).start();
        let second = Victim::new("boots").env("VMTEST_BUDGET", one_and_a_half).beside(first.runs()).start();
        let claims = Claims::of(first.runs());
        let mut served = std::collections::BTreeSet::new();
        claims.until(|held, _| {
            assert!(held.len() <= 1, "{held:?}");
            served.extend(held.iter().map(|claim| (claim.pid, claim.memory)));
            served.len() == 2 && held.is_empty()
        });
        // Its own memory and what the VMM needs.
        assert!(served.iter().all(|(_, memory)| (256 << 20..500 << 20).contains(memory)), "{served:?}");
        _ = second.finish().assert_passed();
        first.finish().assert_passed().assert_nothing_left();
    }
}
