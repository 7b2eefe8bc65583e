//! The way out of a cluster's network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_MTU, NetworkPlan};

/// Through what everything passes that leaves a cluster's network.
///
/// The same in every cluster, because each has a network namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// The name of the interface in the cluster's network.
    pub uplink: String,
    /// Its address there, with which everything leaves the cluster's network.
    pub address: Ipv4Addr,
    /// The address at its other end.
    pub gateway: Ipv4Addr,
    /// Length of the prefix of both in bits.
    pub prefix: u8,
    /// The largest packet in bytes.
    pub mtu: u32,
}

impl EgressPlan {
    /// For the machines of these networks.
    pub(super) fn new(networks: &[NetworkPlan]) -> Self {
        Self {
            uplink: "uplink".into(),
            // Of a network that is for documentation (RFC 5737): nothing that a machine wants to reach has such an
            // address.
            address: Ipv4Addr::new(192, 0, 2, 2),
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            prefix: 30,
            mtu: networks.iter().map(|network| network.mtu).min().unwrap_or(DEFAULT_MTU),
        }
    }
}
