//! The way out of a cluster's network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_MTU, HostFacts, NetworkPlan, gateway};

/// Through what everything passes that leaves a cluster's network.
///
/// Through `pasta` the same in every cluster, because each has a network namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPlan {
    /// What is behind it.
    pub way: WayOut,
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

/// What leads from a cluster's network to that of whoever started the test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WayOut {
    /// A process there, which takes no privilege and changes nothing.
    Pasta,
    /// The other end of a pair of interfaces, for which that network forwards.
    Pair {
        /// Its name there.
        link: String,
        /// Its hardware address.
        mac: String,
    },
}

impl EgressPlan {
    /// For the machines of these networks, by what is free for it where the test was started.
    pub(super) fn new(networks: &[NetworkPlan], host: Option<&HostFacts>) -> Self {
        let found = host.and_then(|host| Some((*host.numbers.first()?, host)));
        let pasta = Self {
            way: WayOut::Pasta,
            uplink: "uplink".into(),
            // Of a network that is for documentation (RFC 5737): nothing that a machine wants to reach has such an
            // address.
            address: Ipv4Addr::new(192, 0, 2, 2),
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            prefix: 30,
            mtu: networks.iter().map(|network| network.mtu).min().unwrap_or(DEFAULT_MTU),
        };
        let Some((number, host)) = found else { return pasta };
        let gateway = gateway(number);
        Self {
            way: WayOut::Pair { link: format!("{}up", host.prefix), mac: format!("52:54:00:4d:{number:02x}:01") },
            address: Ipv4Addr::from_bits(gateway.to_bits() + 1),
            gateway,
            ..pasta
        }
    }
}
