//! What it costs that everything is kept of a run.

use std::{
    env,
    ffi::OsStr,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use vmtest::{Cluster, evidence::KEEP_NOTHING, spec::NodeSpec};

use super::{
    super::binaries::{TestBinary, build},
    Figure, Pairs, in_turns,
};

/// A run of fakes takes some ten milliseconds, and differs by as much on a host that does something else too.
const RUNS_IN_A_PAIR: u32 = 20;
/// A cluster of a usual test, and what it does.
const USUAL: (usize, usize) = (3, 20);

/// The smallest test there is and a usual one, with timelines and artifacts and without. Their processors' time is compared,
/// that of their machines included: time on a clock differs by more than what is looked for, and nothing that is written waits
/// for a disk.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let (of_one, of_many) = (compare(pairs, 1, 1)?, compare(pairs, USUAL.0, USUAL.1)?);
    Ok(vec![
        of_one.processors.paired("processors' time of a fake and a command, kept", "without"),
        of_one.clock.paired("the same on a clock", "without"),
        of_many.processors.paired("processors' time of 3 fakes and 20 commands, kept", "without"),
        of_many.clock.paired("the same on a clock", "without"),
    ])
}

/// Pairs of runs with what is kept of them and without, by both measures.
#[derive(Default)]
struct Compared {
    processors: Pairs,
    clock: Pairs,
}

impl Compared {
    /// With what is kept, and without: time of the processors and on a clock.
    fn push(&mut self, [(work, took), (without, took_without)]: [(Duration, Duration); 2]) {
        self.processors.push(work, without);
        self.clock.push(took, took_without);
    }
}

fn compare(pairs: u32, nodes: usize, commands: usize) -> Result<Compared, String> {
    let mut compared = Compared::default();
    // The first one finds nothing in the kernel's caches.
    one(true, nodes, commands)?;
    for pair in 0..pairs * RUNS_IN_A_PAIR {
        compared.push(in_turns(pair, |keep| one(keep, nodes, commands))?);
    }
    Ok(compared)
}

/// Tests that somebody has written, which `cargo test` would run with these arguments: all of them together, with what is kept
/// of them and without.
pub(super) fn measure_tests(pairs: u32, args: &[String]) -> Result<Vec<Figure>, String> {
    let mut parts = args.splitn(2, |arg| arg == "--");
    let (chosen, filter) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let binaries = build(chosen)?;
    let kept = tempfile::tempdir().map_err(|e| format!("cannot make a directory for artifacts: {e}"))?;
    let tests =
        |keep: bool| tests(&binaries, filter, if keep { kept.path().as_os_str() } else { KEEP_NOTHING.as_ref() });
    // The first one makes images and disks.
    tests(true)?;
    let mut compared = Compared::default();
    for pair in 0..pairs {
        compared.push(in_turns(pair, tests)?);
    }
    Ok(vec![
        compared.processors.paired("processors' time of these tests, kept", "without"),
        compared.clock.paired("the same on a clock", "without"),
    ])
}

/// How much time of the processors all tests of these binaries take, and how much on a clock.
fn tests(binaries: &[TestBinary], filter: &[String], artifacts: &OsStr) -> Result<(Duration, Duration), String> {
    let (used, began) = (used()?, Instant::now());
    for binary in binaries {
        let mut command = binary.command();
        command.args(filter);
        command.env("VMTEST_ARTIFACTS", artifacts).stdout(Stdio::null()).stderr(Stdio::null());
        if env::var_os("VMTEST_BACKEND").is_none() {
            command.env("VMTEST_BACKEND", "fake");
        }
        let status = command.status().map_err(|e| format!("cannot run {}: {e}", binary.path.display()))?;
        if !status.success() {
            let how = artifacts.display();
            return Err(format!("tests of `{}` fail, with VMTEST_ARTIFACTS={how}: {status}", binary.target));
        }
    }
    Ok((self::used()?.saturating_sub(used), began.elapsed()))
}

/// How much time of the processors a run takes, and how much on a clock.
fn one(keep: bool, nodes: usize, commands: usize) -> Result<(Duration, Duration), String> {
    let cluster = Cluster::builder().name("bench").backend("fake").keep(keep);
    let cluster = (0..nodes).fold(cluster, |cluster, n| cluster.node(NodeSpec::new(format!("node{n}"))));
    let (used, began) = (used()?, Instant::now());
    let run = cluster.run(async move |cluster| {
        let nodes = cluster.nodes();
        for node in nodes.iter().cycle().take(commands) {
            node.sh("true").await?;
        }
        Ok::<_, vmtest::Error>(())
    });
    run.map_err(|e| e.to_string())?;
    let took = began.elapsed();
    Ok((self::used()?.saturating_sub(used), took))
}

/// What this process and those that it has waited for have used of the processors until now.
fn used() -> Result<Duration, String> {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].into_iter().try_fold(Duration::ZERO, |sum, who| {
        let usage = getrusage(who).map_err(|e| format!("cannot ask how much time was used: {e}"))?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Ok(sum + Duration::from_micros(micros.unsigned_abs()))
    })
}
