//! What one guest is told about itself and its neighbours.

use vmtest_images::{GuestConfig, HostKey, Interface, Mount};

use super::ssh::Keys;
use crate::plan::Plan;

/// The facts of the node at this position.
pub(crate) fn config(plan: &Plan, index: usize, keys: &Keys) -> GuestConfig {
    let node = &plan.nodes[index];
    GuestConfig {
        hostname: node.name.clone(),
        interfaces: vec![Interface {
            mac: node.mac.clone(),
            address: format!("{}/{}", node.ip, plan.network.prefix),
            gateway: Some(plan.network.gateway.to_string()),
        }],
        hosts: plan.nodes.iter().map(|other| (other.ip.to_string(), other.name.clone())).collect(),
        authorized_key: keys.authorized_key(),
        host_key: HostKey { private: keys.host_seed(), public: keys.host_public() },
        mounts: node.disks.iter().map(|disk| Mount { label: disk.label.clone(), at: disk.at.clone() }).collect(),
    }
}
