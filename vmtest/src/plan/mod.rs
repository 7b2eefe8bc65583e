//! What will be done, decided before anything is touched.
//!
//! [`plan`] is pure: the same [`ClusterSpec`](crate::spec::ClusterSpec) and [`Facts`] give the same [`Plan`], and all
//! conflicts come back together.

mod addresses;
mod cluster;
mod egress;
mod facts;
mod headroom;
mod hosts;
mod image;
mod interface;
mod kernel;
mod network;
mod node;
mod problems;
mod rate;
mod requires;
mod share;
mod volume;

pub(crate) use cluster::{DEFAULT_TIMEOUT, EMULATION_SCALE, mount_point, overlap};
pub use cluster::{Plan, plan, plan_more};
pub use egress::{EgressPlan, WayOut};
pub use facts::{
    BackendFacts, BudgetFacts, Capabilities, CloudFacts, Facts, FixtureFacts, HostFacts, ImageFacts, KernelFacts,
    KnownBackend, MemoryLimit, ModulesFacts, RootFacts, VolumeFacts,
};
pub use headroom::DiskRatePlan;
pub(crate) use hosts::hosts;
pub(crate) use image::image_of;
pub use interface::InterfacePlan;
pub(crate) use network::{DEFAULT_MTU, SSH_PORT, gateway, ip6};
pub use network::{HostEndPlan, NetworkPlan};
pub(crate) use node::{BIOS, HOTPLUG_PLACES, ROOT, SCRATCH, SEED};
pub use node::{DiskPlan, NodePlan};
pub use rate::RatePlan;
pub(crate) use share::asked_resources;
pub use volume::VolumePlan;
pub(crate) use volume::wanted as wanted_volumes;

/// What others try plans with.
#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::cluster::tests::planned;
}
