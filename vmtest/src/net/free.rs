//! Networks that nobody else has, in the network of whoever started a test.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use futures_util::TryStreamExt;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

use super::bridge::{Links, failed};
use crate::{
    error::{Error, Kind},
    plan::{gateway, ip6},
};

/// Length in bits of a network's prefix, and of the second one's, which goes with it.
const PREFIX: u8 = 24;
const PREFIX6: u8 = 64;
/// A route for half of all addresses or more leads to where no other does, and is none of a network.
const LEAST_PREFIX: u8 = 2;
/// How many who have something an error names.
const NAMED: usize = 4;

/// A network that this process has claimed for as long as this value lives: its number, and a socket of its name.
///
/// Names of such sockets belong to a network namespace: the kernel gives each to one process, whoever that is, and takes
/// it back when the process ends.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// The third byte of its addresses.
    pub(crate) number: u8,
    _socket: UnixListener,
}

/// An address or a route of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    net: IpAddr,
    prefix: u8,
    /// For people.
    what: String,
}

/// Claims so many networks, from this number on, of which the calling thread's network has no address and no route.
///
/// # Errors
/// [`Kind::Missing`] where there are not as many, with who has them; [`Kind::Host`] when that cannot be told.
pub(crate) async fn claim(count: usize, first: u8) -> Result<Vec<Claimed>, Error> {
    let links = Links::open()?;
    let mut foreign = links.foreign().await?;
    let mut claimed: Vec<Claimed> = Vec::new();
    let mut by_others = 0;
    for number in first..=u8::MAX {
        if claimed.len() == count {
            break;
        }
        if taken_by(number, &foreign).is_some() {
            continue;
        }
        let Some(own) = Claimed::try_take(number)? else {
            by_others += 1;
            continue;
        };
        // Somebody may have made a link of it, and gone, since the look and before the claim.
        foreign = links.foreign().await?;
        if taken_by(number, &foreign).is_none() {
            claimed.push(own);
        }
    }
    if claimed.len() == count { Ok(claimed) } else { Err(exhausted(count, by_others, &foreign)) }
}

impl Claimed {
    /// `None` where another process has it.
    fn try_take(number: u8) -> Result<Option<Self>, Error> {
        let name = format!("vmtest-network-10.77.{number}");
        let bound = SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(socket) => Ok(Some(Self { number, _socket: socket })),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(Error::new(Kind::Host, format!("cannot claim the network 10.77.{number}.0/24")).caused_by(e)),
        }
    }
}

fn taken_by(number: u8, foreign: &[Foreign]) -> Option<&Foreign> {
    let host = gateway(number);
    let own = [(IpAddr::V4(host), PREFIX), (IpAddr::V6(ip6(host)), PREFIX6)];
    foreign.iter().find(|other| own.iter().any(|&own| overlap(own, (other.net, other.prefix))))
}

/// Whether one of two networks is in the other.
fn overlap((a, a_prefix): (IpAddr, u8), (b, b_prefix): (IpAddr, u8)) -> bool {
    let prefix = a_prefix.min(b_prefix);
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    a.is_ipv4() == b.is_ipv4() && (bits(a) ^ bits(b)) & mask == 0
}

fn exhausted(count: usize, by_others: usize, foreign: &[Foreign]) -> Error {
    let mut owners = BTreeMap::<&str, usize>::new();
    for owner in (0..=u8::MAX).filter_map(|number| taken_by(number, foreign)) {
        *owners.entry(&owner.what).or_default() += 1;
    }
    let mut owners: Vec<_> = owners.into_iter().collect();
    owners.sort_by_key(|&(_, takes)| std::cmp::Reverse(takes));
    let unnamed = owners.len().saturating_sub(NAMED);
    let mut said: Vec<_> = owners.iter().take(NAMED).map(|(what, takes)| format!("{takes} by {what}")).collect();
    said.extend((unnamed > 0).then(|| format!("others by {unnamed} more")));
    said.extend((by_others > 0).then(|| format!("{by_others} by other clusters that live")));
    let wanted = if count == 1 { "a network" } else { "as many networks" };
    let message = format!(
        "there is not {wanted} free for `network = \"host\"` among the 256 of 10.77.0.0/16: {}. Remove what is not needed, or \
         leave `network` out: then the cluster has a network of its own",
        said.join(", ")
    );
    Error::new(Kind::Missing, message)
}

impl Links {
    /// All addresses and routes of this network, but for routes that lead everywhere.
    async fn foreign(&self) -> Result<Vec<Foreign>, Error> {
        let names: BTreeMap<_, _> = self.names().await?.into_iter().collect();
        let name = |index: u32| names.get(&index).map_or_else(|| format!("link {index}"), |name| format!("`{name}`"));
        let mut foreign = Vec::new();
        let addresses: Vec<_> = self.netlink.address().get().execute().try_collect().await.map_err(unknown)?;
        for address in addresses {
            let (prefix, index) = (address.header.prefix_len, address.header.index);
            let ips = address.attributes.iter().filter_map(|attribute| match attribute {
                AddressAttribute::Address(ip) | AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            foreign.extend(ips.map(|net| Foreign {
                net,
                prefix,
                what: format!("the address {net}/{prefix} of {}", name(index)),
            }));
        }
        let requests = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for request in requests {
            let routes: Vec<_> = self.netlink.route().get(request).execute().try_collect().await.map_err(unknown)?;
            foreign.extend(routes.iter().filter_map(|route| self::route(route, name)));
        }
        Ok(foreign)
    }
}

fn route(route: &RouteMessage, name: impl Fn(u32) -> String) -> Option<Foreign> {
    let net = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let via =
        route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None });
    let prefix = route.header.destination_prefix_length;
    let of = via.map_or_else(String::new, |index| format!(" by {}", name(index)));
    (prefix >= LEAST_PREFIX).then(|| Foreign { net, prefix, what: format!("the route to {net}/{prefix}{of}") })
}

fn unknown(why: rtnetlink::Error) -> Error {
    failed("tell which addresses and routes this network has", why)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;
    use crate::net::enter_new_namespace;

    /// Does this on a thread in a new network in which these commands were carried out.
    fn in_network<T: Send>(commands: &[&str], work: impl AsyncFnOnce() -> T + Send) -> T {
        let on_its_thread = || {
            enter_new_namespace().unwrap();
            for command in commands {
                assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "{command}");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        };
        thread::scope(|scope| scope.spawn(on_its_thread).join().unwrap())
    }

    /// Waits until these are free again: a child that another test has just forked has every socket until it executes
    /// something.
    fn released(numbers: impl IntoIterator<Item = u8>) {
        for number in numbers {
            while Claimed::try_take(number).unwrap().is_none() {
                thread::yield_now();
            }
        }
    }

    fn numbers(claimed: &[Claimed]) -> Vec<u8> {
        claimed.iter().map(|claimed| claimed.number).collect()
    }

    #[test]
    fn networks_overlap_where_one_is_in_the_other() {
        let net = |text: &str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            (ip.parse().unwrap(), prefix.parse().unwrap())
        };
        for (a, b, expected) in [
            ("10.77.5.1/24", "10.77.5.77/32", true),
            ("10.77.5.1/24", "10.0.0.0/8", true),
            ("10.77.5.1/24", "10.77.4.0/23", true),
            ("10.77.5.1/24", "10.77.6.0/23", false),
            ("10.77.5.1/24", "0.0.0.0/0", true),
            ("10.77.5.1/24", "::/0", false),
            ("fd77:0:0:5::1/64", "fd77::/48", true),
            ("fd77:0:0:5::1/64", "fd77::1/64", false),
        ] {
            assert_eq!(overlap(net(a), net(b)), expected, "{a} {b}");
            assert_eq!(overlap(net(b), net(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_has_an_address_a_route_or_an_owner_is_passed_over() {
        let commands = [
            "link add d0 type bridge",
            "link set d0 up",
            "addr add 10.77.0.9/32 dev d0",
            "addr add fd77:0:0:1::1/64 dev d0",
            "route add 10.77.2.0/23 dev d0",
            "route add blackhole 10.77.4.7",
            "route add 10.77.5.0/24 dev d0 table 77",
            "route add default dev d0",
            "route add 128.0.0.0/1 dev d0",
            "route add 0.0.0.0/1 dev d0",
        ];
        in_network(&commands, async || {
            let first = claim(2, 0).await.unwrap();
            assert_eq!(numbers(&first), [6, 7]);
            let second = claim(1, 0).await.unwrap();
            assert_eq!(numbers(&second), [8]);
            drop(first);
            released([6, 7]);
            assert_eq!(numbers(&claim(3, 0).await.unwrap()), [6, 7, 9]);
            released([6, 7, 9]);
            assert_eq!(numbers(&claim(1, 7).await.unwrap()), [7]);
        });
    }

    #[test]
    fn another_network_has_other_owners() {
        in_network(&[], async || {
            let held = claim(1, 0).await.unwrap();
            in_network(&[], async || assert_eq!(numbers(&claim(1, 0).await.unwrap()), [0]));
            assert_eq!(numbers(&held), [0]);
        });
    }

    #[test]
    fn where_none_is_free_it_is_said_who_has_them() {
        let commands = ["link add d0 type bridge", "link set d0 up", "route add 10.77.0.0/17 dev d0"];
        in_network(&commands, async || {
            let held = claim(127, 0).await.unwrap();
            let error = claim(2, 0).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Missing);
            let said =
                "128 by the route to 10.77.0.0/17 by `d0`, 127 by other clusters that live. Remove what is not needed";
            assert!(error.to_string().contains(said), "{error}");
            released([255]);
            assert_eq!(numbers(&claim(1, 0).await.unwrap()), [255]);
            drop(held);
        });
    }
}
