//! Real Linux machines as fixtures of ordinary Rust tests.
//!
//! ```no_run
//! use vmtest::prelude::*;
//!
//! #[vm_test]
//! async fn two_machines_meet(alice: Node, bob: Node) -> Result {
//!     alice.sh(format!("ping -c 1 {}", bob.name())).await?;
//!     Ok(())
//! }
//! ```
//!
//! The signature is the cluster. Before the body runs, [`vm_test`] makes a network of its own for it, boots a machine
//! for each [`Node`], and waits until each answers over SSH; afterwards it removes everything, however
//! the test ends.
//!
//! That is so on Linux. Elsewhere everything that a test uses has the same signatures, but for what the module `plan` decides, so
//! that a project with tests on machines compiles there too. Each of those tests fails and says that it needs Linux, or is
//! passed over with `VMTEST_ON_MISSING=skip`.

// Elsewhere files of Linux are shared whole, for the types in them.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod error;
mod failure;
#[cfg(target_os = "linux")]
mod guest;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/host.rs")]
mod host;
#[cfg(target_os = "linux")]
mod hypervisor;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod sys;

#[cfg_attr(not(target_os = "linux"), path = "elsewhere/cluster.rs")]
pub mod cluster;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/evidence.rs")]
pub mod evidence;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/harness.rs")]
pub mod harness;
#[cfg(all(feature = "mimic", target_os = "linux"))]
pub mod mimic;
#[cfg(target_os = "linux")]
pub mod plan;
pub mod spec;

pub use cluster::{Cluster, Condition, Disk, Liveness, NewDisk, Node, Snapshot, State, eventually};
pub use error::{Error, Kind, Phase};
pub use evidence::{Artifacts, step};
pub use failure::{Context, Failure};
pub use harness::{ClusterBuilder, FromCluster, Param, StartedCluster, enter_rootless};
pub use spec::{GuestImage, ImageFiles};
pub use vmtest_fixtures::Fixture;
pub use vmtest_macros::{test, vm_test};

/// What a test's body returns; `?` takes any error.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// A [`Fixture`] of a directory of the crate where this is written, wherever the tests run: relative to the crate's
/// manifest, as Cargo and nextest say where that is when they run a test, so that an archive of tests works on another
/// machine; else as the compiler saw it.
///
/// ```
/// # use vmtest::prelude::*;
/// let node = NodeSpec::new("web").fixture(vmtest::fixture!("tests/data/www"), "/srv/www");
/// # drop(node);
/// ```
#[macro_export]
macro_rules! fixture {
    ($dir:expr $(,)?) => {
        $crate::Fixture::from_dir($dir).relative_to(&$crate::__private::manifest_dir(
            ::core::env!("CARGO_MANIFEST_DIR"),
            ::core::env!("CARGO_PKG_NAME"),
        ))
    };
}

/// Says that the tests of this binary make clusters by [`Cluster::builder`], so that they can without being root: for
/// binaries that have no [`vm_test`], which says so by itself, and whose `main` is not theirs. Where it is,
/// [`enter_rootless`] does the same.
///
/// ```
/// vmtest::rootless!();
///
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! rootless {
    () => {
        const _: () = {
            #[$crate::__private::linkme::distributed_slice($crate::__private::MAKERS)]
            #[linkme(crate = $crate::__private::linkme)]
            static CODE: $crate::__private::Maker = $crate::__private::Maker::Code(::core::module_path!());
        };
    };
}

/// What a test file imports.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Artifacts, Cluster, Condition, Context, Error, Failure, Fixture, NewDisk, Node, Result, eventually,
        spec::{Image, NetworkSpec, NodeSpec, Volume},
        step, vm_test,
    };
}

/// What the fuzzers in `fuzz/` call.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a journal that consists of these bytes.
    ///
    /// # Panics
    /// When what is read cannot be believed.
    pub fn journal(bytes: &[u8]) {
        crate::host::check_journal(bytes);
    }
}

#[doc(hidden)]
pub mod __private {
    pub use linkme;

    #[cfg(target_os = "linux")]
    pub use crate::harness::install_cloud_hypervisor;
    #[cfg(all(feature = "mimic", target_os = "linux"))]
    pub use crate::mimic::{TRIALS, Trial};
    pub use crate::{
        harness::{
            Context, MAKERS, Maker, Param, Parameter, SKIPPED, Setting, Skipped, TestCase, TrialEnd, manifest_dir, run,
            run_trial,
        },
        spec::{Allow, Capability, Image, NetworkPlace, TimedPhase},
    };
}
