//! What the expansion of a test takes its arguments from.

use std::panic::resume_unwind;

use super::{case::Parameter, extract::FromCluster};
use crate::cluster::Cluster;

/// Hands out the arguments of a test, one after the other.
#[derive(Debug)]
pub struct Context {
    cluster: Cluster,
    params: std::slice::Iter<'static, Parameter>,
}

impl Context {
    pub(super) fn new(cluster: Cluster, params: &'static [Parameter]) -> Self {
        Self { cluster, params: params.iter() }
    }

    /// The next argument.
    ///
    /// # Panics
    /// Unwinds with the failure when the argument cannot be made; the session turns that into the test's verdict.
    pub async fn arg<T: FromCluster>(&mut self) -> T {
        let parameter = self.params.next().expect("the macro writes one parameter for each argument");
        match T::extract(&parameter.param, &self.cluster).await {
            Ok(value) => value,
            Err(failure) => resume_unwind(Box::new(failure)),
        }
    }
}
