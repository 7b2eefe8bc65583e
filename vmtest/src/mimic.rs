//! Test binaries without libtest, of which a test that cannot run here is really ignored.
//!
//! libtest decides which tests are ignored when it is compiled, and calls a test passed that only then sees that its host lacks
//! something. A binary with `harness = false` in its manifest asks when it runs:
//!
//! ```toml
//! [[test]]
//! name = "cluster"
//! harness = false
//!
//! [dev-dependencies]
//! vmtest = { version = "0.1", features = ["mimic"] }
//! ```
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use vmtest::mimic::vm_test;    // in place of that of the prelude, which libtest would have to call
//! use vmtest::{Node, Result};
//!
//! #[vm_test]
//! async fn boots(node: Node) -> Result {
//!     node.sh("true").await?;
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     vmtest::mimic::main()
//! }
//! ```
//!
//! With `VMTEST_ON_MISSING=skip` a test whose host lacks what it needs is shown as ignored with the reason; nextest, which asks
//! first what is ignored, counts it as skipped. Everything else is as with libtest, `#[ignore]` and the arguments of the binary
//! included; only `#[should_panic]` and attributes that make tests of their own do not work here.

use std::{collections::BTreeMap, process::ExitCode};

pub use libtest_mimic;
use libtest_mimic::{Arguments, Completion, Failed};
use linkme::distributed_slice;
/// The attribute [`vm_test`](macro@crate::vm_test) for a binary without libtest.
pub use vmtest_macros::trial as vm_test;

use crate::harness::{TestCase, TrialEnd, lacks};

/// A test of this binary.
#[doc(hidden)]
#[derive(Debug)]
pub struct Trial {
    /// What it declares.
    pub case: &'static TestCase,
    /// Whether it has `#[ignore]`.
    pub ignored: bool,
    /// Runs it.
    pub run: fn(&'static TestCase) -> TrialEnd,
}

/// All tests of this binary, in no order.
#[doc(hidden)]
#[distributed_slice]
pub static TRIALS: [Trial];

/// Runs the tests of this binary as the arguments of the process say: what `main` does.
pub fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials(&arguments)).exit_code()
}

/// The tests of this binary in the order of their names, for a `main` that adds others. To be called first in `main`, while
/// the process has one thread.
pub fn trials(arguments: &Arguments) -> Vec<libtest_mimic::Trial> {
    // What many tests ask for is looked for once.
    let mut known = BTreeMap::new();
    let mut lacks_something = |case| {
        let spec = TestCase::spec(case);
        let key = (spec.backends.clone(), spec.requires.clone());
        *known.entry(key).or_insert_with(|| lacks(&spec).is_some())
    };
    let trial = |trial: &'static Trial| {
        // Who runs it is told why by the test itself.
        let ignored = trial.ignored || (arguments.list && lacks_something(trial.case));
        let run = move || match (trial.run)(trial.case) {
            Ok(None) => Ok(Completion::Completed),
            Ok(Some(why)) => Ok(Completion::ignored_with(why)),
            Err(message) => Err(Failed::from(message)),
        };
        libtest_mimic::Trial::ignorable_test(trial.case.path(), run).with_ignored_flag(ignored)
    };
    let mut trials: Vec<_> = TRIALS.iter().map(trial).collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    trials
}
