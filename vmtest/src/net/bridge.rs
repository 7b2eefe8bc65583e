//! Links and addresses, over netlink.

use std::{fs::OpenOptions, io, net::IpAddr, path::Path};

use futures_util::TryStreamExt;
use nix::libc;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, new_connection, packet_route::link::LinkAttribute};

use crate::{
    error::{Error, Kind},
    plan::{NetworkPlan, NodePlan},
    sys::make_persistent_tap,
};

/// The group of all links that are made here, by which they are removed together.
const GROUP: u32 = 0x7674;

/// The links of the network namespace in which this was opened.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    netlink: Handle,
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
        let mac = parse_mac(&network.mac)?;
        let bridge = LinkBridge::new(&network.bridge)
            .address(mac)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .up()
            .build();
        self.netlink.link().add(bridge).execute().await.map_err(|e| failed(what(), e))?;
        let index = self.index(&network.bridge).await?;
        let address = IpAddr::V4(network.gateway);
        self.netlink.address().add(index, address, network.prefix).execute().await.map_err(|e| failed(what(), e))?;
        if !no_duplicate_detection(&network.bridge).map_err(|e| failed(what(), e))? {
            return Ok(());
        }
        let address = IpAddr::V6(network.gateway6);
        self.netlink.address().add(index, address, network.prefix6).execute().await.map_err(|e| failed(what(), e))
    }

    /// Makes the node's tap, puts it on the bridge and tells the host where the node's address is.
    ///
    /// With a permanent neighbour entry the host's first packet reaches the guest as soon as it listens; without one,
    /// ARP backs off for more than a second.
    pub(crate) async fn add_port(&self, network: &NetworkPlan, node: &NodePlan) -> Result<(), Error> {
        let what = || format!("make the tap `{}`", node.tap);
        // Two ioctls, in the network namespace of the engine's threads; on another thread a teardown could not stop it.
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        device.and_then(|device| make_persistent_tap(&device, &node.tap)).map_err(|e| failed(what(), e))?;
        let (bridge, tap) = (self.index(&network.bridge).await?, self.index(&node.tap).await?);
        let group = LinkAttribute::Group(GROUP);
        let port = LinkUnspec::new_with_index(tap).controller(bridge).append_extra_attribute(group).up().build();
        self.netlink.link().set(port).execute().await.map_err(|e| failed(what(), e))?;
        let mac = parse_mac(&node.mac)?;
        let second = has_ipv6(&network.bridge).then_some(IpAddr::V6(node.ip6));
        for address in [IpAddr::V4(node.ip)].into_iter().chain(second) {
            let neighbour = self.netlink.neighbours().add(bridge, address).link_layer_address(&mac);
            neighbour.execute().await.map_err(|e| failed(format!("enter `{}` as a neighbour", node.name), e))?;
        }
        Ok(())
    }

    /// Removes a link by its exact name. One that is not there is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.names().await?.into_iter().find_map(|(index, n)| (n == name).then_some(index)) else {
            return Ok(());
        };
        self.netlink.link().del(index).execute().await.map_err(|e| failed(format!("remove the link `{name}`"), e))
    }

    /// Removes all links that were made here, if there are any, at once: the kernel waits 20 ms for its readers after each removal, and
    /// for a group only one time. For a namespace that is the cluster's own: the group is the same in all clusters.
    pub(crate) async fn remove_all(&self) -> Result<(), Error> {
        let mut request = self.netlink.link().del(0);
        request.message_mut().attributes.push(LinkAttribute::Group(GROUP));
        match request.execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.to_io().raw_os_error() == Some(libc::ENODEV) => Ok(()),
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

    async fn index(&self, name: &str) -> Result<u32, Error> {
        let found = self.names().await?.into_iter().find(|(_, n)| n == name);
        found.map(|(index, _)| index).ok_or_else(|| Error::new(Kind::Host, format!("the link `{name}` has vanished")))
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
fn has_ipv6(link: &str) -> bool {
    Path::new("/proc/sys/net/ipv6/conf").join(link).exists()
}

fn failed(what: impl AsRef<str>, why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Host, format!("cannot {}", what.as_ref())).caused_by(why)
}

fn parse_mac(mac: &str) -> Result<Vec<u8>, Error> {
    let bytes: Option<Vec<u8>> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.filter(|b| b.len() == 6).ok_or_else(|| Error::new(Kind::Spec, format!("`{mac}` is no hardware address")))
}
