//! A cluster while it lives: provisioning, the handles that a test holds, teardown and reconcile.

mod boot;
#[cfg(test)]
mod brake;
mod clock;
mod egress;
mod eventually;
mod evidence;
mod guest_clock;
mod handle;
mod hold;
mod host_side;
mod ladder;
mod late;
mod member;
mod node;
mod power;
mod provision;
mod reconcile;
mod run;
mod scratch;
mod tasks;
mod teardown;
mod undo;

pub use crate::guest::ssh::Output;
pub(crate) use clock::Clock;
pub use eventually::eventually;
pub(crate) use eventually::scale_timeouts;
pub(crate) use evidence::{CONSOLE_TAIL, collect};
pub use handle::Cluster;
pub(crate) use hold::{Hold, HoldPolicy, Stage, hold};
pub(crate) use host_side::HostSide;
pub(crate) use member::Member;
pub use node::{
    Condition, ConsoleLines, Disk, Exit, Forward, Lines, NewDisk, Node, Process, Running, Sh, Snapshot, Spawn, Wait,
};
pub use power::{Liveness, State};
pub(crate) use provision::provision;
pub use reconcile::{Abandoned, AbandonedRun};
pub(crate) use reconcile::{Mode, Places, reconcile};
pub(crate) use run::{Planner, Run};
pub(crate) use scratch::ScratchDir;
pub(crate) use tasks::Tasks;
pub(crate) use teardown::{CONTROL, teardown};
