//! All unsafe code of the crate, each piece behind a safe function with its reason.

#![allow(unsafe_code)]

mod child;
mod container;
mod fork;
mod kvm_memory;
mod landlock;
mod tap;
mod watched;

pub(crate) use child::guard_child;
pub(crate) use container::{Contained, Container, Step, spawn_contained, spawn_idle};
pub(crate) use fork::fork_alone;
pub(crate) use kvm_memory::GuestPage;
pub(crate) use landlock::landlock_version;
pub(crate) use tap::make_persistent_tap;
pub(crate) use watched::watch_readable;
