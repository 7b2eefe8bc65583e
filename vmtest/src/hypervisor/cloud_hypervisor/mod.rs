//! cloud-hypervisor, from v45 on: guests under KVM, told what to do over HTTP.

mod api;
mod config;
mod events;
mod machine;
mod probe;
mod render;

pub(super) use machine::CloudHypervisor;
use probe::{ChvFacts, probe};
