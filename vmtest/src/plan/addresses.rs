//! Which machine has which address.

use std::net::Ipv4Addr;

use super::{
    NetworkPlan, NodePlan,
    network::{macs, node_ip, node_ips},
    problems::Problems,
};
use crate::spec::NodeSpec;

/// The bit of the first byte that makes a hardware address one of a group.
const MULTICAST: u8 = 1;

/// What one machine is reached by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ip: Ipv4Addr,
    pub(super) mac: String,
}

/// Gives each of these nodes its addresses, beside those that have been there; the first of them has this position.
///
/// What a node asks for comes first. Every other has the address of its position, so that nobody is moved by what others
/// ask for, unless that very address is taken: then the first that is free. `None` for a node only where that is a
/// problem, which is named, and for more nodes than there are addresses.
pub(super) fn assign(
    nodes: &[NodeSpec],
    others: &[NodePlan],
    first: usize,
    network: &NetworkPlan,
    problems: &mut Problems,
) -> Vec<Option<Addresses>> {
    let mut ips = Taken::new([(network.gateway, "the gateway".to_owned())]);
    let mut macs_taken = Taken::new([(network.mac.clone(), "the bridge".to_owned())]);
    for other in others {
        ips.take(other.ip, &other.name);
        macs_taken.take(other.mac.clone(), &other.name);
    }

    let asked: Vec<_> = nodes.iter().map(|node| asked(node, network, &mut ips, &mut macs_taken, problems)).collect();
    let mut planned: Vec<Option<Ipv4Addr>> = (first..)
        .zip(nodes)
        .zip(&asked)
        .map(|((index, node), (ip, _))| match node.ip {
            Some(_) => *ip,
            None => node_ip(index).filter(|&ip| ips.take_if_free(ip, &node.name)),
        })
        .collect();
    for (node, ip) in nodes.iter().zip(&mut planned).filter(|(node, ip)| node.ip.is_none() && ip.is_none()) {
        *ip = node_ips().find(|&ip| ips.take_if_free(ip, &node.name));
    }
    let nodes = nodes.iter().zip(asked).zip(planned);
    nodes
        .map(|((node, (_, asked)), ip)| {
            let ip = ip?;
            let mac = match node.mac {
                Some(_) => asked,
                None => macs(ip).find(|mac| macs_taken.take_if_free(mac.clone(), &node.name)),
            };
            Some(Addresses { ip, mac: mac? })
        })
        .collect()
}

/// What this node asks for and can have.
fn asked(
    node: &NodeSpec,
    network: &NetworkPlan,
    ips: &mut Taken<Ipv4Addr>,
    macs: &mut Taken<String>,
    problems: &mut Problems,
) -> (Option<Ipv4Addr>, Option<String>) {
    let name = &node.name;
    let ip = node.ip.and_then(|ip| {
        let free = check_ip(ip, network).and_then(|()| ips.claim(ip, name));
        free.map_err(|why| problems.spec(format!("node `{name}`: `ip` {ip} {why}: give it another"))).ok()?;
        Some(ip)
    });
    let mac = node.mac.as_ref().and_then(|written| {
        let mac = parse_mac(written).and_then(|mac| macs.claim(mac.clone(), name).map(|()| mac));
        mac.map_err(|why| problems.spec(format!("node `{name}`: `mac` {written} {why}: give it another"))).ok()
    });
    (ip, mac)
}

fn check_ip(ip: Ipv4Addr, network: &NetworkPlan) -> Result<(), String> {
    let [own, broadcast] = network.ends();
    match ip {
        _ if ip == own => Err("is that of the network itself".to_owned()),
        _ if ip == broadcast => Err("is the broadcast address of the network".to_owned()),
        _ if own < ip && ip < broadcast => Ok(()),
        _ => Err(format!("is outside of the network {own}/{}", network.prefix)),
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

    fn assigned(nodes: &[NodeSpec], others: &[NodePlan], first: usize) -> Result<Vec<(u8, String)>, String> {
        let mut problems = Problems::default();
        let addresses = assign(nodes, others, first, &NetworkPlan::default(), &mut problems);
        problems.into_result("t").map_err(|e| e.to_string())?;
        let short = |Addresses { ip, mac }: Addresses| {
            assert_eq!(ip.octets()[..3], [10, 77, 0]);
            (ip.octets()[3], mac.trim_start_matches("52:54:00:").to_owned())
        };
        Ok(addresses.into_iter().map(|addresses| short(addresses.expect("every node has its own"))).collect())
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
}
