//! Making clusters without being root.

use std::fs;

use super::{declared::list_if_asked, registry::MAKERS};
use crate::{
    error::{Error, Kind, Phase},
    host::{Entrance, enter},
    net::missing,
};

/// The argument with which runners ask what tests there are.
const LIST: &[u8] = b"--list";

/// Makes this process, if it may not make networks and taps, the root of a user namespace in which it may. It keeps its
/// network, its files, its groups and its user, which programs show as root from here on; `su` and other setuid programs do
/// not work any more. Test binaries with a `#[vm_test]` do this by themselves; a program that makes clusters in code calls
/// it before all else in `main`, while it has one thread. With the capabilities at hand, and with `VMTEST_ROOTLESS=off`,
/// nothing happens. Takes some milliseconds; may be called again.
///
/// ```no_run
/// use vmtest::prelude::*;
///
/// fn main() -> Result {
///     vmtest::enter_rootless()?;
///     Cluster::builder().node(NodeSpec::new("web")).run(async |cluster| cluster.node("web")?.sh("true").await.map(drop))
/// }
/// ```
///
/// # Errors
/// [`Kind::Missing`] where the host forbids it, with the setting and the line that changes it. The process is where it was
/// then, and the same error comes from every cluster, so it may be ignored here.
pub fn enter_rootless() -> Result<(), Error> {
    match enter() {
        Entrance::Refused(_) => Err(Error::new(Kind::Missing, missing().join("; ")).in_phase(Phase::Plan)),
        Entrance::NotNeeded | Entrance::TurnedOff | Entrance::Entered { .. } => Ok(()),
    }
}

/// Runs before `main`, when a process has one thread still. What goes wrong is kept for the tests that it concerns: others
/// of the same binary must run.
#[ctor::ctor(unsafe)]
fn before_main() {
    list_if_asked();
    if !MAKERS.is_empty() && !is_listing() {
        enter();
    }
}

fn is_listing() -> bool {
    // Not all C libraries hand arguments to what runs before `main`.
    let words = fs::read("/proc/self/cmdline").unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == LIST)
}
