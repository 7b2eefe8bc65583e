//! What will be done for one node.

use serde::{Deserialize, Serialize};

use super::{Capabilities, DiskRatePlan, InterfacePlan, NetworkPlan, VolumePlan, share};
use crate::spec::{Fake, Resources};

/// One machine, with every name, address and path decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// The host name, and the name of the node's folder in the run directory.
    pub name: String,
    /// Position in the cluster, from 0; decides addresses and interface names.
    pub index: usize,
    /// Its interfaces in the order in which the guest sees them, at least one.
    pub interfaces: Vec<InterfacePlan>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Whether it runs machines itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nested: bool,
    /// Whether it can be saved while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshots: bool,
    /// Virtual CPUs that it can be given while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cpus: Option<u32>,
    /// Whether disks can be plugged in while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hotplug: bool,
    /// Whether it has a screen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub screen: bool,
    /// Memory in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// Memory in bytes that it can be given while it runs, a multiple of 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// What limits each of its disks.
    #[serde(default, skip_serializing_if = "DiskRatePlan::is_none")]
    pub disk_rate: DiskRatePlan,
    /// What starts it in place of the kernel: `bios`, which the VMM has itself, or the absolute path of a firmware. Kernel,
    /// initramfs and command line are those of its disk then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The kernel, absolute.
    pub kernel: String,
    /// Whether that is of another version than its image's, whose modules do not go with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign_kernel: bool,
    /// An archive with the modules of that, which goes behind the initramfs of its image; without, the image has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
    /// The initramfs with the node's own facts appended: a file in the node's folder. That of a cloud image has none, and is
    /// absolute, as is that of a node which is told apart.
    pub initramfs: String,
    /// The node's own facts where the firmware hands them over: a file in the node's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Size in bytes of the node's scratch disk, the only one of its disks that it can write and that ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<u64>,
    /// Whether its root file system is the first of its disks, with what it writes on its scratch disk; else it is in memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root: bool,
    /// The disk that its scratch disk begins as, absolute: that of a cloud image, whose facts are on a disk of their own, the
    /// last of its disks. Its scratch disk is the first then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// The program in the guest that starts the service of its image, if the image has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// What the image's name stood for: of a container's image the digest of its manifest, of a cloud image that was fetched that of
    /// its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The account by which it is reached, in place of root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// What has to succeed before it counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Disks in the order in which the guest sees them.
    pub disks: Vec<DiskPlan>,
    /// What a fake machine does wrong and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fake: Option<Fake>,
}

impl NodePlan {
    /// The interface by which the framework reaches it.
    ///
    /// # Panics
    /// For a machine without any, of which no plan has one.
    pub fn first_interface(&self) -> &InterfacePlan {
        self.interfaces.first().expect("`plan` gives every machine an interface")
    }

    /// Its interfaces with their networks, of those of its cluster.
    pub(crate) fn places<'a>(
        &'a self,
        networks: &'a [NetworkPlan],
    ) -> impl Iterator<Item = (&'a NetworkPlan, &'a InterfacePlan)> {
        let network = |name: &str| networks.iter().find(|network| network.name == name);
        self.interfaces.iter().filter_map(move |interface| Some((network(&interface.network)?, interface)))
    }

    /// Those of its disks that are mounted where they say; the others are what its root file system is made of, and what it is
    /// told.
    pub(crate) fn mounted(&self) -> &[DiskPlan] {
        let inner =
            if self.root || self.cloud.is_some() { 1..self.disks.len().saturating_sub(1) } else { 0..self.disks.len() };
        self.disks.get(inner).unwrap_or_default()
    }

    /// The read-only disk of its root file system, and its own.
    pub(crate) fn root_disks(&self) -> Option<(&DiskPlan, &DiskPlan)> {
        self.root.then_some(())?;
        self.disks.first().zip(self.disks.last())
    }

    /// The disk on which it writes what ends with it.
    pub(crate) fn scratch_disk(&self) -> Option<(&DiskPlan, u64)> {
        self.disks.iter().find(|disk| !disk.read_only && disk.volume.is_none()).zip(self.scratch)
    }

    /// What its first instructions are of, for people.
    pub(crate) fn started_by(&self) -> String {
        match &self.firmware {
            Some(firmware) => format!("its firmware, {firmware},"),
            None => format!("its kernel, {},", self.kernel),
        }
    }

    /// The names of its links in the cluster's network namespace.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().flat_map(InterfacePlan::links)
    }

    /// What it takes from the host.
    pub fn cost(&self, capabilities: &Capabilities) -> Resources {
        let (memory, cpus) = (self.max_memory.unwrap_or(self.memory), self.max_cpus.unwrap_or(self.cpus));
        let volumes: u64 = self.disks.iter().filter_map(|disk| Some(disk.volume.as_ref()?.room)).sum();
        share::cost(memory, cpus, self.scratch.unwrap_or_default() + volumes, capabilities)
    }
}

/// The firmware that a VMM has itself.
pub(crate) const BIOS: &str = "bios";

/// The account by which a machine is reached of which nothing is said.
pub(crate) const ROOT: &str = "root";

/// The folder of a node's scratch disk: a link in the node's folder.
pub(crate) const SCRATCH: &str = "scratch";

/// The file in the folder of a machine of a cloud image by which its cloud-init knows what it is.
pub(crate) const SEED: &str = "seed.img";
/// What the firmware hands over to a node: its own facts.
pub(super) const TOLD: &str = "facts.cpio";

/// How many disks can be plugged into a machine at once: with QEMU, each place is a bridge that the guest finds at its boot.
pub(crate) const HOTPLUG_PLACES: usize = 4;

/// One disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// The image, absolute; of a scratch disk, in the node's folder. Of a volume of fake machines, a directory.
    pub path: String,
    /// Filesystem label, by which the guest mounts it.
    pub label: String,
    /// Where the guest mounts it.
    pub at: String,
    /// Whether the VMM opens it read-only.
    pub read_only: bool,
    /// The raw disk below it, absolute, from which comes what this one does not have; it is a qcow2 then. Without, it is raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// What it is, of a disk that is kept when the run is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumePlan>,
}
