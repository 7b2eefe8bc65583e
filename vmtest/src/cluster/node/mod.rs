//! The handle to one machine, and what can be asked of it.

mod files;
mod handle;
mod process;
mod sh;

pub use handle::Node;
pub use process::{Exit, Lines, Process, Spawn};
pub use sh::Sh;
