//! Addresses and names of a cluster's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::problems::Problems;

/// The bridge that all nodes of a cluster share.
///
/// The same in every cluster, because each has a network namespace of its own: logs compare and snapshots fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
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

impl Default for NetworkPlan {
    fn default() -> Self {
        let gateway = Ipv4Addr::new(10, 77, 0, 1);
        Self {
            bridge: "br0".into(),
            mac: "52:54:00:4d:00:01".into(),
            gateway,
            prefix: 24,
            mtu: DEFAULT_MTU,
            gateway6: ip6(gateway),
            prefix6: 64,
        }
    }
}

impl NetworkPlan {
    /// The network of a cluster that asks for this MTU.
    pub(super) fn new(mtu: Option<u32>, problems: &mut Problems) -> Self {
        let mtu = mtu.unwrap_or(DEFAULT_MTU);
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            problems.spec(format!("an `mtu` of {mtu} bytes: it can be {MIN_MTU} to {MAX_MTU}"));
        }
        Self { mtu, ..Self::default() }
    }

    /// The first address, which is the network's own, and the last, which is that of all machines in it.
    pub(super) fn ends(&self) -> [Ipv4Addr; 2] {
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        [self.gateway.to_bits() & !hosts, self.gateway.to_bits() | hosts].map(Ipv4Addr::from_bits)
    }
}

/// The addresses that nodes have for which nothing is said, in order.
pub(super) fn node_ips() -> impl Iterator<Item = Ipv4Addr> {
    (0..MAX_NODES).filter_map(node_ip)
}

/// The address of the node at this position; `None` when the network has no more.
pub(super) fn node_ip(index: usize) -> Option<Ipv4Addr> {
    u8::try_from(FIRST_NODE + index).ok().filter(|&o| usize::from(o) <= LAST_NODE).map(|o| Ipv4Addr::new(10, 77, 0, o))
}

/// The IPv6 address that goes with an address of the network: `fd77::11` with `10.77.0.11`, the same digits for people.
pub(super) fn ip6(ip: Ipv4Addr) -> Ipv6Addr {
    let octet = u16::from(ip.octets()[3]);
    let digits = (octet / 100) << 8 | (octet / 10 % 10) << 4 | (octet % 10);
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits)
}

/// The hardware addresses that go with an address of the network, the best first.
pub(super) fn macs(ip: Ipv4Addr) -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(move |n| format!("52:54:00:4d:{n:02x}:{:02x}", ip.octets()[3]))
}
