//! What every backend keeps to: one body of cases, run against each, left out only where a backend has declared that its
//! machines cannot do it. Prints a matrix in the end.

mod cases;
mod devices;
mod faults;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Trial};
use vmtest::{
    harness::{Backend, backends},
    plan::Capabilities,
    prelude::*,
};

/// One thing that every backend keeps to.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// A sentence, in the form of a test's name.
    pub(crate) name: &'static str,
    /// What a backend must have declared for it.
    pub(crate) needs: fn(&Capabilities) -> bool,
    /// Runs it on the backend of this name.
    pub(crate) run: fn(&str) -> Result,
}

/// How each case has ended on each backend.
type Results = Arc<Mutex<BTreeMap<(&'static str, &'static str), &'static str>>>;

const PASSED: &str = "ok";
const FAILED: &str = "FAILED";
const INCAPABLE: &str = "-";
const ABSENT: &str = "not here";

fn main() -> ExitCode {
    // Where that is refused, the matrix says why.
    drop(vmtest::enter_rootless());
    let arguments = Arguments::from_args();
    let backends = match backends() {
        Ok(backends) => backends,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let results = Results::default();
    let cases: Vec<Case> = cases::CASES.iter().chain(devices::CASES).chain(faults::CASES).copied().collect();
    let trials = backends.iter().flat_map(|backend| cases.iter().map(|case| trial(backend, *case, results.clone())));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        print_matrix(&backends, &cases, &results);
    }
    conclusion.exit_code()
}

fn trial(backend: &Backend, case: Case, results: Results) -> Trial {
    let name = backend.name;
    let kept_from = match &backend.found {
        Err(_) if !backend.required => Some(ABSENT),
        Err(_) => None,
        Ok((_, capabilities)) if !(case.needs)(capabilities) => Some(INCAPABLE),
        Ok(_) => None,
    };
    if let Some(why) = kept_from {
        lock(&results).insert((case.name, name), why);
    }
    let absent = backend.found.as_ref().err().map(|why| format!("VMTEST_REQUIRE names {name}: {why}"));
    let run = move || {
        lock(&results).insert((case.name, name), FAILED);
        if let Some(why) = absent {
            return Err(why.into());
        }
        (case.run)(name).map_err(|failure| format!("{failure:?}"))?;
        lock(&results).insert((case.name, name), PASSED);
        Ok(())
    };
    Trial::test(format!("{name}::{}", case.name), run).with_ignored_flag(kept_from.is_some())
}

fn print_matrix(backends: &[Backend], cases: &[Case], results: &Results) {
    let results = lock(results);
    if results.values().all(|result| [INCAPABLE, ABSENT].contains(result)) {
        return;
    }
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or_default();
    for backend in backends {
        match &backend.found {
            Ok((what, _)) => println!("{}: {what}", backend.name),
            Err(why) => println!("{}: not here: {why}", backend.name),
        }
    }
    let row = |first: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = backends.iter().zip(cells).map(|(backend, cell)| {
            let width = backend.name.len().max(ABSENT.len());
            format!("  {cell:<width$}")
        });
        println!("{first:width$}{}", cells.collect::<String>());
    };
    row("", &mut backends.iter().map(|backend| backend.name));
    for case in cases {
        let cell = |backend: &Backend| results.get(&(case.name, backend.name)).copied().unwrap_or("not run");
        row(case.name, &mut backends.iter().map(cell));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
