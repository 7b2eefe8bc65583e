//! What the end-to-end tests share: running a test in a process of its own, and looking at what it left.

mod cache;
mod claims;
mod container;
mod host;
mod matrix;
mod nextest;
mod registry;
mod standin;
mod terminal;
mod victim;
mod web;

pub use cache::{cache, cache_dir, image_cache, private_cache};
pub use claims::{Claims, Seen};
pub use container::{Layout, Part, layer};
pub use host::{Host, Vmm, find_on_path, on_path, run_dir, vmm_of};
pub use matrix::{Matrix, Outcome, kernel, today};
pub use nextest::Nextest;
pub use registry::Registry;
pub use standin::StandIn;
pub use terminal::Terminal;
pub use victim::{Ended, Running, Victim, WITHOUT_KVM, WITHOUT_RIGHTS};
pub use web::Web;
