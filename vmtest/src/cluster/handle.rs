//! The handle to a whole cluster.

use std::sync::Arc;

use super::{node::Node, run::Run};
use crate::{
    error::{Error, Kind},
    plan::Plan,
};

/// All machines of a test. Clones are handles to the same cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    run: Arc<Run>,
}

impl Cluster {
    pub(crate) fn new(run: Arc<Run>) -> Self {
        Self { run }
    }

    /// All machines, in the order of their addresses.
    pub fn nodes(&self) -> Vec<Node> {
        self.run.members.iter().map(|member| Node::new(self.run.clone(), member.clone())).collect()
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// [`Kind::Spec`], with the names that there are.
    pub fn node(&self, name: &str) -> Result<Node, Error> {
        let found = self.run.members.iter().find(|member| member.plan.name == name);
        found.map(|member| Node::new(self.run.clone(), member.clone())).ok_or_else(|| {
            let names: Vec<_> = self.run.members.iter().map(|member| member.plan.name.as_str()).collect();
            Error::new(Kind::Spec, format!("there is no node `{name}`: the cluster has {}", names.join(", ")))
        })
    }

    /// What was decided for this cluster.
    pub fn plan(&self) -> &Plan {
        &self.run.plan
    }

    /// The run's id, the name of its run directory.
    pub fn id(&self) -> &str {
        self.run.dir.id()
    }
}
