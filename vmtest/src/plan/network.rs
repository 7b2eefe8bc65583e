//! Addresses and names of a cluster's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{HostFacts, problems::Problems};
use crate::spec::ClusterSpec;

/// One bridge of a cluster, and the addresses on it.
///
/// The same in every cluster, because each has a network namespace of its own: logs compare and snapshots fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The name by which nodes name it.
    pub name: String,
    /// The bridge's interface name.
    pub bridge: String,
    /// The bridge's hardware address; fixed, because a forked guest keeps the gateway in its ARP cache.
    pub mac: String,
    /// The host's address on the bridge, the guests' gateway.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// The largest packet in bytes, for bridge, ports and guests alike.
    pub mtu: u32,
    /// The host's second address on the bridge.
    pub gateway6: Ipv6Addr,
    /// Length of the second network's prefix in bits.
    pub prefix6: u8,
    /// Its end in the network of whoever started the test, where it has one. Then the gateway's addresses are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostEndPlan>,
}

/// A pair of interfaces that leads from the bridge to the network of whoever started the test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndPlan {
    /// The name of the end there.
    pub link: String,
    /// The name of the end on the bridge.
    pub port: String,
    /// The bridge's own address, from which the framework reaches the machines.
    pub bridge_ip: Ipv4Addr,
    /// The bridge's second address.
    pub bridge_ip6: Ipv6Addr,
    /// The bridge's hardware address: that of the network is the gateway's.
    pub bridge_mac: String,
}

/// The port of the guests' SSH servers, in every image.
pub(crate) const SSH_PORT: u16 = 22;
/// What an interface has for which nothing is said.
pub(crate) const DEFAULT_MTU: u32 = 1500;
/// Below this an interface has no IPv6 (RFC 8200, section 5).
const MIN_MTU: u32 = 1280;
/// A tap takes no more: 65,535 bytes with the Ethernet header.
const MAX_MTU: u32 = 65_521;
/// The first node's last octet; those below are left for gateways and for addresses that a test takes itself.
const FIRST_NODE: usize = 11;
/// The last usable octet of a /24.
const LAST_NODE: usize = 254;
/// How many nodes fit into the network.
pub(super) const MAX_NODES: usize = LAST_NODE - FIRST_NODE + 1;

/// The network of the nodes that name none; there in every cluster.
pub(super) const DEFAULT_NETWORK: &str = "default";
/// One for each value of the byte that tells them apart.
const MAX_NETWORKS: usize = 256;

impl NetworkPlan {
    /// The names of a cluster's networks: the default one first, then the others in the order in which they are named.
    pub(crate) fn names(spec: &ClusterSpec) -> Vec<&str> {
        let mut names = vec![DEFAULT_NETWORK];
        let of_nodes = spec.nodes.iter().flat_map(|node| &node.networks).map(|network| network.name.as_str());
        for name in spec.networks.iter().map(String::as_str).chain(of_nodes) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The networks of a cluster, in the host's network if it has something there.
    pub(super) fn all(spec: &ClusterSpec, host: Option<&HostFacts>, problems: &mut Problems) -> Vec<Self> {
        let mtu = spec.mtu.unwrap_or(DEFAULT_MTU);
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            problems.spec(format!("an `mtu` of {mtu} bytes: it can be {MIN_MTU} to {MAX_MTU}"));
        }
        let names = Self::names(spec);
        if names.len() > MAX_NETWORKS {
            problems.spec(format!("{} networks, but a cluster takes {MAX_NETWORKS}", names.len()));
        }
        let networks = (0..=u8::MAX).zip(names).map(|(index, name)| {
            let found = host.and_then(|host| Some((*host.numbers.get(usize::from(index))?, host)));
            match found {
                Some((number, host)) => {
                    let end = Some(HostEndPlan::new(number, index, host));
                    Self { host: end, ..Self::numbered(index, number, name, mtu) }
                }
                None => Self::numbered(index, index, name, mtu),
            }
        });
        networks.collect()
    }

    /// The network at this position of its cluster with the addresses of this number.
    fn numbered(index: u8, number: u8, name: &str, mtu: u32) -> Self {
        let gateway = gateway(number);
        Self {
            name: name.to_owned(),
            bridge: format!("br{index}"),
            mac: format!("52:54:00:4d:{number:02x}:01"),
            gateway,
            prefix: 24,
            mtu,
            gateway6: ip6(gateway),
            prefix6: 64,
            host: None,
        }
    }

    /// What the bridge is reached by, where the framework is: two addresses and the hardware address.
    pub(crate) fn of_bridge(&self) -> (Ipv4Addr, Ipv6Addr, &str) {
        match &self.host {
            Some(host) => (host.bridge_ip, host.bridge_ip6, &host.bridge_mac),
            None => (self.gateway, self.gateway6, &self.mac),
        }
    }

    /// The first address, which is the network's own, and the last, which is that of all machines in it.
    pub(crate) fn ends(&self) -> [Ipv4Addr; 2] {
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        [self.gateway.to_bits() & !hosts, self.gateway.to_bits() | hosts].map(Ipv4Addr::from_bits)
    }

    /// The addresses that nodes have for which nothing is said, in order.
    pub(super) fn node_ips(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..MAX_NODES).filter_map(|index| self.node_ip(index))
    }

    /// The address of the node at this position; `None` when the network has no more.
    pub(super) fn node_ip(&self, index: usize) -> Option<Ipv4Addr> {
        let [a, b, c, _] = self.gateway.octets();
        let last = u8::try_from(FIRST_NODE + index).ok().filter(|&last| usize::from(last) <= LAST_NODE);
        last.map(|last| Ipv4Addr::new(a, b, c, last))
    }
}

impl HostEndPlan {
    /// For the network of this number, at this position in its cluster.
    fn new(number: u8, index: u8, host: &HostFacts) -> Self {
        let bridge_ip = Ipv4Addr::from_bits(gateway(number).to_bits() + 1);
        Self {
            link: format!("{}n{index}", host.prefix),
            port: format!("host{index}"),
            bridge_ip,
            bridge_ip6: ip6(bridge_ip),
            bridge_mac: format!("52:54:00:4d:{number:02x}:02"),
        }
    }
}

/// The IPv6 address that goes with an address of the network: `fd77::11` with `10.77.0.11`, the same digits for people,
/// and `fd77:0:0:2::11` with `10.77.2.11`.
pub(crate) fn ip6(ip: Ipv4Addr) -> Ipv6Addr {
    let digits = |octet: u8| {
        let octet = u16::from(octet);
        (octet / 100) << 8 | (octet / 10 % 10) << 4 | (octet % 10)
    };
    let [.., network, node] = ip.octets();
    Ipv6Addr::new(0xfd77, 0, 0, digits(network), 0, 0, 0, digits(node))
}

/// The address of the host in the network of this number.
pub(crate) fn gateway(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 1)
}

/// The hardware addresses that go with an address of the network, the best first.
pub(super) fn macs(ip: Ipv4Addr) -> impl Iterator<Item = String> {
    let [.., network, node] = ip.octets();
    (0..=u8::MAX).map(move |n| format!("52:54:00:4d:{:02x}:{node:02x}", network.wrapping_add(n)))
}
