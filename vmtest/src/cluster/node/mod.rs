//! The handle to one machine, and what can be asked of it.

mod console;
mod files;
mod handle;
mod ports;
mod power;
mod process;
mod sh;
mod snapshot;
mod waits;

pub use console::ConsoleLines;
pub use handle::Node;
pub use ports::Forward;
pub use process::{Exit, Lines, Process, Spawn};
pub use sh::{Running, Sh};
pub use snapshot::Snapshot;
pub use waits::{Condition, Wait};
