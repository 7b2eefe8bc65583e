//! What the macro calls: from a test's constant to its verdict, which is that there is no cluster.

#[path = "../harness/builder.rs"]
mod builder;
#[path = "../harness/case.rs"]
mod case;
#[path = "../harness/context.rs"]
mod context;
mod end;
#[path = "../harness/extract.rs"]
mod extract;
#[path = "../harness/registry.rs"]
mod registry;
mod session;
mod settings;
#[path = "../harness/skip.rs"]
mod skip;
#[path = "../harness/verdict.rs"]
mod verdict;

use crate::{elsewhere::needs_linux, error::Error};
pub use builder::{ClusterBuilder, StartedCluster};
pub use case::{Parameter, Setting, TestCase, TrialEnd, manifest_dir, run, run_trial};
pub use context::Context;
pub use extract::{FromCluster, Param};
pub use registry::{LIST, LISTED, MAKERS, Maker};
pub use skip::{SKIPPED, Skipped};
pub use verdict::Verdict;

/// Makes this process the root of a user namespace, on Linux.
///
/// # Errors
/// [`Kind::Missing`](crate::Kind::Missing), as from every cluster: this is not Linux.
pub fn enter_rootless() -> Result<(), Error> {
    Err(needs_linux())
}
