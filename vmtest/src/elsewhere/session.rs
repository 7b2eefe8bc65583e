//! The life of a cluster, which ends before it begins.

use super::end::End;
use crate::{cluster::Cluster, elsewhere::needs_linux, evidence::Observer, spec::ClusterSpec};

/// A cluster that was asked for.
pub(super) struct Session;

impl Session {
    pub(super) fn new(_spec: ClusterSpec, _observer: Option<Observer>, _keep: bool) -> Self {
        Self
    }

    /// Says why the body cannot run.
    pub(super) fn run<F>(self, _body: F) -> End
    where
        F: AsyncFnOnce(Cluster) -> Result<(), String> + Send + 'static,
    {
        End(needs_linux().to_string())
    }
}
