//! The guest's side: what it is told at boot, and how it is talked to.

mod seed;
pub(crate) mod ssh;

pub(crate) use seed::config;
