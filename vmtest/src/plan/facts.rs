//! What is known of the host when a plan is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use vmtest_fixtures::Fixture;
use vmtest_images::ImageSpec;

use crate::spec::{Capability, Resources};

/// What planning has to know. Where something could not be had, the reason stands in its place, so that planning can
/// name every reason at once.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The backend that was chosen, or why there is none.
    pub backend: Result<BackendFacts, String>,
    /// Every backend that there is, here or not.
    pub known: Vec<KnownBackend>,
    /// Every image that the spec asks for.
    pub images: BTreeMap<ImageSpec, Result<ImageFacts, String>>,
    /// Every kernel that the spec names by path.
    pub kernels: BTreeMap<PathBuf, Result<KernelFacts, String>>,
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
    /// What they could do on another host, with why they cannot on this one.
    pub lacks: BTreeMap<Capability, String>,
}

/// A backend, here or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBackend {
    /// Its name in settings and attributes.
    pub name: String,
    /// What its machines can do on hosts that let them.
    pub can: BTreeSet<Capability>,
    /// Whether the test may run on it.
    pub asked: bool,
    /// Why it was not taken, of one on which the test may run and that comes before the one that was.
    pub passed_over: Option<String>,
}

/// What the machines of a backend can do on this host, and how they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Guests run under emulation, which stretches every timeout.
    pub emulated: bool,
    /// What they can do of that which a test can require.
    pub can: BTreeSet<Capability>,
    /// Memory in bytes that a machine takes from the host beside its own.
    pub overhead: u64,
}

impl Capabilities {
    /// Whether they can do this.
    pub fn has(&self, capability: Capability) -> bool {
        self.can.contains(&capability)
    }
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
    /// The release of the kernel.
    pub release: String,
    /// Its root file system; without, that is the initramfs.
    pub root: Option<RootFacts>,
    /// How much memory in bytes a machine of it has that says nothing.
    pub memory: Option<u64>,
    /// The program in the guest that starts its service, if it has one.
    pub entrypoint: Option<String>,
}

/// A kernel that is given by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFacts {
    /// The bzImage, absolute.
    pub path: PathBuf,
    /// Its release.
    pub release: String,
}

/// The read-only disk with the root file system of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    /// The disk, absolute.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
}

/// A built fixture disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixtureFacts {
    /// The disk, absolute.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
}
