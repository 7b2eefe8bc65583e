//! Firecracker, from v1.10 on: guests under KVM with few devices, told what to do over HTTP.

mod api;
mod config;
mod halt;
mod machine;
mod probe;
mod render;

pub(super) use machine::Firecracker;
use probe::{FirecrackerFacts, probe};
