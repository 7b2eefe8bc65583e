//! From a parameter of a test to the value that its body receives.

use std::future::Future;

use super::case::{Setting, apply_node_settings};
use crate::{
    cluster::{Cluster, Node},
    failure::Failure,
    spec::{ClusterSpec, NodeSpec},
};

/// A type that a test may take as a parameter.
///
/// `declare` says what the cluster must have; it runs before anything is made. `extract` makes the value once all
/// machines answer.
///
/// ```
/// use vmtest::{Cluster, FromCluster, Node, Param, Result, spec::ClusterSpec};
///
/// struct Web(Node);
///
/// impl FromCluster for Web {
///     fn declare(param: &Param, spec: &mut ClusterSpec) {
///         Node::declare(param, spec);
///     }
///
///     async fn extract(param: &Param, cluster: &Cluster) -> Result<Self> {
///         let node = cluster.node(param.name)?;
///         node.sh("httpd -p 80 -h /srv").await?;
///         Ok(Self(node))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a test",
    label = "nothing of a cluster is made into this type",
    note = "parameters are `Node`, `[Node; N]`, `Cluster`, and types that implement `vmtest::FromCluster`"
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
    /// Adds a node of this name with what `#[node(..)]` says of it.
    pub fn declare_node(&self, name: &str, spec: &mut ClusterSpec) {
        let mut node = NodeSpec::new(name);
        apply_node_settings(self.settings, &mut node.settings);
        spec.nodes.push(node);
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
