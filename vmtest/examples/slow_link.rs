//! A machine behind a slow link. `cargo run --example slow_link`.

use std::time::Instant;

use vmtest::prelude::*;

/// What is sent, in kilobytes: at the link's rate it takes more than two seconds.
const KILOBYTES: u32 = 512;

fn main() -> Result {
    vmtest::enter_rootless()?;
    let slow = NodeSpec::new("slow").rate(2_000_000);
    Cluster::builder().name("slow link").node(slow).node(NodeSpec::new("fast")).run(async |cluster| {
        let mut took = Vec::new();
        for name in ["fast", "slow"] {
            let node = cluster.node(name)?;
            let began = Instant::now();
            node.write("/root/data", vec![0_u8; 1024 * KILOBYTES as usize]).await?;
            println!("{KILOBYTES} kB to {name} in {:.2} s", began.elapsed().as_secs_f64());
            took.push(began.elapsed());
        }
        // Two megabits a second, less what passes at once after a silence.
        if took[1] < Duration::from_secs(1) { Err(Failure::msg("the link was not slow")) } else { Ok(()) }
    })
}
