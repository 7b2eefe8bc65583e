//! Clusters and their machines, of which there are none.

mod asked;
#[path = "../cluster/eventually.rs"]
mod eventually;
mod node;
#[path = "../cluster/power.rs"]
mod power;

use crate::{elsewhere::Never, error::Error, evidence::Artifacts, spec::NodeSpec};
pub use asked::{
    Condition, ConsoleLines, Disk, Exit, Forward, Lines, NewDisk, Output, Process, Running, Sh, Snapshot, Spawn, Wait,
};
pub use eventually::eventually;
pub use node::Node;
pub use power::{Liveness, State};

/// All machines of a test.
#[derive(Debug, Clone)]
pub struct Cluster(Never);

impl Cluster {
    /// All machines, in the order of their addresses.
    pub fn nodes(&self) -> Vec<Node> {
        match self.0 {}
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, _name: &str) -> Result<Node, Error> {
        match self.0 {}
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        match self.0 {}
    }

    /// Where this run keeps files beyond its end.
    pub fn artifacts(&self) -> Artifacts {
        match self.0 {}
    }

    /// Keeps the cluster as it is until somebody lets it go on.
    ///
    /// # Errors
    /// When the cluster is gone.
    pub async fn hold(&self) -> Result<(), Error> {
        match self.0 {}
    }

    pub(crate) async fn hold_without_body(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Runs this in the network of whoever started the test.
    pub async fn outside<T: Send + 'static>(&self, _work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        match self.0 {}
    }

    /// Runs this inside the cluster's network.
    pub async fn enter<T: Send + 'static>(&self, _work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        match self.0 {}
    }

    /// Adds a machine, and returns once it answers.
    ///
    /// # Errors
    /// What kept it from answering.
    pub async fn add(&self, _node: NodeSpec) -> Result<Node, Error> {
        match self.0 {}
    }

    /// Adds machines, which boot beside each other.
    ///
    /// # Errors
    /// What kept one from answering.
    pub async fn add_all(&self, _nodes: impl IntoIterator<Item = NodeSpec>) -> Result<Vec<Node>, Error> {
        match self.0 {}
    }

    /// Removes a machine that is off.
    ///
    /// # Errors
    /// When it is not off.
    pub async fn remove(&self, _node: &Node) -> Result<(), Error> {
        match self.0 {}
    }
}
