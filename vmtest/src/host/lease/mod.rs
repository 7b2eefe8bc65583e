//! Memory, CPUs and disk of this host, shared by all test processes of one user. The files are specified in
//! `docs/lease.md`.

mod admission;
mod asked;
mod budget;
mod cgroup;
mod claim;
mod ledger;
mod record;
mod ticket;
mod usage;
mod watch;

pub(crate) use asked::Asked;
pub(crate) use budget::HostBudget;
pub(crate) use claim::{Claim, Request};
pub(crate) use ledger::Ledger;
pub use record::{Holder, Waiting};
