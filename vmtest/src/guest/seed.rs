//! What one guest is told about itself and its neighbours.

use vmtest_images::{GuestConfig, HostKey, Interface, Mount};

use super::ssh::Keys;
use crate::plan::{NetworkPlan, NodePlan};

/// The facts of this node, in a cluster whose machines have these addresses and names.
pub(crate) fn config(node: &NodePlan, network: &NetworkPlan, hosts: &[(String, String)], keys: &Keys) -> GuestConfig {
    GuestConfig {
        hostname: node.name.clone(),
        interfaces: vec![Interface {
            mac: node.mac.clone(),
            address: format!("{}/{}", node.ip, network.prefix),
            gateway: Some(network.gateway.to_string()),
            mtu: network.mtu,
            address6: Some(format!("{}/{}", node.ip6, network.prefix6)),
        }],
        hosts: hosts.to_vec(),
        authorized_key: keys.authorized_key(),
        host_key: HostKey { private: keys.host_seed(), public: keys.host_public() },
        mounts: node
            .disks
            .iter()
            .map(|disk| Mount { label: disk.label.clone(), at: disk.at.clone(), read_only: disk.read_only })
            .collect(),
    }
}
