//! What it costs that everything is kept of a run.

use std::time::Instant;

use vmtest::{Cluster, spec::NodeSpec};

use super::{Figure, Pairs};

/// A run of one fake takes some ten milliseconds, and differs by as much on a host that does something else too.
const RUNS_IN_A_PAIR: u32 = 20;

/// The smallest test there is, with its timeline and artifacts and without.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let mut kept = Pairs::default();
    // The first one finds nothing in the kernel's caches.
    one(true)?;
    for pair in 0..pairs * RUNS_IN_A_PAIR {
        // Whoever comes second finds more of them.
        let (first, second) = (one(pair % 2 == 0)?, one(pair % 2 != 0)?);
        let (ours, theirs) = if pair % 2 == 0 { (first, second) } else { (second, first) };
        kept.push(ours, theirs);
    }
    Ok(vec![kept.paired("one fake and a command, with what is kept of it", "without")])
}

fn one(keep: bool) -> Result<std::time::Duration, String> {
    let cluster = Cluster::builder().name("bench").backend("fake").node(NodeSpec::new("node")).keep(keep);
    let began = Instant::now();
    let run = cluster.run(async |cluster| cluster.node("node")?.sh("true").await.map(drop));
    run.map_err(|e| e.to_string())?;
    Ok(began.elapsed())
}
