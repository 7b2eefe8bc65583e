//! `cargo vmtest bench`: what the framework costs, each figure beside what one would compare it with, taken in turns.

mod boot;
mod fixtures;
mod ssh;

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    /// Median, in seconds.
    seconds: f64,
    /// What it is compared with, and its median in seconds.
    beside: Option<(&'static str, f64)>,
    /// The figure over what it is compared with.
    ratio: Option<f64>,
}

/// Pairs of measurements, taken in turns.
#[derive(Debug, Default)]
struct Pairs {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Pairs {
    fn push(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    fn beside(self, name: &'static str, with: &'static str) -> Figure {
        let (ours, theirs) = (median(self.ours), median(self.theirs));
        Figure { name, seconds: ours, beside: Some((with, theirs)), ratio: Some(ours / theirs) }
    }
}

/// Measures everything.
pub(crate) fn run(pairs: u32, json: bool) -> Result<ExitCode, String> {
    if cfg!(debug_assertions) {
        return in_release(pairs, json);
    }
    crate::rootless()?;
    let say = |what: &str| {
        if !json {
            eprintln!("measuring {what}");
        }
    };
    say("fixture disks");
    let mut figures = fixtures::measure(pairs)?;
    say("boots");
    figures.extend(boot::measure(pairs)?);
    say("commands and copies");
    figures.extend(ssh::measure(pairs)?);
    if json {
        println!("{}", serde_json::to_string_pretty(&figures).map_err(|e| e.to_string())?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("medians of {pairs} pairs, taken in turns");
    for Figure { name, seconds, beside, ratio } in &figures {
        let beside = beside.map_or_else(String::new, |(with, seconds)| format!("{with} {:.2} ms", seconds * 1e3));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        println!("{name:<46}{:>10.2} ms{ratio:>8}  {beside}", seconds * 1e3);
    }
    Ok(ExitCode::SUCCESS)
}

/// A build without optimisation measures itself.
fn in_release(pairs: u32, json: bool) -> Result<ExitCode, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "cargo-vmtest", "--", "bench", "--pairs"]);
    command.arg(pairs.to_string()).args(json.then_some("--json"));
    let status = command.status().map_err(|e| format!("cannot run cargo: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn median(mut values: Vec<Duration>) -> f64 {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default().as_secs_f64()
}
