//! One interface of a machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::RatePlan;

/// A machine's place on one of the cluster's networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfacePlan {
    /// The network's name.
    pub network: String,
    /// Address there.
    pub ip: Ipv4Addr,
    /// IPv6 address there.
    pub ip6: Ipv6Addr,
    /// Hardware address, `52:54:00:…`.
    pub mac: String,
    /// Name of the tap in the cluster's network namespace.
    pub tap: String,
    /// How much it sends and receives at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RatePlan>,
}

impl InterfacePlan {
    /// The names of its links in the cluster's network namespace.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        [self.tap.as_str()].into_iter().chain(self.rate.as_ref().map(|rate| rate.ifb.as_str()))
    }
}
