//! The machine below: the run directory with its lock and journal, the thread that owns the VMMs, and panics.

mod console;
mod files;
mod journal;
mod keeper;
mod lease;
mod panics;
mod process;
mod random;
mod run_dir;
mod stopped;

pub(crate) use console::{Anomaly, Console};
pub(crate) use files::{if_there, relink};
pub(crate) use journal::{Effect, Entry, Journal};
pub(crate) use keeper::{Keeper, SpawnRequest, spawn_program};
pub(crate) use lease::{Asked, Claim, HostBudget, Ledger, Request};
pub use lease::{Holder, Waiting};
pub(crate) use panics::{Panic, Panics, containing_panics};
pub(crate) use process::{DEATH_WITHIN, Ended, Process, ProcessId, has_capabilities};
pub(crate) use random::random;
pub(crate) use run_dir::{RunDir, runs_root};
pub(crate) use stopped::{stopped, timeout, while_stopped};
