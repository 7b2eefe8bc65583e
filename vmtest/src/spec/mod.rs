//! What was asked, as plain data. Nothing here looks at the host.

mod allow;
mod cluster;
mod fake;
mod node;
mod rung;

pub use allow::Allow;
pub use cluster::ClusterSpec;
pub use fake::{Call, Fake, Fault, Reply};
pub use node::{FixtureSpec, NodeSettings, NodeSpec};
pub use rung::Rung;
