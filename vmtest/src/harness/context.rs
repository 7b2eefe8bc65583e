//! What the expansion of a test takes its arguments from.

use std::panic::resume_unwind;

use super::case::Parameter;
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
    pub async fn arg<T: 'static>(&mut self) -> T {
        let parameter = self.params.next().expect("the macro writes one parameter for each argument");
        match parameter.extract(&self.cluster).await {
            Ok(value) => *value.downcast().expect("the macro writes parameters and arguments in the same order"),
            Err(failure) => resume_unwind(Box::new(failure)),
        }
    }
}
