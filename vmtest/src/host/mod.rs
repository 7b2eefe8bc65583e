//! The machine below: the directories of a run with their locks and the journal, the thread that owns the VMMs, and
//! panics.

mod console;
mod crash;
mod files;
mod journal;
mod keeper;
mod lease;
mod line_log;
mod locked_dir;
mod panics;
mod places;
mod process;
mod random;
mod rootless;
mod stopped;
mod storage;
mod terminal;
mod volumes;

pub(crate) use console::{Anomaly, Console, OnLine, appears, follow_file};
pub(crate) use crash::CrashPoint;
pub(crate) use files::{if_there, relink};
#[cfg(fuzzing)]
pub(crate) use journal::check_journal;
pub(crate) use journal::{Effect, Entry, HOST_LINKS, JOURNAL, Journal, host_prefix};
pub(crate) use keeper::{Keeper, SpawnRequest, spawn_program};
pub(crate) use lease::{Asked, Claim, HostBudget, Ledger, Request};
pub use lease::{Holder, Waiting};
pub(crate) use line_log::LineLog;
pub(crate) use locked_dir::{LOCK, LockedDir};
pub(crate) use panics::{Panic, Panics, containing_panics, panic_message};
pub(crate) use places::runs_root;
pub(crate) use process::{DEATH_WITHIN, Ended, Process, ProcessId, find_program, has_capabilities};
pub(crate) use random::random;
pub(crate) use rootless::{Entrance, MACHINE_IDS, ROOTLESS, apparmor, caller, enter, entrance, may_make_networks};
pub(crate) use stopped::{stopped, timeout, while_stopped};
pub use storage::Place;
pub(crate) use storage::{remove_folder, storage_error};
pub(crate) use terminal::entered;
pub(crate) use volumes::{HeldVolumes, shown};
