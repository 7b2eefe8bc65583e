//! Guest images, built in user space from the distribution's own packages.
//!
//! An image is a kernel, an initramfs, and a root file system or none. [`ensure`] builds the one that is named, once, into a [`Cache`];
//! [`append_seed`] puts behind its initramfs what one guest has to know about itself. [`vmlinux`] is its kernel for VMMs
//! that load no compressed one.
//!
//! It needs Linux; elsewhere this crate is empty.

#![cfg(target_os = "linux")]

mod cache;
mod cpio_writer;
mod debian;
mod error;
mod fetch;
mod image;
mod initramfs;
mod inside;
mod kept;
mod kernel;
mod micro;
mod modules;
mod oci;
mod packages;
mod programs;
mod seed;
mod spec;
mod tree;
mod vmlinux;

pub use cache::Cache;
pub use error::Error;
pub use fetch::{Digest, Fetch};
pub use image::{Image, Progress, Root, ensure, find, known, record};
pub use kept::{Held, KeptImage};
pub use kernel::kernel_release;
pub use programs::{install, installed};
pub use seed::{GuestConfig, HostKey, Interface, Mount, RootMount, append_seed};
pub use spec::ImageSpec;
pub use tree::{tree, write_seed};
pub use vmlinux::vmlinux;

/// What the calls of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
