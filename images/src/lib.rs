//! Guest images, built in user space from the distribution's own packages.
//!
//! An image is a kernel, an initramfs, and a root file system or none. [`ensure`] builds the one that is named, once, into a [`Cache`];
//! [`append_seed`] puts behind its initramfs what one guest has to know about itself. [`vmlinux`] is its kernel for VMMs
//! that load no compressed one.
//!
//! It needs Linux; elsewhere this crate is empty.

#![cfg(target_os = "linux")]

mod cache;
mod cloud;
mod cpio_writer;
mod debian;
mod error;
mod fetch;
mod image;
mod initramfs;
mod inside;
mod kept;
mod kernels;
mod key;
mod micro;
mod modules;
mod oci;
mod own;
mod packages;
mod programs;
mod publish;
mod seed;
mod shell;
mod spec;
mod sweep;
mod tree;
mod version;
mod vmlinux;

pub use cache::Cache;
pub use cloud::{
    Bumped, CATALOG, Catalog, CatalogEntry, Catalogued, Date, Publisher, bump, catalog_file, catalogued, copy_of,
    layer_over, write_nocloud,
};
pub use error::Error;
pub use fetch::{Algorithm, Digest, Fetch};
pub use image::{CloudDisk, Image, Progress, Pulled, Root, ensure, find, known, pull, record, unpack};
pub use kept::{Held, KeptImage};
pub use kernels::{kernel_by_name, kernel_release};
pub use own::{OwnFiles, OwnImage, key_of_files};
pub use programs::{install, installed};
pub use seed::{
    FIRMWARE_FILE, GuestConfig, HostKey, Interface, Mount, RootMount, append_seed, mount_options, write_facts,
};
pub use spec::ImageSpec;
pub use sweep::Beside;
pub use tree::{tree, write_seed};
pub use vmlinux::vmlinux;

/// What the calls of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
