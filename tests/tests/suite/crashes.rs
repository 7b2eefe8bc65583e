//! A run that is killed at every step that it has, and what is left then: nothing, once the kernel and one reconcile
//! have done their part.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;
use vmtest_tests::{Ended, StandIn, Victim, private_cache};

/// Runs that are killed, and what cleans up after them.
mod victims {
    use vmtest::prelude::*;

    /// Where a run shall leave a second name of its journal, which is complete when the run is over.
    pub(super) const KEEP: &str = "VMTEST_INTERNAL_KEEP_JOURNAL";

    fn keep_journal(cluster: &Cluster) {
        if let Some(at) = std::env::var_os(KEEP) {
            let journal = vmtest_tests::run_dir(cluster.id()).join("journal.jsonl");
            std::fs::hard_link(journal, at).expect("the journal can have a second name");
        }
    }

    /// All kinds of records about several machines: from the start, late, and started again.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn several(#[node(disk = "16MiB")] first: Node, _second: Node, cluster: Cluster) -> Result {
        keep_journal(&cluster);
        cluster.add(NodeSpec::new("late")).await?;
        first.kill().await?;
        first.start().await?;
        Ok(())
    }

    /// All kinds of records about one machine.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn single(#[node(disk = "16MiB")] _node: Node, cluster: Cluster) {
        keep_journal(&cluster);
    }

    /// All kinds of records about what is in the host's network too, for which another one stands.
    #[vm_test(backend = "qemu, fake", network = "host", network("back"))]
    #[ignore = "run by many"]
    async fn hosted(_node: Node, cluster: Cluster) {
        keep_journal(&cluster);
    }

    /// All kinds of records about a way out by a pair of interfaces to the host's network, for which another one stands.
    #[vm_test(backend = "qemu, fake", egress = true)]
    #[ignore = "run by many"]
    async fn leaves(_node: Node, cluster: Cluster) {
        keep_journal(&cluster);
    }

    #[test]
    #[ignore = "run by many"]
    fn prunes() {
        let left = vmtest::harness::prune().expect("it can look").left();
        assert_eq!(left, Vec::<String>::new());
    }
}

const CRASH_AT: &str = "VMTEST_INTERNAL_CRASH_AT";
/// Which part of the steps is tried where machines take seconds to boot: every how-manieth.
const EVERY: &str = "VMTEST_INTERNAL_EVERY";
/// How many runs beside each other, of whose machines each takes half a core.
const WORKERS: usize = 4;

/// Where a run has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Own,
    Host,
    /// In the host's network for the way out of its own.
    WithAWayOut,
}

/// The run whose steps are tried, and the network in which it is started if that is not the host's.
struct Tried {
    victim: &'static str,
    network: Option<StandIn>,
    /// Every how-manieth of its steps is tried.
    every: usize,
}

impl Tried {
    /// A machine takes seconds to boot where it is emulated, so there is one of them then.
    fn new(place: Place) -> Self {
        let fakes = std::env::var("VMTEST_BACKEND").is_ok_and(|preferred| preferred.starts_with("fake"));
        let victim = match (place, fakes) {
            (Place::Host, _) => "hosted",
            (Place::WithAWayOut, _) => "leaves",
            (Place::Own, true) => "several",
            (Place::Own, false) => "single",
        };
        let network = (place != Place::Own).then(StandIn::new);
        // Otherwise a way out is no pair of interfaces.
        network.iter().for_each(StandIn::bridges_ask_no_filters);
        let every = std::env::var(EVERY).map_or(if fakes { 1 } else { 4 }, |every| every.parse().expect("a number"));
        Self { victim, network, every }
    }

    fn start(&self, name: &str, cache: &Path) -> Victim {
        let victim = self.network.as_ref().map_or_else(|| Victim::new(name), |network| network.victim(name));
        victim.with_cache(cache)
    }

    fn everything(&self) -> Option<String> {
        self.network.as_ref().map(StandIn::everything)
    }

    /// Runs it until it is killed at this step; the result is how long the kernel takes for its part.
    fn killed_at(&self, step: &str, cache: &Path) -> (Ended, Duration) {
        let killed = self.start(self.victim, cache).env(CRASH_AT, step).run();
        assert_eq!(killed.signal(), Some(Signal::SIGKILL), "not killed at {step}: {}", killed.text());
        let took = killed.host().await_the_kernel(namespace(&killed));
        (killed, took)
    }
}

/// The type of each record of a whole run and the kind of its effect, in their order, as its own journal says.
fn records_of_a_run(tried: &Tried, cache: &Path) -> Vec<Vec<String>> {
    let kept = TempDir::new().expect("a temporary directory");
    let journal = kept.path().join("journal.jsonl");
    let passed = tried.start(tried.victim, cache).env(victims::KEEP, &journal).run().assert_passed();
    passed.assert_nothing_left();
    let lines = fs::read_to_string(journal).expect("the journal was kept");
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let kind = |record: &Value| {
        let same = |other: &&Value| other["type"] == "intent" && other["id"] == record["id"];
        records.iter().find(same).and_then(|intent| word(&intent["effect"]["kind"]))
    };
    records.iter().map(|record| word(&record["type"]).into_iter().chain(kind(record)).collect()).collect()
}

/// A name for each of the records: type, kind, and the how-manieth of these it is.
fn steps(records: &[Vec<String>]) -> Vec<String> {
    let mut seen = BTreeMap::<String, u32>::new();
    let name = |names: &Vec<String>| {
        let number = seen.entry(names.join(":")).or_default();
        *number += 1;
        format!("{}:{number}", names.join(":"))
    };
    records.iter().map(name).collect()
}

/// The inode of the network namespace in which a run was killed, which it has printed.
fn namespace(killed: &Ended) -> u64 {
    let after = killed.text().split_once("in net:[").map(|(_, after)| after);
    let inode = after.and_then(|after| after.split_once(']')).and_then(|(inode, _)| inode.parse().ok());
    inode.unwrap_or_else(|| panic!("it does not say in which network it ends: {}", killed.text()))
}

fn prune(killed: &Ended, cache: &Path) -> Victim {
    Victim::new("prunes").beside(killed.runs()).env("VMTEST_CACHE", cache)
}

#[rstest]
#[case::own(Place::Own)]
#[case::hosts(Place::Host)]
#[case::with_a_way_out(Place::WithAWayOut)]
fn every_record_can_be_the_last(#[case] place: Place) {
    let cache = private_cache(|cache| drop(Victim::new("single").env("VMTEST_CACHE", cache).run().assert_passed()));
    let tried = Tried::new(place);
    let records = records_of_a_run(&tried, cache.path());
    for kind in ["begin", "intent", "done", "released"] {
        assert!(records.iter().any(|record| record[0] == kind), "a whole run has `{kind}` among {records:?}");
    }
    let by_pair = records.iter().any(|record| record.contains(&"host_forwarding".to_owned()));
    assert_eq!(by_pair, place == Place::WithAWayOut, "{records:?}");
    let steps = steps(&records).into_iter();
    let steps = steps.flat_map(|step| ["before", "during", "after"].map(|moment| format!("{moment}:{step}")));
    let queue = Mutex::new(steps.step_by(tried.every).collect::<Vec<_>>());
    let count = queue.lock().expect("nobody has panicked").len();
    let longest = Mutex::new((Duration::ZERO, String::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                // Its own, so that what another one has in the cache is not taken for something that was left.
                let cache = private_cache(|_| {});
                let tried = Tried::new(place);
                let before = tried.everything();
                loop {
                    let Some(step) = queue.lock().expect("nobody has panicked").pop() else { return };
                    let (killed, took) = tried.killed_at(&step, cache.path());
                    // From another network than that of a hosted run.
                    drop(prune(&killed, cache.path()).run().assert_passed());
                    killed.assert_nothing_left();
                    assert_eq!(tried.everything(), before, "after {step}");
                    let mut longest = longest.lock().expect("nobody has panicked");
                    if took > longest.0 {
                        *longest = (took, step);
                    }
                }
            });
        }
    });
    let (took, step) = longest.into_inner().expect("nobody has panicked");
    println!("killed at {count} steps; the kernel took at most {took:?}, after {step}");
}

#[rstest]
#[case::own(Place::Own)]
#[case::hosts(Place::Host)]
#[case::with_a_way_out(Place::WithAWayOut)]
fn a_reconcile_that_is_killed_is_finished_by_the_next(#[case] place: Place) {
    let tried = Tried::new(place);
    let before = tried.everything();
    let cache = private_cache(|cache| drop(Victim::new("single").env("VMTEST_CACHE", cache).run().assert_passed()));
    let records = records_of_a_run(&tried, cache.path());
    let first = records.iter().position(|record| record[0] == "released").expect("a whole run releases something");
    let last = steps(&records)[first].clone();
    // Kinds in the order in which the last of each is undone: the processes, and then what was made first at the end.
    let made = records.iter().filter(|record| record[0] == "intent").map(|record| record[1].clone());
    let mut kinds = Vec::new();
    made.for_each(|kind| {
        if !kinds.contains(&kind) {
            kinds.push(kind)
        }
    });
    kinds.reverse();
    kinds.sort_by_key(|kind| kind != "process");
    for moment in ["before", "during", "after"] {
        let (killed, _) = tried.killed_at(&format!("before:{last}"), cache.path());
        for kind in &kinds {
            let step = format!("{moment}:released:{kind}");
            let reconcile = prune(&killed, cache.path()).env(CRASH_AT, &step).run();
            assert_eq!(reconcile.signal(), Some(Signal::SIGKILL), "not killed at {step}: {}", reconcile.text());
        }
        drop(prune(&killed, cache.path()).run().assert_passed());
        killed.assert_nothing_left();
        assert_eq!(tried.everything(), before);
    }
}

/// Two suites and a loop of prunes in one place; some of the runs are killed. `VMTEST_INTERNAL_ROUNDS` says how often
/// each suite runs.
#[test]
fn runs_and_prunes_beside_each_other_lose_nothing() {
    let rounds =
        std::env::var("VMTEST_INTERNAL_ROUNDS").map_or(12, |rounds| rounds.parse().expect("a number of rounds"));
    let (runs, cache) = (TempDir::new().expect("a temporary directory"), private_cache(|_| {}));
    let (runs, cache) = (runs.path(), cache.path());
    let victim = |name: &str| Victim::new(name).beside(runs).env("VMTEST_CACHE", cache);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let suite = || {
            for round in 0..rounds {
                if round % 4 == 3 {
                    let killed = victim("single").env(CRASH_AT, "after:done:process").run();
                    assert_eq!(killed.signal(), Some(Signal::SIGKILL), "{}", killed.text());
                } else {
                    drop(victim("single").run().assert_passed());
                }
            }
        };
        let suites = [scope.spawn(suite), scope.spawn(suite)];
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                drop(victim("prunes").run().assert_passed());
            }
        });
        let ended = suites.map(thread::ScopedJoinHandle::join);
        over.store(true, Ordering::SeqCst);
        ended.into_iter().for_each(|ended| ended.expect("no run was lost"));
    });
    drop(victim("prunes").run().assert_passed());
    let names = |place: PathBuf| {
        let entries = fs::read_dir(place).expect("it is there").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<BTreeSet<_>>()
    };
    let nothing = BTreeSet::new();
    assert_eq!(names(runs.to_owned()), ["lease", "registry.lock"].map(str::to_owned).into());
    assert_eq!(names(cache.join("scratch")), ["registry.lock"].map(str::to_owned).into());
    assert_eq!([names(runs.join("lease/claims")), names(runs.join("lease/queue"))], [nothing.clone(), nothing]);
}
