//! What will be done, decided before anything is touched.
//!
//! [`plan`] is pure: the same [`ClusterSpec`](crate::spec::ClusterSpec) and [`Facts`] give the same [`Plan`], and all
//! conflicts come back together.

mod addresses;
mod cluster;
mod egress;
mod facts;
mod hosts;
mod interface;
mod kernel;
mod network;
mod node;
mod problems;
mod rate;
mod requires;
mod share;

pub(crate) use cluster::DEFAULT_IMAGE;
pub use cluster::{Plan, plan, plan_more};
pub use egress::{EgressPlan, WayOut};
pub use facts::{
    BackendFacts, BudgetFacts, Capabilities, Facts, FixtureFacts, HostFacts, ImageFacts, KernelFacts, KnownBackend,
    MemoryLimit,
};
pub(crate) use hosts::hosts;
pub use interface::InterfacePlan;
pub(crate) use network::{DEFAULT_MTU, SSH_PORT, gateway, ip6};
pub use network::{HostEndPlan, NetworkPlan};
pub(crate) use node::SCRATCH;
pub use node::{DiskPlan, NodePlan};
pub use rate::RatePlan;
