//! What is said of shares of a host.

#[path = "../host/lease/record.rs"]
mod record;

pub use record::{Holder, Waiting};
