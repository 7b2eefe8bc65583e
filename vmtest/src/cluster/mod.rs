//! A cluster while it lives: provisioning, the handles that a test holds, teardown and reconcile.

mod boot;
mod clock;
mod handle;
mod ladder;
mod late;
mod member;
mod node;
mod power;
mod provision;
mod run;
mod tasks;
mod teardown;

pub use crate::guest::ssh::Output;
pub(crate) use clock::Clock;
pub use handle::Cluster;
pub(crate) use member::Member;
pub use node::{Condition, ConsoleLines, Exit, Forward, Lines, Node, Process, Running, Sh, Spawn, Wait};
pub use power::State;
pub(crate) use provision::provision;
pub(crate) use run::{Planner, Run};
pub(crate) use tasks::Tasks;
pub(crate) use teardown::{reconcile, teardown};
