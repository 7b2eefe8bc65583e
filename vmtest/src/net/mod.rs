//! The network of a cluster: a namespace, a bridge, a tap for each node.

mod bridge;
pub(crate) mod egress;
mod namespace;
mod nft;
mod rate;

pub(crate) use bridge::Links;
pub(crate) use namespace::{enter_new_namespace, missing};
