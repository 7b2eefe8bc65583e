//! A whole cluster, as asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Allow, Budget, Capability, NetworkPlace, NodeSettings, NodeSpec, TimedPhase};

/// What a test or a builder asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// The test's path, or the name given to the builder; shown wherever the run is named.
    pub name: String,
    /// The folder against which the paths of fixtures and kernels are resolved.
    pub base: PathBuf,
    /// What holds for every node that does not say otherwise.
    pub defaults: NodeSettings,
    /// The machines, in the order of their addresses.
    pub nodes: Vec<NodeSpec>,
    /// Where its networks are.
    #[serde(default)]
    pub place: NetworkPlace,
    /// Networks beside the default one and those that a node names: for machines that join later.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The largest packet in bytes on the cluster's networks; `None` is 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether its machines reach beyond its network.
    #[serde(default)]
    pub egress: bool,
    /// Limit for boot and body together, before scaling; `None` is the default of [`crate::plan`].
    pub timeout: Option<Duration>,
    /// The backends that may run it, in order of preference; empty leaves it to the settings.
    pub backends: Vec<String>,
    /// What the backend that runs it must be able to do: of those that may run it, the first that can is taken.
    #[serde(default)]
    pub requires: BTreeSet<Capability>,
    /// Machines that join later, for which room on the host is kept from the start.
    #[serde(default)]
    pub budget: Budget,
    /// How long each of these may take, before scaling: a test whose phase is over fails.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phase_budgets: BTreeMap<TimedPhase, Duration>,
    /// What does not fail it.
    pub allow: BTreeSet<Allow>,
}

impl ClusterSpec {
    /// An empty cluster of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Requires something of the backend.
    #[must_use]
    pub fn requires(mut self, capability: Capability) -> Self {
        self.requires.insert(capability);
        self
    }
}
