//! `cargo vmtest ls`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use vmtest::harness::control::{Description, RunState, Runs, runs, since_epoch};

use super::output::{Colour, line};

/// The form of `--json`, specified in `docs/control.md`.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    #[serde(flatten)]
    runs: &'a Runs,
}

/// Shows the live runs with their machines.
pub(crate) fn run(json: bool) -> Result<ExitCode, String> {
    let found = runs().map_err(|e| e.to_string())?;
    if json {
        let report = Report { version: VERSION, runs: &found };
        line(serde_json::to_string_pretty(&report).expect("a report is plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    if found == Runs::default() {
        line("no test runs now");
    }
    let now = since_epoch(SystemTime::now());
    found.runs.iter().for_each(|run| show(run, now));
    for silent in &found.silent {
        let test = silent.test.as_ref().map(|test| format!("  {test}")).unwrap_or_default();
        line(format_args!("{}{test}  {}: {}", silent.run, Colour::Red.of("does not answer"), silent.why));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(run: &Description, now: u64) {
    let for_how_long = |since: u64| {
        let seconds = Duration::from_millis(now.saturating_sub(since)).as_secs();
        if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
    };
    let state = match (run.state, &run.held) {
        (RunState::Held, Some(why)) => {
            let held = format!("held for {}", for_how_long(run.held_since.unwrap_or(now)));
            format!("{}: it {why}", Colour::Yellow.of(held))
        }
        (RunState::Booting, _) => format!("boots for {}", for_how_long(run.since)),
        (RunState::Ending, _) => "ends".to_owned(),
        _ if run.hold_asked => format!("runs for {}, and will be held", for_how_long(run.since)),
        _ => format!("runs for {}", for_how_long(run.since)),
    };
    let (id, test) = (Colour::Bold.of(&run.run), Colour::Bold.of(&run.test));
    line(format_args!("{id}  {test}  on {}, process {}, {state}", run.backend, run.pid));
    let width = run.nodes.iter().map(|node| node.name.len()).max().unwrap_or_default();
    for node in &run.nodes {
        let ips: Vec<_> = node.interfaces.iter().map(|interface| interface.ip.to_string()).collect();
        let waits = node.waits_for.as_ref().map(|rung| format!(", waits for `{rung}`")).unwrap_or_default();
        line(format_args!("  {:width$}  {:<11}  {}{waits}", node.name, ips.join(" "), node.state));
    }
}
