//! The guest's side: what it is told at boot, and how it is talked to.

mod command;
mod eventually;
pub(crate) mod files;
pub(crate) mod mounts;
mod seed;
pub(crate) mod ssh;

pub(crate) use command::{Command, Leash};
pub use eventually::eventually;
pub(crate) use eventually::scale_timeouts;
pub(crate) use seed::config;
