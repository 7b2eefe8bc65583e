//! The programs that run machines. A new one is a folder here and a line in [`find`].

mod kvm;
mod launch;
mod qemu;
mod start;

use std::{fmt, path::Path, sync::Arc};

use futures_util::future::BoxFuture;

pub(crate) use launch::{LaunchPlan, ListeningSocket};
pub(crate) use start::{connect_socket, start};

use crate::{
    error::{Error, Kind},
    plan::NodePlan,
};

/// The names that `VMTEST_BACKEND` and `backend = ".."` take, beside `auto`.
pub(crate) const NAMES: &[&str] = &["qemu"];

/// The file in a node's folder that receives the serial console from its first byte.
pub(crate) const CONSOLE: &str = "console.log";

/// A program that runs machines.
pub(crate) trait Hypervisor: fmt::Debug + Send + Sync {
    /// Its name in settings and attributes.
    fn name(&self) -> &'static str;
    /// Name, version and accelerator, for people.
    fn describe(&self) -> String;
    /// Whether guests run under emulation.
    fn emulated(&self) -> bool;
    /// What starting this node takes. Pure.
    fn render(&self, node: &NodePlan) -> LaunchPlan;
    /// Reaches the API of a VMM that was started in this folder; resolves when it answers.
    fn connect<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>>;
}

/// A running VMM, through its API.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    /// Whether its virtual CPUs run.
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>>;
    /// Stops its virtual CPUs.
    fn pause(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Lets its virtual CPUs run again.
    fn resume(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Presses the power button, which the guest may ignore.
    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Ends the VMM without asking the guest.
    fn quit(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Whether the guest has reset itself, as the VMM's last words; asked when the VMM has ended.
    fn was_reset(&self) -> BoxFuture<'_, bool>;
}

/// Finds the backend of this name on this host; `binary` overrides the search on PATH.
///
/// # Errors
/// [`Kind::Spec`] for an unknown name, [`Kind::Missing`] where the host lacks it; both say what to do.
pub(crate) fn find(
    name: &str,
    binary: impl Fn(&str) -> Option<std::path::PathBuf>,
) -> Result<Arc<dyn Hypervisor>, Error> {
    match name {
        "qemu" => Ok(Arc::new(qemu::Qemu::find(binary("qemu").as_deref())?)),
        _ => Err(Error::new(Kind::Spec, format!("unknown backend `{name}`: valid are auto, {}", NAMES.join(", ")))),
    }
}
