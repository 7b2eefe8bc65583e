//! cloud-hypervisor, from v45 on: guests under KVM, told what to do over HTTP.

mod api;
mod config;
mod events;
mod machine;
mod probe;
mod release;
mod render;

pub(super) use machine::CloudHypervisor;
pub(super) use probe::check;
use probe::{ChvFacts, probe};
pub(super) use release::RELEASE;
