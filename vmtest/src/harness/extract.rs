//! From a parameter of a test to the value that its body receives.

use std::future::Future;

use super::case::{Setting, apply_to_node};
use crate::{
    cluster::{Cluster, Node},
    evidence::Artifacts,
    failure::Failure,
    spec::{ClusterSpec, NodeSpec},
};

/// A type that a test may take as a parameter.
///
/// `declare` says what the cluster must have; it runs before anything is made. `extract` makes the value once all
/// machines answer, so a test may take a service instead of a machine on which it would have to start one:
///
/// ```
/// use vmtest::{FromCluster, Param, prelude::*, spec::ClusterSpec};
///
/// struct Postgres(Node);
///
/// impl FromCluster for Postgres {
///     fn declare(param: &Param, spec: &mut ClusterSpec) {
///         let mut node = param.node();
///         node.settings.memory.get_or_insert(512 << 20);      // unless `#[node(memory = "..")]` says otherwise
///         spec.nodes.push(node);
///     }
///
///     async fn extract(param: &Param, cluster: &Cluster) -> Result<Self> {
///         let node = cluster.node(param.name)?;
///         node.sh("pg_ctlcluster 15 main start").await?;
///         node.wait_for_port(5432).await?;
///         Ok(Self(node))
///     }
/// }
///
/// impl Postgres {
///     fn url(&self) -> String {
///         format!("postgres://postgres@{}/postgres", self.0.ip())
///     }
/// }
///
/// #[vm_test]
/// async fn a_client_connects(database: Postgres, client: Node) -> Result {
///     client.sh(format!("psql {} -c 'select 1'", database.url())).await?;
///     Ok(())
/// }
/// ```
///
/// `examples/postgres.rs` has all of it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a test",
    label = "nothing of a cluster is made into this type",
    note = "parameters are `Node`, `[Node; N]`, `Cluster`, `Artifacts`, and types that implement `vmtest::FromCluster`"
)]
pub trait FromCluster: Sized {
    /// Adds to the spec what this parameter needs.
    fn declare(param: &Param, spec: &mut ClusterSpec);

    /// Makes the value.
    ///
    /// # Errors
    /// Whatever went wrong; it fails the test.
    fn extract(param: &Param, cluster: &Cluster) -> impl Future<Output = Result<Self, Failure>>;
}

/// A parameter of a test, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name, as a host name.
    pub name: &'static str,
    /// The names in an array pattern; empty where the parameter has one name.
    pub names: &'static [&'static str],
    /// What `#[node(..)]` says.
    pub settings: &'static [Setting],
}

impl Param {
    /// A node with this parameter's name and what `#[node(..)]` says of it, to be completed and put into a spec.
    pub fn node(&self) -> NodeSpec {
        self.node_called(self.name)
    }

    /// Adds a node of this name with what `#[node(..)]` says of it.
    pub fn declare_node(&self, name: &str, spec: &mut ClusterSpec) {
        spec.nodes.push(self.node_called(name));
    }

    fn node_called(&self, name: &str) -> NodeSpec {
        let mut node = NodeSpec::new(name);
        apply_to_node(self.settings, &mut node);
        node
    }

    /// The host names of a group of this length: those of the pattern, else the parameter's with numbers from 1.
    fn group(&self, len: usize) -> Vec<String> {
        if self.names.is_empty() {
            let stem = self.name.strip_suffix('s').filter(|stem| !stem.is_empty()).unwrap_or(self.name);
            (1..=len).map(|n| format!("{stem}{n}")).collect()
        } else {
            self.names.iter().map(|&name| name.to_owned()).collect()
        }
    }
}

impl FromCluster for Node {
    fn declare(param: &Param, spec: &mut ClusterSpec) {
        param.declare_node(param.name, spec);
    }

    async fn extract(param: &Param, cluster: &Cluster) -> Result<Self, Failure> {
        Ok(cluster.node(param.name)?)
    }
}

impl<const N: usize> FromCluster for [Node; N] {
    fn declare(param: &Param, spec: &mut ClusterSpec) {
        for name in param.group(N) {
            param.declare_node(&name, spec);
        }
    }

    async fn extract(param: &Param, cluster: &Cluster) -> Result<Self, Failure> {
        let nodes: Result<Vec<_>, _> = param.group(N).iter().map(|name| cluster.node(name)).collect();
        nodes?.try_into().map_err(|_| Failure::msg(format!("`{}` has not as many names as nodes", param.name)))
    }
}

impl FromCluster for Cluster {
    fn declare(_: &Param, _: &mut ClusterSpec) {}

    async fn extract(_: &Param, cluster: &Cluster) -> Result<Self, Failure> {
        Ok(cluster.clone())
    }
}

impl FromCluster for Artifacts {
    fn declare(_: &Param, _: &mut ClusterSpec) {}

    async fn extract(_: &Param, cluster: &Cluster) -> Result<Self, Failure> {
        Ok(cluster.artifacts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<T: FromCluster>(name: &'static str, names: &'static [&'static str]) -> Vec<String> {
        let mut spec = ClusterSpec::new("t");
        T::declare(&Param { name, names, settings: &[] }, &mut spec);
        spec.nodes.into_iter().map(|node| node.name).collect()
    }

    #[test]
    fn parameters_name_their_nodes() {
        assert_eq!(names::<Node>("primary", &[]), ["primary"]);
        assert_eq!(names::<[Node; 2]>("replicas", &[]), ["replica1", "replica2"]);
        assert_eq!(names::<[Node; 2]>("s", &[]), ["s1", "s2"]);
        assert_eq!(names::<[Node; 2]>("a-b", &["a", "b"]), ["a", "b"]);
        assert_eq!(names::<Cluster>("cluster", &[]), Vec::<String>::new());
    }
}
