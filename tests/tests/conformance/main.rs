//! What every backend keeps to: one body of cases, run against each, left out only where a backend has declared that its
//! machines cannot do it. Prints a matrix in the end, and in the lab leaves it as a page of the docs.

mod cases;
mod devices;
mod faults;

use std::{
    env, fs,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Arguments, Trial};
use vmtest::{
    harness::{Backend, backends},
    plan::Capabilities,
    prelude::*,
};
use vmtest_tests::{Matrix, Outcome, kernel, today};

/// Where a program in the lab puts what shall be brought back.
const LAB_OUT: &str = "LAB_OUT";
/// The page of the docs there.
const PAGE: &str = "conformance.md";

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
    let cases: Vec<Case> = cases::CASES.iter().chain(devices::CASES).chain(faults::CASES).copied().collect();
    let mut matrix = Matrix::new(cases.iter().map(|case| case.name));
    for backend in &backends {
        let what = match &backend.found {
            Ok((what, _)) => what.clone(),
            Err(why) => format!("not here: {why}"),
        };
        matrix.add(backend.name, what);
    }
    let matrix = Arc::new(Mutex::new(matrix));
    let trials = backends.iter().flat_map(|backend| cases.iter().map(|case| trial(backend, *case, matrix.clone())));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let matrix = lock(&matrix);
    if arguments.list || !matrix.was_run() {
        return conclusion.exit_code();
    }
    print!("{}", matrix.text());
    if let Some(dir) = env::var_os(LAB_OUT)
        && let Err(e) = fs::write(Path::new(&dir).join(PAGE), matrix.page(&kernel(), &today()))
    {
        eprintln!("cannot write the matrix: {e}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trial(backend: &Backend, case: Case, matrix: Arc<Mutex<Matrix>>) -> Trial {
    let name = backend.name;
    let kept_from = match &backend.found {
        Err(_) if !backend.required => Some(Outcome::NotRun),
        Err(_) => None,
        Ok((_, capabilities)) if !(case.needs)(capabilities) => Some(Outcome::Undeclared),
        Ok(_) => None,
    };
    if let Some(why) = kept_from {
        lock(&matrix).note(case.name, name, why);
    }
    let absent = backend.found.as_ref().err().map(|why| format!("VMTEST_REQUIRE wants {name}: {why}"));
    let run = move || {
        lock(&matrix).note(case.name, name, Outcome::Failed);
        if let Some(why) = absent {
            return Err(why.into());
        }
        (case.run)(name).map_err(|failure| {
            let said = format!("{failure:?}");
            // In the lab all cases take an hour; whoever ends it before that shall have seen this.
            eprintln!("\n{name}::{}: {said}", case.name);
            said
        })?;
        lock(&matrix).note(case.name, name, Outcome::Passed);
        Ok(())
    };
    Trial::test(format!("{name}::{}", case.name), run).with_ignored_flag(kept_from.is_some())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
