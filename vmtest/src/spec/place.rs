//! Where the network of a cluster is.

use serde::{Deserialize, Serialize};

/// Where a cluster can be reached, and the body of its test is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkPlace {
    /// In a network of its own, which nobody else sees, with the same addresses in every cluster.
    #[default]
    Own,
    /// In the network of whoever started the test, where all programs of the host reach it, under addresses that nobody
    /// else has there.
    Host,
}
