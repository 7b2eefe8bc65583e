//! What is seen of a run while it happens, what is kept of it, and what is said when it fails.

mod again;
mod artifacts;
mod attempt;
mod before;
mod digest;
mod event;
mod health;
mod history;
pub(crate) mod inside;
mod kept;
mod passwords;
mod phases;
mod place;
mod recorder;
mod runner;
mod signature;
mod spans;
mod started;
mod waiting;
mod work;

pub use crate::{
    host::{Holder, Waiting},
    spec::Rung,
};
pub use artifacts::Artifacts;
pub(crate) use attempt::Attempt;
pub use before::REPEATS;
pub(crate) use digest::{LastLines, Unanswered};
pub use event::{Event, Observer};
pub use health::Sign;
pub use history::PastRun;
pub use kept::{ConsoleLine, Ending, Kept};
pub use place::KEEP_NOTHING;
pub(crate) use place::Keeping;
pub(crate) use recorder::Recorder;
pub use recorder::step;
pub use signature::signature;
pub(crate) use spans::Spans;
pub use started::{HostMachine, Started};
pub(crate) use waiting::{ShownWait, say};
pub(crate) use work::Span;
pub use work::{Outcome, Printed, Work};
