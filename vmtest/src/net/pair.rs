//! Pairs of interfaces between a cluster's network and that of whoever started the test, where they are marked as the
//! run's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use futures_util::TryStreamExt;
use nix::libc;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
    },
};

use super::bridge::{GROUP, Links, failed, has_ipv6, is_absent, parse_mac};
use crate::{
    error::{Error, Kind},
    plan::EgressPlan,
};

/// A pair of interfaces that crosses from one network into another.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    /// The run that has it.
    pub(crate) run: &'a str,
    /// The name of the end that is here.
    pub(crate) name: &'a str,
    /// Its hardware address.
    pub(crate) mac: &'a str,
    /// The name of the other end, in the network where that is.
    pub(crate) peer: &'a str,
    /// The largest packet in bytes.
    pub(crate) mtu: u32,
}

/// By what everybody sees whose something is in the network of others: the alias of an interface, the comment of a rule.
pub(crate) fn mark(run: &str) -> String {
    format!("vmtest:{run}")
}

impl Links {
    /// Makes a pair whose other end is in the network namespace behind this descriptor. This end has the mark of its run
    /// from the first moment: until it has its alias, by its group.
    ///
    /// # Errors
    /// [`Kind::Host`]; where there is a link of this name already, with what to do about it.
    pub(crate) async fn add_pair(&self, pair: &Pair<'_>, other: BorrowedFd<'_>) -> Result<(), Error> {
        let what = || format!("make the interface `{}` in the host's network", pair.name);
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(pair.peer).mtu(pair.mtu).setns_by_fd(other.as_raw_fd());
        let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pair.name)
            .mtu(pair.mtu)
            .address(parse_mac(pair.mac)?)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        self.netlink.link().add(link).execute().await.map_err(|e| match &e {
            rtnetlink::Error::NetlinkError(why) if why.to_io().raw_os_error() == Some(libc::EEXIST) => {
                let remedy =
                    format!("it is not of this run: remove it with `ip link delete {}`, and try again", pair.name);
                Error::new(Kind::Host, format!("cannot {}: there is one, and {remedy}", what())).caused_by(e)
            }
            _ => failed(what(), e),
        })?;
        let index = self.index(pair.name).await?;
        let marked = LinkUnspec::new_with_index(index).alias(mark(pair.run)).build();
        self.netlink.link().set(marked).execute().await.map_err(|e| failed(what(), e))?;
        // Before it is up: a guest could become the router of this host.
        no_router_advertisements(pair.name).map_err(|e| failed(what(), e))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.netlink.link().set(up).execute().await.map_err(|e| failed(what(), e))
    }

    /// Puts the end of a pair that is here on a bridge.
    pub(crate) async fn plug(&self, end: &str, bridge: &str) -> Result<(), Error> {
        let (end_index, bridge) = (self.index(end).await?, self.index(bridge).await?);
        let group = LinkAttribute::Group(GROUP);
        let port = LinkUnspec::new_with_index(end_index).controller(bridge).append_extra_attribute(group).up().build();
        self.netlink.link().set(port).execute().await.map_err(|e| failed(format!("plug `{end}` in"), e))
    }

    /// Gives the end of a pair that is here its addresses. Without the second on a host that has no IPv6.
    pub(crate) async fn add_addresses(
        &self,
        end: &str,
        (ip, prefix): (Ipv4Addr, u8),
        second: Option<(Ipv6Addr, u8)>,
    ) -> Result<(), Error> {
        let what = |ip: IpAddr| format!("give the interface `{end}` the address {ip}");
        let index = self.index(end).await?;
        let add = |ip: IpAddr, prefix| {
            let mut add = self.netlink.address().add(index, ip, prefix);
            // It is planned, so nobody has to be asked whether it is taken.
            add.message_mut().header.flags = AddressHeaderFlags::Nodad;
            add.execute()
        };
        add(ip.into(), prefix).await.map_err(|e| failed(what(ip.into()), e))?;
        let Some((ip6, prefix6)) = second else { return Ok(()) };
        match add(ip6.into(), prefix6).await {
            Err(rtnetlink::Error::NetlinkError(e)) if lacks_ipv6(e.to_io().raw_os_error()) => Ok(()),
            added => added.map_err(|e| failed(what(ip6.into()), e)),
        }
    }

    /// Has the end of a pair that is here lead to everywhere.
    pub(crate) async fn lead_out(&self, egress: &EgressPlan) -> Result<(), Error> {
        let what = || format!("lead out through `{}`", egress.uplink);
        let index = self.index(&egress.uplink).await?;
        let up = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::Group(GROUP)).up().build();
        self.netlink.link().set(up).execute().await.map_err(|e| failed(what(), e))?;
        self.add_addresses(&egress.uplink, (egress.address, egress.prefix), None).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(egress.gateway).output_interface(index).build();
        self.netlink.route().add(route).execute().await.map_err(|e| failed(what(), e))
    }

    /// Removes a link if it has the mark of this run. One that is not there, or is somebody else's, is no error: then it
    /// stays.
    pub(crate) async fn remove_marked(&self, name: &str, run: &str) -> Result<(), Error> {
        let what = || format!("remove the link `{name}` from the host's network");
        let found = self.netlink.link().get().match_name(name.to_owned()).execute().try_next().await;
        let index = match found {
            Ok(Some(link)) if is_of(&link, run) => link.header.index,
            Ok(_) => return Ok(()),
            Err(e) if is_absent(&e) => return Ok(()),
            Err(e) => return Err(failed(what(), e)),
        };
        match self.netlink.link().del(index).execute().await {
            Err(e) if is_absent(&e) => Ok(()),
            removed => removed.map_err(|e| failed(what(), e)),
        }
    }

    /// The names of the links that have the mark of this run and begin with this.
    pub(crate) async fn marked(&self, prefix: &str, run: &str) -> Result<Vec<String>, Error> {
        let links: Vec<_> =
            self.netlink.link().get().execute().try_collect().await.map_err(|e| failed("list the links", e))?;
        let name = |link: &LinkMessage| {
            link.attributes
                .iter()
                .find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.clone()) } else { None })
        };
        let marked = links.iter().filter(|link| is_of(link, run)).filter_map(name);
        Ok(marked.filter(|name| name.starts_with(prefix)).collect())
    }
}

/// Whether this link has the mark of the run. One that its maker could not give an alias any more is known by the group, of
/// which the name says whose it is.
fn is_of(link: &LinkMessage, run: &str) -> bool {
    let alias =
        link.attributes.iter().find_map(|a| if let LinkAttribute::IfAlias(alias) = a { Some(alias) } else { None });
    match alias {
        Some(alias) => *alias == mark(run),
        None => link.attributes.contains(&LinkAttribute::Group(GROUP)),
    }
}

/// Has the kernel, in the network of the calling thread, believe no router behind this link.
fn no_router_advertisements(link: &str) -> io::Result<()> {
    if !has_ipv6(link) {
        return Ok(());
    }
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "0")
}

/// How a kernel answers that has no IPv6, or has it switched off for this interface.
fn lacks_ipv6(errno: Option<i32>) -> bool {
    errno.is_some_and(|errno| [libc::EACCES, libc::EOPNOTSUPP, libc::EAFNOSUPPORT].contains(&errno))
}
