//! What will be done for one node.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Capabilities, RatePlan, share};
use crate::spec::{Fake, Resources};

/// One machine, with every name, address and path decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// The host name, and the name of the node's folder in the run directory.
    pub name: String,
    /// Position in the cluster, from 0; decides addresses and interface names.
    pub index: usize,
    /// Address on the cluster's bridge.
    pub ip: Ipv4Addr,
    /// IPv6 address on the cluster's bridge.
    pub ip6: Ipv6Addr,
    /// Hardware address, `52:54:00:…`.
    pub mac: String,
    /// Name of the tap in the cluster's network namespace.
    pub tap: String,
    /// How much it sends and receives at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RatePlan>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// The kernel, absolute.
    pub kernel: String,
    /// The initramfs with the node's own facts appended: a file in the node's folder.
    pub initramfs: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// Size in bytes of the node's scratch disk, the last of its disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<u64>,
    /// Disks in the order in which the guest sees them.
    pub disks: Vec<DiskPlan>,
    /// What a fake machine does wrong and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fake: Option<Fake>,
}

impl NodePlan {
    /// The names of its links in the cluster's network namespace.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        [self.tap.as_str()].into_iter().chain(self.rate.as_ref().map(|rate| rate.ifb.as_str()))
    }

    /// What it takes from the host.
    pub fn cost(&self, capabilities: &Capabilities) -> Resources {
        share::cost(self.memory, self.cpus, self.scratch.unwrap_or_default(), capabilities)
    }
}

/// The folder of a node's scratch disk: a link in the node's folder.
pub(crate) const SCRATCH: &str = "scratch";

/// One disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// The image, absolute; of a scratch disk, in the node's folder.
    pub path: String,
    /// Filesystem label, by which the guest mounts it.
    pub label: String,
    /// Where the guest mounts it.
    pub at: String,
    /// Whether the VMM opens it read-only.
    pub read_only: bool,
}
