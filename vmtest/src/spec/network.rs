//! One node's place on a network, as asked.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// An interface of a machine on a network of the cluster. Setters take and return `self` and never fail: conflicts are
/// found in [`crate::plan::plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The network's name.
    pub name: String,
    /// The address that the machine shall have there.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// The hardware address that it shall have there.
    #[serde(default)]
    pub mac: Option<String>,
}

impl NetworkSpec {
    /// An interface on the network of this name, with addresses of which nothing is said.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ip: None, mac: None }
    }

    /// The address there, as [`NodeSpec::ip`](super::NodeSpec::ip) says it for the first network.
    #[must_use]
    pub fn ip(mut self, ip: impl Into<Ipv4Addr>) -> Self {
        self.ip = Some(ip.into());
        self
    }

    /// The hardware address there, as [`NodeSpec::mac`](super::NodeSpec::mac) says it for the first network.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }
}

impl From<&str> for NetworkSpec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for NetworkSpec {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}
