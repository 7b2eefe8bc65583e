//! What is seen of a run while it happens, and what is said when it fails.

mod event;

pub use crate::spec::Rung;
pub use event::{Event, Observer};
