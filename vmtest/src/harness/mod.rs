//! What the macro calls: from a test's constant to its verdict.

mod builder;
mod capacity;
mod case;
mod choice;
mod context;
pub mod control;
mod declared;
pub mod doctor;
mod end;
mod extract;
mod facts;
mod hold;
mod install;
mod progress;
mod prune;
mod registry;
mod rootless;
mod session;
mod setting_table;
mod settings;
mod signals;
mod skip;
mod traces;
mod verdict;
mod volumes;

pub use crate::{
    cluster::{Abandoned, AbandonedRun},
    host::Place,
};
pub use builder::{ClusterBuilder, StartedCluster};
pub use capacity::{BACKENDS, Capacity, capacity};
pub use case::{Parameter, Setting, TestCase, TrialEnd, manifest_dir, run, run_trial};
#[cfg(feature = "mimic")]
pub(crate) use choice::lacks;
pub use context::Context;
pub use declared::Declared;
pub use extract::{FromCluster, Param};
pub use facts::{Backend, backends, fixture_cache};
pub use install::install_cloud_hypervisor;
pub use prune::{abandoned, prune};
pub use registry::{LIST, LISTED, MAKERS, Maker};
pub use rootless::enter_rootless;
pub use settings::UP;
pub use skip::{SKIPPED, Skipped};
pub use verdict::Verdict;
pub use volumes::volumes;
