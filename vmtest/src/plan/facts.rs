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
    /// Every kernel that the spec names.
    pub kernels: BTreeMap<PathBuf, Result<KernelFacts, String>>,
    /// Every firmware that the spec names: `bios`, or an absolute path.
    pub firmwares: BTreeMap<PathBuf, Result<String, String>>,
    /// Every fixture that the spec names, with the disk that was made of it.
    pub fixtures: Vec<(Fixture, Result<FixtureFacts, String>)>,
    /// Every volume that the spec names.
    pub volumes: BTreeMap<String, Result<VolumeFacts, String>>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Guests run under emulation, which stretches every timeout.
    pub emulated: bool,
    /// What they can do of that which a test can require.
    pub can: BTreeSet<Capability>,
    /// Memory in bytes that a machine takes from the host beside its own.
    pub overhead: u64,
    /// Whether their disks can be layers over one that they share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub layers: bool,
    /// Whether their firmware can hand a guest what it is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells: bool,
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
    /// The disk of a cloud image, whose kernel and initramfs are its own.
    pub cloud: Option<CloudFacts>,
    /// The digest of a container's image, or of the file of a cloud image that was fetched.
    pub digest: Option<String>,
    /// The words of the kernel's command line that belong to it.
    pub arguments: String,
    /// The account by which its machines are reached, where that is not root.
    pub login: Option<String>,
    /// What has to succeed before a machine of it counts as ready.
    pub ready: Option<String>,
    /// Whether its machines, with its own kernel, ask the firmware for what they are told.
    pub asks_firmware: bool,
}

/// A kernel that is booted in place of an image's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFacts {
    /// The kernel, absolute, in a form that the backend boots.
    pub path: PathBuf,
    /// Its release.
    pub release: String,
    /// Its modules; one that is given by path has none but those of the image, if it is of the image's release.
    pub modules: Option<ModulesFacts>,
}

/// The modules of a kernel, as archives that go behind the initramfs of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulesFacts {
    /// The archive, absolute.
    pub usual: PathBuf,
    /// The same for a machine that runs machines itself.
    pub nested: PathBuf,
}

/// The read-only disk with the root file system of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    /// The disk, absolute.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
}

/// The read-only disk of a cloud image, over which each machine has a layer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudFacts {
    /// The disk, raw, absolute.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why there is no kernel on it that could start it.
    pub no_kernel: Option<String>,
}

/// A built fixture disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixtureFacts {
    /// The disk, absolute.
    pub path: PathBuf,
    /// Its label.
    pub label: String,
}

/// A disk that is kept from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Where it is or will be, absolute.
    pub path: PathBuf,
    /// How large it is, in bytes; `None` where there is none yet.
    pub kept: Option<u64>,
    /// What it takes of the host's disk, in bytes.
    pub allocated: u64,
}
