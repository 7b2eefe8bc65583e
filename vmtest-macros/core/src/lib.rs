//! The attribute `#[vm_test]` without the compiler: its grammar, its table of keys, sizes, durations, host names, and the
//! expansion.
//!
//! ```text
//! grammar   key = value, key(..), ...      → entries
//! keys      what exists and where          ┐
//! units     "512MiB", "3m"                 ├ settings of the test and of each node
//! attribute entries and the table          ┘
//! matrix    lists of values                → one test each
//! signature parameters                     → names and types
//! others    attributes of others beside it
//! expand    all of it                      → tokens, or every problem at once
//! inert     the function beside an error   → tokens without a test
//! reference the table                  → the page of the book with every key
//! editor    keys as written                → tokens from which editors complete them
//! ```
//!
//! An ordinary crate, so that everything here is tested as data. `vmtest-macros` is the proc-macro crate over it.

mod addresses;
mod attribute;
mod disks;
mod editor;
mod expand;
mod function;
mod grammar;
mod inert;
mod keys;
mod matrix;
mod names;
mod others;
mod problems;
mod reference;
mod setting;
mod signature;
mod units;

pub use expand::{expand, expand_trial};
pub use keys::CAPABILITIES;
pub use reference::reference;
