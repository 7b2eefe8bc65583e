//! The network of a cluster: a namespace, a bridge, a tap for each node.

mod bridge;
pub(crate) mod egress;
#[allow(dead_code, reason = "its users come with the next changes")]
mod elsewhere;
#[allow(dead_code, reason = "its users come with the next changes")]
mod free;
mod namespace;
mod nft;
#[allow(dead_code, reason = "its users come with the next changes")]
mod pair;
mod rate;

pub(crate) use bridge::Links;
#[cfg(test)]
pub(crate) use elsewhere::hold_namespace;
pub(crate) use elsewhere::within;
pub(crate) use namespace::{enter_new_namespace, missing};
pub(crate) use nft::remove_table;
#[cfg(test)]
pub(crate) use nft::{Table, tables};
#[cfg(test)]
pub(crate) use pair::Pair;
pub(crate) use pair::mark;
