//! The control socket of a run: how others talk to the process that owns it. Specified in `docs/control.md`.

mod client;
mod protocol;
mod server;

pub use client::{Client, Runs, Silent, runs};
pub use protocol::{
    Answer, Description, Greeting, Interface, Machine, Request, RunState, SshAccess, VERSION, since_epoch,
};
pub(super) use server::{DOWN, down_and_blocked, serve};
