//! What one guest is told about itself and its neighbours.

use vmtest_images::{GuestConfig, HostKey, Interface, Mount, RootMount};

use super::ssh::Keys;
use crate::plan::{InterfacePlan, NetworkPlan, NodePlan, Plan, hosts};

/// The facts of this node, in the cluster of this plan and these machines.
pub(crate) fn config(node: &NodePlan, cluster: &Plan, all: &[NodePlan], keys: &Keys) -> GuestConfig {
    let interface = |(number, (network, interface)): (usize, (&NetworkPlan, &InterfacePlan))| Interface {
        mac: interface.mac.clone(),
        address: format!("{}/{}", interface.ip, network.prefix),
        // Of two ways to everywhere else the kernel would take one without a word.
        gateway: (number == 0).then(|| network.gateway.to_string()),
        mtu: network.mtu,
        address6: Some(format!("{}/{}", interface.ip6, network.prefix6)),
    };
    GuestConfig {
        hostname: node.name.clone(),
        interfaces: node.places(&cluster.networks).enumerate().map(interface).collect(),
        hosts: hosts(node, all),
        // Where its way to everywhere else begins.
        nameserver: cluster
            .egress
            .as_ref()
            .and_then(|_| Some(node.places(&cluster.networks).next()?.0.gateway.to_string())),
        authorized_key: keys.authorized_key(),
        login: node.login.clone(),
        host_key: HostKey { private: keys.host_seed(), public: keys.host_public(), openssh: keys.host_private() },
        mounts: node
            .mounted()
            .iter()
            .map(|disk| Mount { label: disk.label.clone(), at: disk.at.clone(), read_only: disk.read_only })
            .collect(),
        no_modules: node.foreign_kernel,
        root: node
            .root_disks()
            .map(|(lower, upper)| RootMount { lower: lower.label.clone(), upper: upper.label.clone() }),
    }
}
