//! What was asked, as plain data. Nothing here looks at the host.

mod cluster;
mod node;

pub use cluster::ClusterSpec;
pub use node::{FixtureSpec, NodeSettings, NodeSpec};
