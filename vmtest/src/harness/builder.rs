//! The macro without the macro.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    session::{End, Session},
    verdict::Verdict,
};
use crate::{
    cluster::Cluster,
    evidence::{Event, Observer},
    failure::Failure,
    spec::{ClusterSpec, NodeSpec},
};

/// Asks for a cluster in code. Setters never fail: conflicts are found together when it runs.
#[derive(Clone)]
#[must_use = "a cluster is made by `run`"]
pub struct ClusterBuilder {
    spec: ClusterSpec,
    observer: Option<Observer>,
}

impl std::fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster without nodes, to be filled.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder { spec: ClusterSpec::new("cluster"), observer: None }
    }
}

impl ClusterBuilder {
    /// The name under which the run is shown.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// The folder against which relative fixture paths are resolved; by default the current one.
    pub fn base(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spec.base = dir.into();
        self
    }

    /// Adds a machine.
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.spec.nodes.push(node);
        self
    }

    /// Limit for boot and body together, before scaling.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.spec.timeout = Some(limit);
        self
    }

    /// A backend that may run it; may be called again with the next choice.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.spec.backends.push(name.into());
        self
    }

    /// Calls this with every event of the run, on whichever thread it happens; it should return soon.
    pub fn observe(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Makes the cluster, runs the body in it, and removes everything. Blocks the calling thread.
    ///
    /// # Errors
    /// What the body returned, or what kept it from running.
    ///
    /// # Panics
    /// With the body's own panic.
    pub fn run<R: Verdict>(self, body: impl AsyncFnOnce(Cluster) -> R + Send + 'static) -> Result<(), Failure> {
        let session = Session { spec: self.spec, observer: self.observer };
        match session.run(async move |cluster| body(cluster).await.into_result()) {
            End::Passed => Ok(()),
            End::Failed(message) => Err(Failure::msg(message)),
            End::Panicked(payload) => std::panic::resume_unwind(payload),
        }
    }
}
