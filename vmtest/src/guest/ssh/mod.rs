//! SSH: how a guest is talked to. The protocol is russh's; what is ours is when a connection is opened and reused.

mod connection;
mod exec;
mod keys;
mod output;
mod pool;
mod spool;

pub(crate) use exec::{Exec, ExitStatus};
pub(crate) use keys::Keys;
pub use output::Output;
pub(crate) use pool::Ssh;
pub(crate) use spool::Spool;
