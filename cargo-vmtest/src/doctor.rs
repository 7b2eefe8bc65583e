//! `cargo vmtest doctor`.

use std::process::ExitCode;

use serde::Serialize;
use vmtest::{
    harness::{
        Backend, backends,
        doctor::{Check, Health, checks, program},
    },
    spec::Capability,
};

use super::{
    install::{self, Purpose},
    output::{Colour, line},
};

/// The form of `--json`.
const VERSION: u32 = 1;

/// Programs that some commands call, with what they are for and their packages; those without which no machine runs are
/// looked at by `install`.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("ssh", "`cargo vmtest ssh`", "openssh-client"),
    ("newuidmap", "fake machines without root", "uidmap"),
    ("cargo-nextest", "`cargo vmtest test --nextest`", "`cargo install cargo-nextest --locked`"),
];

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    /// Whether every test can run that needs nothing special.
    ready: bool,
    checks: &'a [Check],
    backends: &'a [Matrix],
}

/// A row of the matrix of backends and capabilities.
#[derive(Serialize)]
struct Matrix {
    name: &'static str,
    /// Name, version and accelerator.
    found: Option<String>,
    /// Why it cannot run here.
    why_not: Option<String>,
    /// What its machines can do.
    can: Vec<&'static str>,
}

/// Looks at everything that tests need; fails when no test could run.
pub(crate) fn run(json: bool, fix: bool) -> Result<ExitCode, String> {
    let fixed = if fix { install::ensure(true, Purpose::Everything) } else { Ok(()) };
    // As tests are; what keeps this from it is what one of the checks says.
    drop(vmtest::enter_rootless());
    let mut all = checks().map_err(|e| e.to_string())?;
    all.push(match install::ensure(false, Purpose::Tests) {
        Ok(()) => Check::new("programs", Health::Good, "everything is there that tests call"),
        Err(why) => Check::new("programs", Health::Missing, why),
    });
    all.extend(PROGRAMS.iter().map(|(name, what, package)| match program(name) {
        Some(path) => Check::new(*name, Health::Good, path.display().to_string()),
        None => Check::new(*name, Health::Limited, format!("not found, which {what} calls: install {package}")),
    }));
    let backends: Vec<_> = backends().map_err(|e| e.to_string())?.iter().map(matrix).collect();
    let some = backends.iter().any(|backend| backend.found.is_some());
    if !some {
        all.push(Check::new("backends", Health::Missing, "none runs here, for the reasons below"));
    }
    let ready = all.iter().all(|check| check.health != Health::Missing);
    if json {
        let report = Report { version: VERSION, ready, checks: &all, backends: &backends };
        line(serde_json::to_string_pretty(&report).expect("a report is plain data"));
    } else {
        all.iter().for_each(show);
        show_matrix(&backends);
    }
    fixed?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn matrix(backend: &Backend) -> Matrix {
    let can = |of: &dyn Fn(Capability) -> bool| {
        Capability::ALL.iter().filter(|&&capability| of(capability)).map(|capability| capability.name()).collect()
    };
    match &backend.found {
        Ok((found, capabilities)) => Matrix {
            name: backend.name,
            found: Some(found.clone()),
            why_not: None,
            can: can(&|capability| capabilities.has(capability)),
        },
        Err(why) => Matrix { name: backend.name, found: None, why_not: Some(why.to_string()), can: Vec::new() },
    }
}

fn show(check: &Check) {
    let mark = match check.health {
        Health::Good => Colour::Green.of("good   "),
        Health::Limited => Colour::Yellow.of("limited"),
        _ => Colour::Red.of("missing"),
    };
    line(format_args!("{mark}  {:<15}  {}", check.name, check.found.replace('\n', "\n                          ")));
}

fn show_matrix(backends: &[Matrix]) {
    let names: Vec<_> = Capability::ALL.iter().map(|capability| capability.name()).collect();
    line(format_args!("\n{:<16}  {}", "", names.join("  ")));
    for backend in backends {
        let mut row = format!("{:<16}", backend.name);
        for name in &names {
            let cell = if backend.can.contains(name) { "yes" } else { "-" };
            row += &format!("  {cell:<width$}", width = name.len());
        }
        line(row.trim_end());
    }
    for backend in backends {
        match (&backend.found, &backend.why_not) {
            (Some(found), _) => line(format_args!("{}: {found}", backend.name)),
            (None, why) => {
                line(format_args!("{} cannot run here: {}", backend.name, why.as_deref().unwrap_or_default()))
            }
        }
    }
}
