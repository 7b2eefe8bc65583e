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

mod error;
mod failure;
mod guest;
mod host;
mod hypervisor;
mod net;
mod sys;

pub mod cluster;
pub mod evidence;
pub mod harness;
pub mod plan;
pub mod spec;

pub use cluster::{Cluster, Condition, Node, State};
pub use error::{Error, Kind, Phase};
pub use failure::{Context, Failure};
pub use guest::eventually;
pub use harness::{ClusterBuilder, FromCluster, Param, StartedCluster};
pub use vmtest_macros::{test, vm_test};

/// What a test's body returns; `?` takes any error.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// What a test file imports.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{Cluster, Condition, Context, Error, Failure, Node, Result, eventually, spec::NodeSpec, vm_test};
}

#[doc(hidden)]
pub mod __private {
    pub use crate::{
        harness::{Context, Param, Parameter, Setting, TestCase, run},
        spec::Allow,
    };
}
