//! What is seen of a run while it happens, and what is said when it fails.

mod event;
mod waiting;

pub use crate::{
    host::{Holder, Waiting},
    spec::Rung,
};
pub use event::{Event, Observer};
pub(crate) use waiting::{ShownWait, say};
