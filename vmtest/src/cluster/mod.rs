//! A cluster while it lives: provisioning, the handles that a test holds, teardown and reconcile.

mod handle;
mod ladder;
mod member;
mod node;
mod provision;
mod run;
mod teardown;

pub use crate::guest::ssh::Output;
pub use handle::Cluster;
pub(crate) use ladder::SSH_PORT;
pub(crate) use member::Member;
pub use node::{Condition, ConsoleLines, Exit, Forward, Lines, Node, Process, Running, Sh, Spawn, Wait};
pub(crate) use provision::provision;
pub(crate) use run::Run;
pub(crate) use teardown::{reconcile, teardown};
