//! The guest's side: what it is told at boot, and how it is talked to.

mod command;
pub(crate) mod files;
pub(crate) mod mounts;
mod seed;
pub(crate) mod ssh;

pub(crate) use command::{Command, Leash};
pub(crate) use seed::config;
