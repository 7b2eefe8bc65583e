//! The handle to one machine, and what can be asked of it.

mod attach;
mod console;
mod files;
mod handle;
mod ports;
mod power;
mod process;
mod resize;
mod screen;
mod sh;
mod snapshot;
mod waits;

pub use attach::{Disk, NewDisk};
pub use console::ConsoleLines;
pub use handle::Node;
pub use ports::Forward;
pub use process::{Exit, Lines, Process, Spawn};
pub(in crate::cluster) use resize::has_first_memory;
pub(in crate::cluster) use screen::screenshot;
pub use sh::{Running, Sh};
pub use snapshot::Snapshot;
pub use waits::{Condition, Wait};
