//! What was asked, as plain data. Nothing here looks at the host.

mod allow;
mod budget;
mod capability;
mod cluster;
mod fake;
mod image;
mod network;
mod node;
mod place;
mod resources;
mod rung;
mod timed_phase;
mod volume;

pub use allow::Allow;
pub use budget::Budget;
pub use capability::Capability;
pub use cluster::ClusterSpec;
pub use fake::{Call, Fake, Fault, Reply};
pub use image::{GuestImage, Image, ImageFiles};
pub use network::NetworkSpec;
pub use node::{FixtureSpec, NodeSettings, NodeSpec};
pub use place::NetworkPlace;
pub use resources::Resources;
#[cfg(target_os = "linux")]
pub(crate) use resources::parse_size;
pub use rung::Rung;
pub use timed_phase::TimedPhase;
pub use volume::{Volume, VolumeSpec};
