//! The network of a cluster: a namespace, a bridge, a tap for each node; and what of it is in the network of whoever
//! started the test.

mod bridge;
mod capture;
pub(crate) mod egress;
mod elsewhere;
mod free;
mod namespace;
mod nft;
mod pair;
mod pcapng;
mod rate;
mod state;

pub(crate) use bridge::Links;
pub(crate) use capture::Capture;
pub(crate) use elsewhere::{enter_namespace, hold_namespace, own_namespace, within};
pub(crate) use free::{Claimed, claim};
pub(crate) use namespace::{enter_new_namespace, missing, missing_for_host, missing_right, missing_tun};
pub(crate) use nft::{Condition, Hook, Rule, Table, Verdict, missing as missing_nft, remove_table, tables};
pub(crate) use pair::{Pair, mark};
pub(crate) use state::rules;
