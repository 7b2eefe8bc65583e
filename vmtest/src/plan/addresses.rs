//! Which machine has which address.

use std::net::Ipv4Addr;

use super::{
    NetworkPlan, NodePlan,
    network::{DEFAULT_NETWORK, macs},
    problems::Problems,
};
use crate::spec::NodeSpec;

/// The bit of the first byte that makes a hardware address one of a group.
const MULTICAST: u8 = 1;
/// A PCI bus has room for so many beside the most disks that a machine can have.
const MAX_INTERFACES: usize = 4;

/// What one machine is reached by on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses<'a> {
    pub(super) network: &'a NetworkPlan,
    pub(super) ip: Ipv4Addr,
    pub(super) mac: String,
}

/// Gives each of these nodes its addresses on each of its networks, beside those that have been there; the first of them
/// has this position.
///
/// What a node asks for comes first. Every other has the address of its position, so that nobody is moved by what others
/// ask for, unless that very address is taken: then the first that is free. `None` for a node only where that is a
/// problem, which is named, and for more nodes than there are addresses.
pub(super) fn assign<'a>(
    nodes: &[NodeSpec],
    others: &[NodePlan],
    first: usize,
    networks: &'a [NetworkPlan],
    problems: &mut Problems,
) -> Vec<Option<Vec<Addresses<'a>>>> {
    let [gateway, bridge] = ["gateway", "bridge"].map(|who| format!("the {who}"));
    let mut ips = Vec::new();
    let mut macs_taken = Taken::new([]);
    for network in networks {
        let mut of_network = Taken::new([(network.gateway, gateway.clone())]);
        if let Some(host) = &network.host {
            of_network.0.push((host.bridge_ip, bridge.clone()));
            macs_taken.0.extend([(network.mac.clone(), gateway.clone()), (host.bridge_mac.clone(), bridge.clone())]);
        } else {
            macs_taken.0.push((network.mac.clone(), bridge.clone()));
        }
        ips.push(of_network);
    }
    for (other, interface) in others.iter().flat_map(|node| node.interfaces.iter().map(move |i| (node, i))) {
        if let Some(at) = networks.iter().position(|network| network.name == interface.network) {
            ips[at].take(interface.ip, &other.name);
        }
        macs_taken.take(interface.mac.clone(), &other.name);
    }

    let wanted: Vec<Wanted<'_>> =
        (first..).zip(nodes).flat_map(|(index, node)| wanted(index, node, networks, problems)).collect();
    let asked: Vec<_> = wanted
        .iter()
        .map(|wanted| wanted.asked(&networks[wanted.network], &mut ips[wanted.network], &mut macs_taken, problems))
        .collect();
    let mut planned: Vec<Option<Ipv4Addr>> = wanted
        .iter()
        .zip(&asked)
        .map(|(wanted, (ip, _))| match wanted.ip {
            Some(_) => *ip,
            None => networks[wanted.network]
                .node_ip(wanted.index)
                .filter(|&ip| ips[wanted.network].take_if_free(ip, wanted.node)),
        })
        .collect();
    for (wanted, ip) in wanted.iter().zip(&mut planned).filter(|(wanted, ip)| wanted.ip.is_none() && ip.is_none()) {
        let (network, ips) = (&networks[wanted.network], &mut ips[wanted.network]);
        *ip = network.node_ips().find(|&ip| ips.take_if_free(ip, wanted.node));
    }
    let mut addresses: Vec<Option<Vec<Addresses<'a>>>> = nodes.iter().map(|_| Some(Vec::new())).collect();
    for ((wanted, (_, mac)), ip) in wanted.iter().zip(asked).zip(planned) {
        let mac = match (wanted.mac, ip) {
            (None, Some(ip)) => macs(ip).find(|mac| macs_taken.take_if_free(mac.clone(), wanted.node)),
            _ => mac,
        };
        let network = &networks[wanted.network];
        let of_node = &mut addresses[wanted.index - first];
        match (ip, mac, of_node.as_mut()) {
            (Some(ip), Some(mac), Some(all)) => all.push(Addresses { network, ip, mac }),
            _ => *of_node = None,
        }
    }
    addresses.into_iter().map(|all| all.filter(|all| !all.is_empty())).collect()
}

/// One interface, as asked.
struct Wanted<'a> {
    /// The node's position.
    index: usize,
    /// The node's name.
    node: &'a str,
    /// The network's position.
    network: usize,
    ip: Option<Ipv4Addr>,
    mac: Option<&'a str>,
}

/// The interfaces of this node that can be.
fn wanted<'a>(index: usize, node: &'a NodeSpec, networks: &[NetworkPlan], problems: &mut Problems) -> Vec<Wanted<'a>> {
    let name = &node.name;
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    let mut add = |on: &str, ip, mac| match networks.iter().position(|network| network.name == on) {
        None => {
            let names: Vec<_> = networks.iter().map(|network| format!("`{}`", network.name)).collect();
            problems.spec(format!(
                "node `{name}`: there is no network `{on}`, and networks are made with the cluster, which has {}: name it \
                 for the test, too",
                names.join(", ")
            ));
        }
        Some(network) if wanted.iter().any(|other| other.network == network) => {
            problems.spec(format!("node `{name}`: the network `{on}` twice: leave one of them out"));
        }
        Some(network) => wanted.push(Wanted { index, node: name, network, ip, mac }),
    };
    if node.networks.is_empty() {
        add(DEFAULT_NETWORK, None, None);
    }
    for on in &node.networks {
        add(&on.name, on.ip, on.mac.as_deref());
    }
    if node.networks.len() > MAX_INTERFACES {
        problems.spec(format!("node `{name}`: {} networks, but a node takes {MAX_INTERFACES}", node.networks.len()));
    }
    if let Some(first) = wanted.first_mut() {
        let twice = (node.ip.is_some() && first.ip.is_some()).then_some("ip");
        let twice = twice.or((node.mac.is_some() && first.mac.is_some()).then_some("mac"));
        if let Some(key) = twice {
            let on = &networks[first.network].name;
            problems
                .spec(format!("node `{name}`: `{key}` for itself and for its network `{on}`: leave one of them out"));
        }
        (first.ip, first.mac) = (node.ip.or(first.ip), node.mac.as_deref().or(first.mac));
    }
    wanted
}

impl Wanted<'_> {
    /// What it asks for and can have.
    fn asked(
        &self,
        network: &NetworkPlan,
        ips: &mut Taken<Ipv4Addr>,
        macs: &mut Taken<String>,
        problems: &mut Problems,
    ) -> (Option<Ipv4Addr>, Option<String>) {
        let name = self.node;
        let ip = self.ip.and_then(|ip| {
            let free = check_ip(ip, network).and_then(|()| ips.claim(ip, name));
            let remedy = match &network.host {
                Some(_) => {
                    "leave it out, because with `network = \"host\"` each run has the addresses that are free then"
                }
                None => "give it another",
            };
            free.map_err(|why| problems.spec(format!("node `{name}`: `ip` {ip} {why}: {remedy}"))).ok()?;
            Some(ip)
        });
        let mac = self.mac.and_then(|written| {
            let mac = parse_mac(written).and_then(|mac| macs.claim(mac.clone(), name).map(|()| mac));
            mac.map_err(|why| problems.spec(format!("node `{name}`: `mac` {written} {why}: give it another"))).ok()
        });
        (ip, mac)
    }
}

fn check_ip(ip: Ipv4Addr, network: &NetworkPlan) -> Result<(), String> {
    let [own, broadcast] = network.ends();
    match ip {
        _ if ip == own => Err("is that of the network itself".to_owned()),
        _ if ip == broadcast => Err("is the broadcast address of the network".to_owned()),
        _ if own < ip && ip < broadcast => Ok(()),
        _ if network.name == DEFAULT_NETWORK => Err(format!("is outside of the network {own}/{}", network.prefix)),
        _ => Err(format!("is outside of the network `{}`, {own}/{}", network.name, network.prefix)),
    }
}

/// The address as guests write it.
fn parse_mac(text: &str) -> Result<String, String> {
    let byte = |digits: &str| {
        let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| hex)
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match bytes.as_deref() {
        Some([0, 0, 0, 0, 0, 0]) => Err("stands for no address".to_owned()),
        Some([first, _, _, _, _, _]) if first & MULTICAST != 0 => {
            Err("is the address of a group, as its first byte is odd".to_owned())
        }
        Some([_, _, _, _, _, _]) => Ok(text.to_ascii_lowercase()),
        _ => Err("is no hardware address".to_owned()),
    }
}

/// Addresses of one kind that somebody has.
struct Taken<T>(Vec<(T, String)>);

impl<T: PartialEq> Taken<T> {
    fn new(by: impl Into<Vec<(T, String)>>) -> Self {
        Self(by.into())
    }

    /// By a node of this name.
    fn take(&mut self, address: T, node: &str) {
        self.0.push((address, format!("`{node}`")));
    }

    /// Takes the address for this node, or says who has it.
    fn claim(&mut self, address: T, node: &str) -> Result<(), String> {
        match self.0.iter().find(|(taken, _)| *taken == address) {
            Some((_, whose)) => Err(format!("is that of {whose}")),
            None => {
                self.take(address, node);
                Ok(())
            }
        }
    }

    fn take_if_free(&mut self, address: T, node: &str) -> bool {
        self.claim(address, node).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, NetworkSpec};

    fn assigned(nodes: &[NodeSpec], others: &[NodePlan], first: usize) -> Result<Vec<(u8, String)>, String> {
        let mut problems = Problems::default();
        let spec = ClusterSpec { nodes: nodes.to_vec(), ..ClusterSpec::new("t") };
        let networks = NetworkPlan::all(&spec, None, &mut problems);
        let addresses = assign(nodes, others, first, &networks, &mut problems);
        problems.into_result("t").map_err(|e| e.to_string())?;
        let addresses = addresses.into_iter().map(|addresses| addresses.expect("every node has its own"));
        let short = |Addresses { ip, mac, network }: Addresses<'_>| {
            assert_eq!(ip.octets()[..3], network.gateway.octets()[..3]);
            (ip.octets()[3], mac.trim_start_matches("52:54:00:").to_owned())
        };
        Ok(addresses.flatten().map(short).collect())
    }

    fn node(name: &str) -> NodeSpec {
        NodeSpec::new(name)
    }

    fn ip(octet: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, octet)
    }

    fn octets(nodes: &[NodeSpec]) -> Vec<u8> {
        assigned(nodes, &[], 0).unwrap().into_iter().map(|(octet, _)| octet).collect()
    }

    #[test]
    fn nobody_is_moved_by_what_another_asks_for() {
        assert_eq!(octets(&[node("a"), node("b"), node("c")]), [11, 12, 13]);
        assert_eq!(octets(&[node("a"), node("b").ip(ip(50)), node("c")]), [11, 50, 13]);
        assert_eq!(octets(&[node("a"), node("b").ip(ip(2)), node("c").ip(ip(254))]), [11, 2, 254]);
    }

    #[test]
    fn a_node_whose_place_is_taken_has_the_first_that_is_free() {
        assert_eq!(octets(&[node("a"), node("b").ip(ip(11)), node("c")]), [12, 11, 13]);
        assert_eq!(octets(&[node("a"), node("b"), node("c").ip(ip(11))]), [13, 12, 11]);
        assert_eq!(octets(&[node("a"), node("b").ip(ip(12)), node("c").ip(ip(11))]), [13, 12, 11]);
    }

    #[test]
    fn hardware_addresses_are_as_guests_write_them_and_each_once() {
        let nodes = [node("a"), node("b").mac("52:54:00:4D:00:0B"), node("c").ip(ip(50))];
        let own = |octet, mac: &str| (octet, mac.to_owned());
        let expected = [own(11, "4d:01:0b"), own(12, "4d:00:0b"), own(50, "4d:00:32")];
        assert_eq!(assigned(&nodes, &[], 0).unwrap(), expected);
    }

    #[test]
    fn all_that_cannot_be_is_said_at_once() {
        let nodes = [
            node("outside").ip([10, 78, 0, 5]),
            node("gateway").ip(ip(1)),
            node("network").ip(ip(0)),
            node("all").ip(ip(255)),
            node("one").ip(ip(50)).mac("02:00:00:00:00:01"),
            node("two").ip(ip(50)).mac("02:00:00:00:00:01"),
            node("group").mac("01:00:5e:00:00:01"),
            node("zero").mac("00:00:00:00:00:00"),
            node("bridge").mac("52:54:00:4D:00:01"),
            node("typo").mac("52:54:00"),
        ];
        let said = assigned(&nodes, &[], 0).unwrap_err();
        expect_test::expect![[r#"
            `t` cannot run, for 10 reasons:
              - node `outside`: `ip` 10.78.0.5 is outside of the network 10.77.0.0/24: give it another
              - node `gateway`: `ip` 10.77.0.1 is that of the gateway: give it another
              - node `network`: `ip` 10.77.0.0 is that of the network itself: give it another
              - node `all`: `ip` 10.77.0.255 is the broadcast address of the network: give it another
              - node `two`: `ip` 10.77.0.50 is that of `one`: give it another
              - node `two`: `mac` 02:00:00:00:00:01 is that of `one`: give it another
              - node `group`: `mac` 01:00:5e:00:00:01 is the address of a group, as its first byte is odd: give it another
              - node `zero`: `mac` 00:00:00:00:00:00 stands for no address: give it another
              - node `bridge`: `mac` 52:54:00:4D:00:01 is that of the bridge: give it another
              - node `typo`: `mac` 52:54:00 is no hardware address: give it another"#]]
        .assert_eq(&said);
    }

    #[test]
    fn each_network_has_its_own_addresses() {
        let router = node("router").network("front").network(NetworkSpec::new("back").ip([10, 77, 2, 254]));
        let nodes =
            [node("client").network("front").ip([10, 77, 1, 50]), router, node("db").network("back"), node("x")];
        let own = |octet, mac: &str| (octet, mac.to_owned());
        let expected =
            [own(50, "4d:01:32"), own(12, "4d:01:0c"), own(254, "4d:02:fe"), own(13, "4d:02:0d"), own(14, "4d:00:0e")];
        assert_eq!(assigned(&nodes, &[], 0).unwrap(), expected);
    }

    #[test]
    fn a_network_that_cannot_be_is_said() {
        let there = [node("a").network("front")];
        let networks = NetworkPlan::all(
            &ClusterSpec { nodes: there.to_vec(), ..ClusterSpec::new("t") },
            None,
            &mut Problems::default(),
        );
        let nodes = [
            node("elsewhere").network("back"),
            node("twice").network("front").network("front"),
            node("outside").network(NetworkSpec::new("front").ip(ip(9))),
            node("both").network(NetworkSpec::new("front").ip([10, 77, 1, 9])).ip([10, 77, 1, 10]),
        ];
        let mut problems = Problems::default();
        assign(&nodes, &[], 1, &networks, &mut problems);
        let many = ["a", "b", "c", "d", "e"].into_iter().fold(node("many"), NodeSpec::network);
        let spec = ClusterSpec { nodes: vec![many], ..ClusterSpec::new("t") };
        let networks = NetworkPlan::all(&spec, None, &mut problems);
        assign(&spec.nodes, &[], 0, &networks, &mut problems);
        expect_test::expect![[r#"
            `t` cannot run, for 5 reasons:
              - node `elsewhere`: there is no network `back`, and networks are made with the cluster, which has `default`, `front`: name it for the test, too
              - node `twice`: the network `front` twice: leave one of them out
              - node `both`: `ip` for itself and for its network `front`: leave one of them out
              - node `outside`: `ip` 10.77.0.9 is outside of the network `front`, 10.77.1.0/24: give it another
              - node `many`: 5 networks, but a node takes 4"#]].assert_eq(&problems.into_result("t").unwrap_err().to_string());
    }
}
