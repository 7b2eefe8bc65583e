//! Links and addresses, over netlink.

use std::{
    fs::OpenOptions,
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use futures_util::TryStreamExt;
use nix::libc;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, new_connection,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute},
    },
};

use crate::{
    error::{Error, Kind},
    plan::{DEFAULT_MTU, InterfacePlan, NetworkPlan},
    sys::make_persistent_tap,
};

/// The group of all links that are made here, by which they are removed together.
pub(super) const GROUP: u32 = 0x7674;

/// The prefix of an address that is a network of its own.
const SINGLE: u8 = 32;

/// The links of the network namespace in which this was opened.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(super) netlink: Handle,
}

impl Links {
    /// Opens a netlink socket in the namespace of the calling thread, and drives it on the current runtime.
    ///
    /// # Errors
    /// [`Kind::Host`] when the socket cannot be made.
    pub(crate) fn open() -> Result<Self, Error> {
        let (connection, netlink, _) = new_connection().map_err(|e| failed("open a netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Self { netlink })
    }

    /// Brings the loopback interface up, which a new namespace has down.
    pub(crate) async fn loopback_up(&self) -> Result<(), Error> {
        self.set_up(self.index("lo").await?).await.map_err(|e| failed("bring `lo` up", e))
    }

    /// Makes the bridge: without STP, because a port must forward at once, with the planned hardware address.
    pub(crate) async fn add_bridge(&self, network: &NetworkPlan) -> Result<(), Error> {
        let what = || format!("make the bridge `{}`", network.bridge);
        let (ip, ip6, mac) = network.of_bridge();
        let mac = parse_mac(mac)?;
        let bridge = LinkBridge::new(&network.bridge)
            .address(mac)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .up()
            .build();
        self.netlink.link().add(bridge).execute().await.map_err(|e| failed(what(), e))?;
        let index = self.index(&network.bridge).await?;
        if network.mtu != DEFAULT_MTU {
            // Not when it is made: then it would follow its ports.
            let changed = LinkUnspec::new_with_index(index).mtu(network.mtu).build();
            self.netlink.link().set(changed).execute().await.map_err(|e| failed(what(), e))?;
        }
        let address = IpAddr::V4(ip);
        self.netlink.address().add(index, address, network.prefix).execute().await.map_err(|e| failed(what(), e))?;
        if !no_duplicate_detection(&network.bridge).map_err(|e| failed(what(), e))? {
            return Ok(());
        }
        let address = IpAddr::V6(ip6);
        self.netlink.address().add(index, address, network.prefix6).execute().await.map_err(|e| failed(what(), e))
    }

    /// Makes the interface's tap and puts it on the bridge.
    pub(crate) async fn add_tap(&self, network: &NetworkPlan, interface: &InterfacePlan) -> Result<(), Error> {
        let what = || format!("make the tap `{}`", interface.tap);
        // Two ioctls, in the network namespace of the engine's threads; on another thread a teardown could not stop it.
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        device.and_then(|device| make_persistent_tap(&device, &interface.tap)).map_err(|e| failed(what(), e))?;
        let (bridge, tap) = (self.index(&network.bridge).await?, self.index(&interface.tap).await?);
        let group = LinkAttribute::Group(GROUP);
        let port = LinkUnspec::new_with_index(tap).mtu(network.mtu).controller(bridge);
        let port = port.append_extra_attribute(group).up().build();
        self.netlink.link().set(port).execute().await.map_err(|e| failed(what(), e))?;
        self.limit_port(interface).await
    }

    /// Makes a pair of interfaces: one on the bridge under the name of the interface's tap, the other, with this name and the
    /// planned hardware address, in the network namespace of this process, with which both go.
    pub(crate) async fn add_veth(
        &self,
        network: &NetworkPlan,
        interface: &InterfacePlan,
        pid: i32,
        name: &str,
    ) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(name)
            .address(parse_mac(&interface.mac)?)
            .setns_by_pid(pid.cast_unsigned())
            .build();
        let port = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(&interface.tap)
            .mtu(network.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(self.index(&network.bridge).await?)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .up()
            .build();
        let added = self.netlink.link().add(port).execute().await;
        added.map_err(|e| failed(format!("make the interfaces `{}`", interface.tap), e))?;
        self.limit_port(interface).await
    }

    /// Gives the bridge the address of a machine that is a part of this process. An address that it has is no error.
    pub(crate) async fn add_address(&self, network: &NetworkPlan, ip: Ipv4Addr) -> Result<(), Error> {
        let index = self.index(&network.bridge).await?;
        let added = self.netlink.address().add(index, IpAddr::V4(ip), SINGLE).replace().execute().await;
        added.map_err(|e| failed(format!("give the bridge the address {ip}"), e))
    }

    /// Takes it away again. An address that it does not have is no error.
    pub(crate) async fn remove_address(&self, network: &NetworkPlan, ip: Ipv4Addr) -> Result<(), Error> {
        let index = self.index(&network.bridge).await?;
        let mut message = AddressMessage::default();
        (message.header.family, message.header.prefix_len, message.header.index) = (AddressFamily::Inet, SINGLE, index);
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(ip)));
        match self.netlink.address().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.to_io().raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            removed => removed.map_err(|e| failed(format!("take the address {ip} from the bridge"), e)),
        }
    }

    /// Plugs a port of the bridge in, or pulls it.
    pub(crate) async fn set_port(&self, name: &str, up: bool) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(self.index(name).await?);
        let link = if up { link.up() } else { link.down() }.build();
        let set = self.netlink.link().set(link).execute().await;
        set.map_err(|e| failed(format!("switch `{name}` {}", if up { "on" } else { "off" }), e))
    }

    /// Tells the host where the interface's addresses are.
    ///
    /// With a permanent neighbour entry the host's first packet reaches the guest as soon as it listens; without one,
    /// ARP backs off for more than a second.
    pub(crate) async fn add_neighbour(&self, link: &str, interface: &InterfacePlan, mac: &str) -> Result<(), Error> {
        let (index, mac) = (self.index(link).await?, parse_mac(mac)?);
        let second = has_ipv6(link).then_some(IpAddr::V6(interface.ip6));
        for address in [IpAddr::V4(interface.ip)].into_iter().chain(second) {
            // In place of that of a machine that has left.
            let neighbour = self.netlink.neighbours().add(index, address).link_layer_address(&mac).replace();
            neighbour.execute().await.map_err(|e| failed(format!("enter {address} as a neighbour"), e))?;
        }
        Ok(())
    }

    /// Removes a link by its exact name. One that is not there is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.find(name).await? else { return Ok(()) };
        match self.netlink.link().del(index).execute().await {
            // The other end of a pair has just taken it along.
            Err(e) if is_absent(&e) => Ok(()),
            removed => removed.map_err(|e| failed(format!("remove the link `{name}`"), e)),
        }
    }

    /// Removes all links that were made here, if there are any, at once: the kernel waits 20 ms for its readers after each removal, and
    /// for a group only one time. For a namespace that is the cluster's own: the group is the same in all clusters.
    pub(crate) async fn remove_all(&self) -> Result<(), Error> {
        let mut request = self.netlink.link().del(0);
        request.message_mut().attributes.push(LinkAttribute::Group(GROUP));
        match request.execute().await {
            Err(e) if is_absent(&e) => Ok(()),
            removed => removed.map_err(|e| failed("remove the links", e)),
        }
    }

    /// All links of the namespace, with their indices.
    pub(crate) async fn names(&self) -> Result<Vec<(u32, String)>, Error> {
        let links: Vec<_> =
            self.netlink.link().get().execute().try_collect().await.map_err(|e| failed("list the links", e))?;
        let name = |attributes: Vec<LinkAttribute>| {
            attributes.into_iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name) } else { None })
        };
        Ok(links.into_iter().filter_map(|link| Some((link.header.index, name(link.attributes)?))).collect())
    }

    pub(super) async fn index(&self, name: &str) -> Result<u32, Error> {
        let found = self.find(name).await?;
        found.ok_or_else(|| Error::new(Kind::Host, format!("the link `{name}` has vanished")))
    }

    /// Asked by name: the kernel lists its links for one asker at a time and turns others away.
    async fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        match self.netlink.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(failed(format!("find the link `{name}`"), e)),
        }
    }

    async fn set_up(&self, index: u32) -> Result<(), rtnetlink::Error> {
        self.netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    }
}

/// Has the kernel use addresses of this link at once: they are planned, so nobody has to be asked whether they are
/// taken. `false` on a host without IPv6.
fn no_duplicate_detection(link: &str) -> io::Result<bool> {
    if !has_ipv6(link) {
        return Ok(false);
    }
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_dad"), "0").map(|()| true)
}

/// Asked in the network namespace of the calling thread.
pub(super) fn has_ipv6(link: &str) -> bool {
    Path::new("/proc/sys/net/ipv6/conf").join(link).exists()
}

pub(super) fn is_absent(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(e) if e.to_io().raw_os_error() == Some(libc::ENODEV))
}

pub(super) fn failed(what: impl AsRef<str>, why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Host, format!("cannot {}", what.as_ref())).caused_by(why)
}

pub(super) fn parse_mac(mac: &str) -> Result<Vec<u8>, Error> {
    let bytes: Option<Vec<u8>> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.filter(|b| b.len() == 6).ok_or_else(|| Error::new(Kind::Spec, format!("`{mac}` is no hardware address")))
}
