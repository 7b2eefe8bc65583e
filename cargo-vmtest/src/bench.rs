//! `cargo vmtest bench`: what the framework costs, each figure beside what one would compare it with, taken in turns.

mod boot;
mod cloud_hypervisor;
mod debian;
mod evidence;
mod fixtures;
mod guest;
mod images;
mod kernels;
mod ssh;

use std::{
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;

use super::cargo::cargo;

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Our own memory beside three VMMs.
    Memory,
    /// What is kept of a run beside a run that keeps nothing.
    Artifacts,
    /// Fixture disks beside mkfs.ext4.
    Fixtures,
    /// Images of containers beside tar.
    Images,
    /// Boots on QEMU beside bare QEMUs, and fakes.
    Boots,
    /// The small kernel beside the distribution's, where it is in the cache.
    Kernels,
    /// Machines of a distribution on QEMU beside bare QEMUs with the same disks.
    Debian,
    /// Boots on cloud-hypervisor beside a bare one, where it runs: in the lab it does.
    CloudHypervisor,
    /// Commands and copies beside OpenSSH.
    Commands,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    /// Of times the median, in milliseconds; of memory MiB.
    value: f64,
    unit: &'static str,
    /// What it is compared with, and its value.
    beside: Option<(&'static str, f64)>,
    /// The figure over what it is compared with.
    ratio: Option<f64>,
    /// Between which values that is, with a confidence of 95 %, where it was looked at.
    between: Option<(f64, f64)>,
}

impl Figure {
    fn time(name: &'static str, values: Vec<Duration>) -> Self {
        Self { name, value: median(values), unit: "ms", beside: None, ratio: None, between: None }
    }

    fn size(name: &'static str, bytes: u64) -> Self {
        Self { name, value: bytes as f64 / f64::from(1 << 20), unit: "MiB", beside: None, ratio: None, between: None }
    }
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
        let theirs = median(self.theirs);
        let ours = Figure::time(name, self.ours);
        Figure { beside: Some((with, theirs)), ratio: Some(ours.value / theirs), ..ours }
    }

    /// The same with the median of the ratios: what disturbs one of a pair often disturbs the other too.
    fn paired(self, name: &'static str, with: &'static str) -> Figure {
        let mut ratios: Vec<_> = self
            .ours
            .iter()
            .zip(&self.theirs)
            .map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ratios.len() / 2).copied();
        Figure { ratio, between: around_median(&ratios), ..self.beside(name, with) }
    }
}

/// Measures ours, which is `true`, and what it is compared with. Which of them is first changes from pair to pair: what comes
/// second finds more in the kernel's caches, and the disk busy with what came first.
fn in_turns<T>(pair: u32, measure: impl Fn(bool) -> Result<T, String>) -> Result<[T; 2], String> {
    let ours_first = pair.is_multiple_of(2);
    let (first, second) = (measure(ours_first)?, measure(!ours_first)?);
    Ok(if ours_first { [first, second] } else { [second, first] })
}

/// Between which two of these sorted values their median is, with a confidence of 95 %: of each value it is as likely that it is
/// above the median as below, so that their number below is spread as that of heads of a coin. `None` for too few.
fn around_median(sorted: &[f64]) -> Option<(f64, f64)> {
    /// Half of the width of 95 % of a normal distribution, in half the root of the number of throws.
    const HALF_WIDTH: f64 = 0.98;
    let count = sorted.len() as f64;
    let half = HALF_WIDTH * count.sqrt();
    let (low, high) = ((count / 2.0 - half).floor(), (count / 2.0 + half).ceil());
    (low >= 0.0 && high < count).then(|| (sorted[low as usize], sorted[high as usize]))
}

/// Measures everything, or this alone.
pub(crate) fn run(pairs: u32, json: bool, only: Option<Part>) -> Result<ExitCode, String> {
    let in_lab = std::env::var_os("LAB_OUT").is_some();
    if cfg!(debug_assertions) && in_lab {
        eprintln!(
            "this is a build without optimisation, and the lab has nothing to make another: ship one of `--release`"
        );
    } else if cfg!(debug_assertions) {
        return in_release(pairs, json, only);
    }
    super::rootless()?;
    let mut figures = Vec::new();
    // Memory comes first: what was measured before would be in it.
    for part in Part::value_variants().iter().filter(|&&part| only.is_none_or(|only| only == part)) {
        if !json {
            eprintln!(
                "measuring {}",
                part.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned())
            );
        }
        match part {
            Part::Memory => figures.push(boot::memory()?),
            Part::Artifacts => figures.extend(evidence::measure(pairs)?),
            Part::Fixtures => figures.extend(fixtures::measure(pairs)?),
            Part::Images => figures.extend(images::measure(pairs)?),
            Part::Boots => figures.extend(boot::measure(pairs)?),
            Part::Kernels => match kernels::measure(pairs) {
                Err(why) if only.is_none() => eprintln!("nothing of the small kernel: {why}"),
                measured => figures.extend(measured?),
            },
            Part::Debian => figures.extend(debian::measure(pairs)?),
            Part::CloudHypervisor => match cloud_hypervisor::measure(pairs) {
                Err(why) if only.is_none() => eprintln!("nothing of cloud-hypervisor: {why}"),
                measured => figures.extend(measured?),
            },
            Part::Commands => figures.extend(ssh::measure(pairs)?),
        }
    }
    print(&figures, pairs, json)
}

/// Measures what it costs that artifacts are kept, in tests that somebody else has written.
pub(crate) fn of_tests(pairs: u32, json: bool, args: &[String]) -> Result<ExitCode, String> {
    print(&evidence::measure_tests(pairs, args)?, pairs, json)
}

fn print(figures: &[Figure], pairs: u32, json: bool) -> Result<ExitCode, String> {
    if json {
        println!("{}", serde_json::to_string_pretty(figures).map_err(|e| e.to_string())?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("medians of {pairs} pairs, taken in turns");
    for Figure { name, value, unit, beside, ratio, between } in figures {
        let beside = beside.map_or_else(String::new, |(with, value)| format!("{with} {value:.2} {unit}"));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let between = between.map_or_else(String::new, |(low, high)| format!(" ({low:.3} to {high:.3})"));
        println!("{name:<54}{value:>10.2} {unit:<3}{ratio:>8}{between}  {beside}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A build without optimisation measures itself.
fn in_release(pairs: u32, json: bool, only: Option<Part>) -> Result<ExitCode, String> {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "cargo-vmtest", "--", "bench", "--pairs"]);
    command.arg(pairs.to_string()).args(json.then_some("--json"));
    if let Some(part) = only.and_then(|part| part.to_possible_value()) {
        command.args(["--only", part.get_name()]);
    }
    let status = command.status().map_err(|e| format!("cannot run cargo: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a program that must succeed.
fn run_command(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("cannot run {program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

/// In milliseconds.
fn median(mut values: Vec<Duration>) -> f64 {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
}
