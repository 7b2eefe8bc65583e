//! The parts of a test's life that are timed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of a test's life, which follow each other in this order. How long each took is kept of every run, and a test can
/// set a limit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimedPhase {
    /// Looking at the host, making images and fixture disks that the cache does not have, and deciding what will be done.
    Plan,
    /// Waiting for volumes and for a share of the host.
    Lease,
    /// Making the cluster's network.
    Network,
    /// From the start of the machines until all of them answer.
    Boot,
    /// The body of the test, without the time for which its cluster was held.
    Body,
    /// Removing everything.
    Teardown,
}

impl TimedPhase {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Plan, Self::Lease, Self::Network, Self::Boot, Self::Body, Self::Teardown];

    /// The phase of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.to_string() == name)
    }
}

/// As a test writes it.
impl fmt::Display for TimedPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plan => "plan",
            Self::Lease => "lease",
            Self::Network => "network",
            Self::Boot => "boot",
            Self::Body => "body",
            Self::Teardown => "teardown",
        })
    }
}
