//! Networks and taps for a process that is not root's: it becomes the root of a user namespace, and of nothing else.

mod enter;
mod forbidden;
mod ids;
mod ranges;

pub(crate) use enter::{Entrance, ROOTLESS, enter, entrance, may_make_networks};
pub(crate) use forbidden::apparmor;
pub(crate) use ids::{MACHINE_IDS, caller};
