//! The steps of the readiness ladder.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of the readiness ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The VMM's process runs.
    VmmAlive,
    /// The VMM's API answers and its virtual CPUs run.
    ApiAnswers,
    /// The kernel has printed its first line.
    KernelSpeaks,
    /// The guest answers a TCP connect, if only with a refusal.
    NetworkAnswers,
    /// The SSH server has sent its identification line.
    SshBanner,
    /// An authenticated `true` has ended with 0.
    SshAuthenticated,
    /// The machine's own probe has succeeded: [`NodeSpec::ready`](super::NodeSpec::ready). Only of machines that have one.
    Probe,
}

impl Rung {
    /// The rungs that every machine climbs, from the first.
    pub const ALL: [Self; 6] = [
        Self::VmmAlive,
        Self::ApiAnswers,
        Self::KernelSpeaks,
        Self::NetworkAnswers,
        Self::SshBanner,
        Self::SshAuthenticated,
    ];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::VmmAlive => "VMM alive",
            Self::ApiAnswers => "API answers",
            Self::KernelSpeaks => "kernel speaks",
            Self::NetworkAnswers => "network answers",
            Self::SshBanner => "SSH banner",
            Self::SshAuthenticated => "SSH authenticated",
            Self::Probe => "its own probe",
        })
    }
}
