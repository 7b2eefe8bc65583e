//! The way out of a cluster's network, for tests that ask for it, and none for all others.

mod forwarding;
mod names;
mod pasta;
mod rules;

pub(crate) use forwarding::{restore_forwarding, turn_forwarding_on};
pub(crate) use names::Relay;
pub(crate) use pasta::{Output, Uplink, pasta};
pub(crate) use rules::{forward, host_rules, no_forwarding, rules};

use super::{namespace::may_change_network, nft};

/// With what the name of a run's table ends in the network that forwards for it.
const TABLE: &str = "-egress";

/// The name of the table that this run has in the network that forwards for it.
pub(crate) fn host_table(run: &str) -> String {
    format!("{run}{TABLE}")
}

/// What this host lacks for it, by a pair of interfaces or through `pasta`; each with its remedy.
pub(crate) fn missing(by_pair: bool) -> Vec<String> {
    nft::missing().into_iter().chain((!by_pair).then(pasta::missing).flatten()).collect()
}

/// Why no way out can lead by a pair of interfaces to the network of the calling thread, if none can.
pub(crate) fn why_no_pair() -> Option<String> {
    if !may_change_network() {
        return Some("that takes root in the network where the test is started".into());
    }
    nft::missing().or_else(forwarding::why_not).or_else(|| match nft::foreign_forward_filter() {
        Ok(foreign) => foreign.map(|table| format!("the table `{table}` there may drop what passes")),
        Err(e) => Some(e.to_string()),
    })
}
