//! What the network of a cluster looks like, for whoever wonders why it fails.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use serde_json::{Map, Value, json};

use super::{Links, nft};
use crate::error::{Error, Kind};

impl Links {
    /// All links with their addresses and counters, and all neighbours, as the kernel tells them now.
    ///
    /// # Errors
    /// [`Kind::Host`] when the kernel cannot be asked.
    pub(crate) async fn state(&self) -> Result<Value, Error> {
        let failed = |e| Error::new(Kind::Host, "cannot list links and neighbours").caused_by(e);
        let links: Vec<_> = self.netlink.link().get().execute().try_collect().await.map_err(failed)?;
        let addresses: Vec<_> = self.netlink.address().get().execute().try_collect().await.map_err(failed)?;
        let neighbours: Vec<_> = self.netlink.neighbours().get().execute().try_collect().await.map_err(failed)?;
        let names: BTreeMap<_, _> = links.iter().map(|link| (link.header.index, name(link))).collect();
        let mut of_link: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for message in addresses {
            let address = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(format!("{ip}/{}", message.header.prefix_len)),
                _ => None,
            });
            of_link.entry(message.header.index).or_default().extend(address);
        }
        let links = links.iter().map(|message| {
            let mut link = link(message, &names);
            link.insert("addresses".into(), json!(of_link.remove(&message.header.index).unwrap_or_default()));
            Value::Object(link)
        });
        let neighbours = neighbours.iter().filter_map(|message| neighbour(message, &names));
        Ok(json!({ "links": links.collect::<Vec<_>>(), "neighbours": neighbours.collect::<Vec<_>>() }))
    }
}

/// All packet filters of the network namespace of the calling thread. Blocks while `nft` runs.
///
/// # Errors
/// [`Kind::Missing`] without `nft`; [`Kind::Host`] when it cannot list them.
pub(crate) fn rules() -> Result<Value, Error> {
    nft::ruleset().map(|rules| json!(rules))
}

fn name(message: &LinkMessage) -> String {
    let name = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    };
    message.attributes.iter().find_map(name).unwrap_or_default()
}

fn link(message: &LinkMessage, names: &BTreeMap<u32, String>) -> Map<String, Value> {
    let mut link = Map::new();
    link.insert("up".into(), json!(message.header.flags.contains(LinkFlags::Up)));
    for attribute in &message.attributes {
        let (key, value) = match attribute {
            LinkAttribute::IfName(name) => ("name", json!(name)),
            LinkAttribute::Address(mac) => ("mac", json!(mac_text(mac))),
            LinkAttribute::Mtu(mtu) => ("mtu", json!(mtu)),
            LinkAttribute::Controller(index) => ("bridge", json!(names.get(index))),
            LinkAttribute::OperState(state) => ("state", json!(format!("{state:?}").to_lowercase())),
            LinkAttribute::Stats64(stats) => (
                "counters",
                json!({
                    "rx_packets": stats.rx_packets, "tx_packets": stats.tx_packets,
                    "rx_bytes": stats.rx_bytes, "tx_bytes": stats.tx_bytes,
                    "rx_errors": stats.rx_errors, "tx_errors": stats.tx_errors,
                    "rx_dropped": stats.rx_dropped, "tx_dropped": stats.tx_dropped,
                }),
            ),
            _ => continue,
        };
        link.insert(key.into(), value);
    }
    link
}

fn neighbour(message: &NeighbourMessage, names: &BTreeMap<u32, String>) -> Option<Value> {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => ip = Some(to.to_string()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => ip = Some(to.to_string()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(mac_text(bytes)),
            _ => {}
        }
    }
    let state = format!("{:?}", message.header.state).to_lowercase();
    Some(json!({ "link": names.get(&message.header.ifindex), "ip": ip?, "mac": mac, "state": state }))
}

fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
