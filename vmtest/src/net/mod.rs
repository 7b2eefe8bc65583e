//! The network of a cluster: a namespace, a bridge, a tap for each node.

mod bridge;
mod namespace;
#[allow(dead_code, reason = "its users come with the next changes")]
mod nft;
mod rate;

pub(crate) use bridge::Links;
pub(crate) use namespace::{enter_new_namespace, missing};
