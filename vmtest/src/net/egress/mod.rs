//! The way out of a cluster's network, for tests that ask for it, and none for all others.

mod names;
mod pasta;
mod rules;

pub(crate) use names::Relay;
pub(crate) use pasta::{Output, Uplink, pasta};
pub(crate) use rules::{forward, no_forwarding, rules};

use super::nft;

/// What this host lacks for it; each with its remedy.
pub(crate) fn missing() -> Vec<String> {
    nft::missing().into_iter().chain(pasta::missing()).collect()
}
