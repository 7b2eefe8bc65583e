//! The programs that run machines. A new one is a folder here and a line in [`find`].

mod answering;
mod cloud_hypervisor;
#[cfg(test)]
mod example;
mod fake;
mod firecracker;
mod firmware;
mod http;
mod kvm;
mod launch;
mod qemu;
mod search;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::pending,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use futures_util::future::BoxFuture;
use serde_json::Value;
use vmtest_images::GuestConfig;

pub(crate) use answering::Answering;
pub(crate) use firmware::find_firmware;
pub(crate) use kvm::{KvmProbe, probe_kvm};
pub(crate) use launch::{ApiCall, DirectoryPlan, LaunchPlan, ListeningSocket, OpenFile, RootPlan};
pub(crate) use search::Search;
use start::{await_socket, connect_socket, listen, start};

use crate::{
    error::{Error, Kind},
    host::{Ended, HeldVolumes, Keeper, ProcessId},
    net::Links,
    plan::{Capabilities, DiskPlan, DiskRatePlan, InterfacePlan, NetworkPlan, NodePlan, SEED},
    spec::Capability,
};

/// The names that `VMTEST_BACKEND` and `backend = ".."` take, beside `auto`.
pub(crate) const NAMES: &[&str] = &[CLOUD_HYPERVISOR, QEMU, FIRECRACKER, FAKE];
/// What `auto` tries, in this order: never Firecracker, whose machines have the fewest devices, and never the fake, on which
/// a test says itself that it may run.
pub(crate) const AUTO: &[&str] = &[CLOUD_HYPERVISOR, QEMU];
pub(crate) const CLOUD_HYPERVISOR: &str = "cloud-hypervisor";
pub(crate) const QEMU: &str = "qemu";
pub(crate) const FIRECRACKER: &str = "firecracker";
/// Machines that are none.
pub(crate) const FAKE: &str = "fake";

/// The file in a node's folder that receives the serial console from its first byte.
pub(crate) const CONSOLE: &str = "console.log";
/// The file in a node's folder with what its VMM printed.
pub(crate) const VMM_LOG: &str = "vmm.log";

/// A program that runs machines.
pub(crate) trait Hypervisor: fmt::Debug + Send + Sync {
    /// Its name in settings and attributes.
    fn name(&self) -> &'static str;
    /// Name, version and accelerator, for people.
    fn describe(&self) -> String;
    /// What its machines can do.
    fn capabilities(&self) -> Capabilities;
    /// What of its [`potential`] they cannot do on this host, with why and what to do about it.
    fn lacks(&self) -> BTreeMap<Capability, String> {
        BTreeMap::new()
    }
    /// What its machines are plugged into.
    fn port(&self) -> Port {
        Port::Tap
    }
    /// Whether its machines boot a kernel only as it was before it was compressed.
    fn boots_elf_only(&self) -> bool {
        false
    }
    /// What starting this node takes, from where it was saved if it shall go on there. Pure.
    fn render(&self, node: &NodePlan, from: Option<&Saved>) -> LaunchPlan;
    /// Writes into the node's folder what its guest reads at its start, behind the initramfs of its image, on a disk of its own
    /// or for the firmware to hand over, and makes the scratch disk that it does not have yet. Blocks for milliseconds.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn prepare(&self, node: &NodePlan, base: &Path, dir: &Path, config: &GuestConfig) -> io::Result<()> {
        if let Some((disk, bytes)) = node.scratch_disk()
            && !dir.join(&disk.path).exists()
        {
            let path = dir.join(&disk.path);
            match (&disk.below, &node.cloud) {
                (Some(below), _) => vmtest_images::layer_over(Path::new(below), &path, bytes)?,
                (None, Some(from)) => vmtest_images::copy_of(Path::new(from), &path, bytes)?,
                (None, None) => vmtest_fixtures::blank(&path, bytes, &disk.label).map_err(io::Error::other)?,
            }
        }
        if node.cloud.is_some() {
            return vmtest_images::write_nocloud(&dir.join(SEED), config);
        }
        if let Some(told) = &node.told {
            return vmtest_images::write_facts(&dir.join(told), config);
        }
        let modules = node.modules.as_deref().map(Path::new);
        vmtest_images::append_seed(base, modules, &dir.join(&node.initramfs), config)
    }
    /// Carries out a launch plan: the process that is the machine, as a child of the keeper. The guest has been told what
    /// [`prepare`](Self::prepare) wrote.
    ///
    /// Not cancel-safe: a dropped future may leave that child, which the keeper names.
    fn launch<'a>(
        &'a self,
        plan: &'a LaunchPlan,
        site: &'a Site<'a>,
        _: &'a GuestConfig,
    ) -> BoxFuture<'a, Result<(OwnedFd, ProcessId), Error>> {
        Box::pin(start(plan, site))
    }
    /// Reaches the API of a VMM that was launched there by this plan; resolves when it answers and its machine runs.
    fn connect<'a>(
        &'a self,
        plan: &'a LaunchPlan,
        site: &'a Site<'a>,
        vmm: &'a ProcessId,
    ) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>>;
}

/// Where a machine is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) node: &'a NodePlan,
    /// The cluster's networks.
    pub(crate) networks: &'a [NetworkPlan],
    /// The node's folder.
    pub(crate) dir: &'a Path,
    pub(crate) keeper: &'a Keeper,
    /// The links of the cluster's network namespace.
    pub(crate) links: &'a Links,
    /// What the run has of volumes.
    pub(crate) volumes: &'a HeldVolumes,
}

impl<'a> Site<'a> {
    /// The machine's interfaces with their networks.
    fn places(&self) -> impl Iterator<Item = (&'a NetworkPlan, &'a InterfacePlan)> {
        self.node.places(self.networks)
    }

    /// What the machine's process holds as long as it lives: the locks of its volumes.
    ///
    /// # Errors
    /// [`Kind::Host`] when there are too many descriptors.
    fn locks(&self) -> Result<Vec<OwnedFd>, Error> {
        let failed = |e| Error::new(Kind::Host, "cannot pass on the locks of volumes").caused_by(e);
        self.volumes.locks(self.node).map_err(failed)
    }
}

/// Where a machine was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// The directory of its files, in the node's folder.
    pub(crate) dir: String,
    /// Whether its memory is a file of its own there, which can be mapped.
    pub(crate) mappable: bool,
}

/// What a machine is plugged into on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// A tap, made before the machine, which it opens by name.
    Tap,
    /// One end of a pair of interfaces, of which the machine has the other; made with each boot.
    Veth,
}

/// A running VMM, through its API.
pub(crate) trait Machine: fmt::Debug + Send + Sync {
    /// Whether its virtual CPUs run.
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>>;
    /// What the VMM says of its machine, all of it, in its own words: for people.
    fn described(&self) -> BoxFuture<'_, Result<Value, Error>>;
    /// Stops its virtual CPUs.
    fn pause(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Lets its virtual CPUs run again.
    fn resume(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Writes the memory and the devices of the machine, which is paused, to files of this directory of its folder, from
    /// which it can go on later.
    fn save<'a>(&'a self, _dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async { Err(cannot("be saved")) })
    }
    /// Asks the guest for what it has beyond this much memory in bytes, or gives it back; what comes of it,
    /// [`memory`](Self::memory) says.
    fn set_memory(&self, _bytes: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(cannot("be given memory while they run")) })
    }
    /// How much memory in bytes the guest has.
    fn memory(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async { Err(cannot("be given memory while they run")) })
    }
    /// Plugs in virtual CPUs until it has so many.
    fn add_cpus(&self, _count: u32) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(cannot("be given CPUs while they run")) })
    }
    /// Plugs this disk in at a place below [`HOTPLUG_PLACES`](crate::plan::HOTPLUG_PLACES) that is free, no faster than this.
    fn add_disk<'a>(
        &'a self,
        _place: usize,
        _disk: &'a DiskPlan,
        _rate: DiskRatePlan,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(cannot("be given disks while they run")) })
    }
    /// Asks the guest to let the disk at this place go; resolves when it has, and the VMM has closed it.
    fn remove_disk(&self, _place: usize, _rate: DiskRatePlan) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(cannot("be given disks while they run")) })
    }
    /// Writes what its screen shows to this file of its folder, as a PNG file.
    fn screenshot<'a>(&'a self, _file: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(cannot("show a screen")) })
    }
    /// Presses the power button, which the guest may ignore.
    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Ends the VMM without asking the guest.
    fn quit(&self) -> BoxFuture<'_, Result<(), Error>>;
    /// Resolves when the guest's kernel has told by a device that it panics, also when the VMM has ended meanwhile. Where there is
    /// none, the console alone shows it. Cancel-safe.
    fn panicked(&self) -> BoxFuture<'_, ()> {
        Box::pin(pending())
    }
    /// Is told that the VMM has ended, and how. Whether the guest has reset itself.
    fn ended(&self, how: Ended) -> BoxFuture<'_, bool>;
    /// Whether the guest has switched itself off and the VMM had to be ended for it.
    fn switched_off(&self) -> bool {
        false
    }
}

/// A VMM that can be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) url: &'static str,
    pub(crate) sha256: &'static str,
}

/// That of cloud-hypervisor.
pub(crate) const CLOUD_HYPERVISOR_RELEASE: Release = cloud_hypervisor::RELEASE;

/// The version of this cloud-hypervisor.
///
/// # Errors
/// [`Kind::Missing`] for another program, or one that is too old.
pub(crate) fn check_cloud_hypervisor(program: &Path) -> Result<String, Error> {
    cloud_hypervisor::check(program).map(|(version, _)| version)
}

fn cannot(what: &str) -> Error {
    Error::new(Kind::Spec, format!("machines of this backend cannot {what}"))
}

/// What machines of the backend of this name can do on a host that lets them; known without its VMM.
pub(crate) fn potential(name: &str) -> &'static [Capability] {
    match name {
        FAKE => &[Capability::Faults],
        CLOUD_HYPERVISOR => &[
            Capability::OwnKernel,
            Capability::Nested,
            Capability::Vsock,
            Capability::Snapshot,
            Capability::Resize,
            Capability::DiskRate,
            Capability::Hotplug,
            Capability::PanicDevice,
        ],
        QEMU => &[
            Capability::OwnKernel,
            Capability::Nested,
            Capability::Snapshot,
            Capability::Resize,
            Capability::DiskRate,
            Capability::Hotplug,
            Capability::PanicDevice,
            Capability::Screenshot,
            Capability::Firmware,
        ],
        FIRECRACKER => &[Capability::OwnKernel, Capability::Vsock, Capability::Snapshot],
        _ => &[],
    }
}

/// What is left of its potential on a host on which it lacks this.
fn able(name: &str, lacks: &BTreeMap<Capability, String>) -> BTreeSet<Capability> {
    potential(name).iter().filter(|capability| !lacks.contains_key(capability)).copied().collect()
}

/// Finds the backend of this name on this host.
///
/// # Errors
/// [`Kind::Spec`] for an unknown name, [`Kind::Missing`] where the host lacks it; both say what to do.
pub(crate) fn find(name: &str, search: &Search) -> Result<Arc<dyn Hypervisor>, Error> {
    match name {
        FAKE => Ok(Arc::new(fake::FakeHypervisor::find())),
        CLOUD_HYPERVISOR => Ok(Arc::new(cloud_hypervisor::CloudHypervisor::find(search)?)),
        QEMU => Ok(Arc::new(qemu::Qemu::find(search)?)),
        FIRECRACKER => Ok(Arc::new(firecracker::Firecracker::find(search)?)),
        _ => Err(Error::new(Kind::Spec, format!("unknown backend `{name}`: valid are auto, {}", NAMES.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_can_do_its_potential_or_says_why_not() {
        for name in NAMES {
            let potential: BTreeSet<_> = potential(name).iter().copied().collect();
            assert!(!potential.is_empty(), "`{name}` has no row");
            // Of one that is not here nothing more can be said.
            let Ok(found) = find(name, &Search::default()) else { continue };
            let (can, lacks) = (found.capabilities().can, found.lacks());
            let said: BTreeSet<_> = can.iter().chain(lacks.keys()).copied().collect();
            assert_eq!((said.len(), said), (can.len() + lacks.len(), potential), "{name}");
        }
    }
}
