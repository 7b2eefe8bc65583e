//! What the macro calls: from a test's constant to its verdict.

mod builder;
mod case;
mod context;
mod end;
mod extract;
mod facts;
mod session;
mod settings;
mod signals;
mod traces;
mod verdict;

pub use builder::{ClusterBuilder, StartedCluster};
pub use case::{Parameter, Setting, TestCase, run};
pub use context::Context;
pub use extract::{FromCluster, Param};
pub use facts::{Backend, backends};
pub use session::prune;
pub use verdict::Verdict;
