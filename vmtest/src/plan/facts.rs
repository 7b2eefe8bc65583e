//! What is known of the host when a plan is made.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use vmtest_fixtures::Fixture;

use crate::spec::Resources;

/// What planning has to know. Where something could not be had, the reason stands in its place, so that planning can
/// name every reason at once.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The backend that was chosen, or why there is none.
    pub backend: Result<BackendFacts, String>,
    /// Every image that the spec names.
    pub images: BTreeMap<String, Result<ImageFacts, String>>,
    /// Every fixture that the spec names, with the disk that was made of it.
    pub fixtures: Vec<(Fixture, Result<FixtureFacts, String>)>,
    /// What else the host lacks: the device for taps, the right to make a network namespace.
    pub missing: Vec<String>,
    /// What the cluster has in the network of whoever started it, if it shall have something there.
    pub host: Option<HostFacts>,
    /// What is free there for a way out by a pair of interfaces; without, a way out is through `pasta`.
    pub egress: Option<HostFacts>,
    /// How much of the host all machines of all tests may take together.
    pub budget: BudgetFacts,
    /// The factor of `VMTEST_TIMEOUT_SCALE`.
    pub timeout_scale: f64,
}

/// What is free for a cluster in the network of whoever started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// What the names of its interfaces there begin with; nobody else's do.
    pub prefix: String,
    /// The third byte of the addresses, one for each network.
    pub numbers: Vec<u8>,
}

/// How much of the host all machines of all tests may take together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetFacts {
    /// Everything.
    pub whole: Resources,
    /// What limits the memory.
    pub memory_of: MemoryLimit,
}

/// What limits the memory of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// There is no more in this host.
    Host,
    /// A cgroup of this process.
    Cgroup,
    /// The setting `VMTEST_BUDGET`.
    Setting,
}

/// The VMM that will run the machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFacts {
    /// Its name in settings and attributes.
    pub name: String,
    /// What its machines can do.
    pub capabilities: Capabilities,
}

/// What the machines of a backend can do on this host, and how they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Guests run under emulation, which stretches every timeout.
    pub emulated: bool,
    /// A machine has a kernel of its own, with a command line, and as many CPUs and as much memory as it was given.
    pub own_kernel: bool,
    /// A machine can be told to do something wrong: [`NodeSpec::fake`](crate::spec::NodeSpec::fake).
    pub faults: bool,
    /// A machine can run machines itself.
    pub nested: bool,
    /// Memory in bytes that a machine takes from the host beside its own.
    pub overhead: u64,
}

/// The files of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The kernel, absolute.
    pub kernel: PathBuf,
    /// The initramfs, absolute, without any node's facts.
    pub initramfs: PathBuf,
    /// The same for a machine that runs machines itself.
    pub nested: PathBuf,
}

/// A built fixture disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixtureFacts {
    /// The disk, absolute.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
}
