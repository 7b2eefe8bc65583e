//! One node, as asked.

use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};
use vmtest_fixtures::Fixture;

use super::{Fake, Image, NetworkSpec, Volume, VolumeSpec};

/// One machine of a cluster. Setters take and return `self` and never fail: conflicts are found in [`crate::plan::plan`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The host name.
    pub name: String,
    /// The address that it shall have on the first of its networks.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// The hardware address that it shall have there, `52:54:00:00:00:50`.
    #[serde(default)]
    pub mac: Option<String>,
    /// The networks on which it has an interface, in this order; none is the default one.
    #[serde(default)]
    pub networks: Vec<NetworkSpec>,
    /// What was said about this node alone.
    pub settings: NodeSettings,
}

/// What can be said of one node, or of all nodes of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// The guest image.
    pub image: Option<Image>,
    /// Packages that the image has beside its own; those of the test and of the node count together.
    #[serde(default)]
    pub packages: BTreeSet<String>,
    /// A program that prepares the image; a relative path is resolved against [`crate::spec::ClusterSpec::base`].
    #[serde(default)]
    pub prepare: Option<PathBuf>,
    /// The account by which the framework reaches it, in place of the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// A command that has to succeed before it counts as ready, in place of the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// What starts it in place of a kernel: `bios`, `uefi`, or a file, whose relative path is resolved against
    /// [`crate::spec::ClusterSpec::base`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Virtual CPUs that it can be given while it runs.
    #[serde(default)]
    pub max_cpus: Option<u32>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory in bytes that it can be given while it runs.
    #[serde(default)]
    pub max_memory: Option<u64>,
    /// Size in bytes of an empty disk of the node's own.
    pub disk: Option<u64>,
    /// How many bytes a second each of its disks reads and writes at most.
    #[serde(default)]
    pub disk_rate: Option<u64>,
    /// How many reads and writes a second each of its disks does at most.
    #[serde(default)]
    pub disk_iops: Option<u32>,
    /// A kernel in place of the image's own: `small`, a package, or a bzImage or an ELF file, whose relative path is
    /// resolved against [`crate::spec::ClusterSpec::base`].
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// Appended to the kernel's command line.
    pub kernel_args: Option<String>,
    /// Whether it runs machines itself.
    #[serde(default)]
    pub nested: Option<bool>,
    /// How many bits a second it receives at most, and as many it sends.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Directories that become read-only disks; those of the test come before those of the node.
    pub fixtures: Vec<FixtureSpec>,
    /// Disks that are kept from one run to the next; those of the test come before those of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// What a machine of the backend `fake` does wrong and answers.
    pub fake: Option<Fake>,
}

/// A directory, or files that a test makes up, that a guest finds mounted read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FixtureSpec {
    /// What is on the disk; a relative directory is resolved against [`crate::spec::ClusterSpec::base`].
    pub fixture: Fixture,
    /// Where the guest mounts it, absolute; by default `/fixtures/<the disk's label>`.
    pub at: Option<String>,
}

impl NodeSpec {
    /// A machine with this host name and the cluster's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The address that it shall have on the first of its networks, 10.77.0.0/24 if nothing else is said. A machine for which nothing is said has the
    /// one of its position, from `10.77.0.11` on, or the next that is free.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("legacy").ip([10, 77, 0, 50]).mac("52:54:00:00:00:50");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn ip(mut self, ip: impl Into<Ipv4Addr>) -> Self {
        self.ip = Some(ip.into());
        self
    }

    /// The hardware address that it shall have: six bytes in hexadecimal digits with colons between them, the first of
    /// which is even. A machine for which nothing is said has one that goes with its address.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// A network of this name on which it has an interface: the first that is said is its `eth0`, by which the test reaches
    /// it. Without any it is on the one that is called `default`. Nobody forwards between networks but a machine that is
    /// told to.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let client = NodeSpec::new("client").network("front");
    /// let router = NodeSpec::new("router").network("front").network(NetworkSpec::new("back").ip([10, 77, 2, 253]));
    /// # drop((client, router));
    /// ```
    #[must_use]
    pub fn network(mut self, network: impl Into<NetworkSpec>) -> Self {
        self.networks.push(network.into());
        self
    }

    /// The guest image: `micro`, `debian-12`, `debian-13`; `oci:` and the path of a container's image in the OCI layout, or
    /// `cloud:` and the path of a cloud image, both seen from [`base`](crate::ClusterBuilder::base); `docker://` and the name
    /// of a container's image in a registry, which is asked only where the cache has no image of this name; or `cloud:` and
    /// the name of a cloud image in the catalog, such as `cloud:ubuntu-24.04`, or the address of one, with `#sha256=` or
    /// `#sha512=` and its digest behind it. Or an [`Image`] of files, or one
    /// that a type of yours makes: a [`GuestImage`](super::GuestImage).
    #[must_use]
    pub fn image(mut self, image: impl Into<Image>) -> Self {
        self.settings.image = Some(image.into());
        self
    }

    /// A package of the image's distribution that it has beside its own, with all that it depends on; may be called again.
    /// The image with these packages is built once and kept, for all tests that ask for the same ones.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("db").image("debian-12").package("postgresql").prepare("tests/data/setup.sh");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.settings.packages.insert(name.into());
        self
    }

    /// A program, by its path, that runs once inside of the image as root, when it is built and its packages are there. What
    /// it writes is on every machine of the image; it reaches what the host reaches, and no service runs beside it. The first
    /// line names its interpreter, and a changed program makes another image.
    #[must_use]
    pub fn prepare(mut self, program: impl Into<PathBuf>) -> Self {
        self.settings.prepare = Some(program.into());
        self
    }

    /// The account by which the framework reaches the machine, root where nothing is said. Commands run as root all the same,
    /// by `sudo -n`, which the image must have. Only a cloud image has other accounts that can be entered: its cloud-init makes
    /// this one where there is none, and lets it in. For images that refuse root over SSH.
    #[must_use]
    pub fn login(mut self, account: impl Into<String>) -> Self {
        self.settings.login = Some(account.into());
        self
    }

    /// A command that must succeed, as root, before the machine counts as ready: it is run again until it does, each time
    /// the machine is started, as long as the boot may take. What it printed last is in the error where it never does.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("db").image("cloud:images/debian.qcow2").login("debian").ready("cloud-init status --wait");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn ready(mut self, command: impl Into<String>) -> Self {
        self.settings.ready = Some(command.into());
        self
    }

    /// Starts the machine by the boot loader of its cloud image, as a computer would: with the firmware `bios`, `uefi` (a file
    /// of OVMF, from the package `ovmf`), or the file of a firmware. The image's own configuration says then what is on the
    /// console, and nothing is added to its kernel's command line. Only QEMU does so.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("secure").image("cloud:images/appliance.qcow2").firmware("uefi");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn firmware(mut self, firmware: impl Into<PathBuf>) -> Self {
        self.settings.firmware = Some(firmware.into());
        self
    }

    /// The number of virtual CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.settings.cpus = Some(cpus);
        self
    }

    /// The memory in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.settings.memory = Some(bytes);
        self
    }

    /// A disk of the node's own with this size in bytes: for `micro` an empty one that is mounted at `/scratch`, for an image
    /// with a root file system that on which it writes everything, 2 GiB where nothing is said. It takes room on the host as it is
    /// filled, keeps what was synced through `kill` and `start`, and goes with the cluster.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.settings.disk = Some(bytes);
        self
    }

    /// A kernel in place of the image's own:
    /// - `small` is one that vmtest configures for machines of tests. It has everything built in that they need and boots
    ///   faster; it is compiled once from the source package of the distribution, in minutes.
    /// - A package of the distribution with a kernel, as `linux-image-rt-amd64`, with its modules for disks and networks.
    /// - A path, absolute or below the package, of a bzImage or an ELF file (QEMU and cloud-hypervisor boot one with an entry
    ///   for PVH). It must find its disks and networks with what is built into it, or be of the image's own version: the
    ///   modules of the image go with that alone.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("next").kernel("tests/kernels/6.12/bzImage").kernel_args("slub_debug=FZP");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.kernel = Some(path.into());
        self
    }

    /// The number of virtual CPUs that the machine can be given while it runs, by [`Node::set_cpus`](crate::Node::set_cpus).
    /// It boots with `cpus`, and takes these from the host's budget. The backend must be able to do it.
    #[must_use]
    pub fn max_cpus(mut self, cpus: u32) -> Self {
        self.settings.max_cpus = Some(cpus);
        self
    }

    /// The memory in bytes that the machine can be given while it runs, by [`Node::set_memory`](crate::Node::set_memory). It
    /// boots with `memory`, and takes this from the host's budget. The backend must be able to do it.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.settings.max_memory = Some(bytes);
        self
    }

    /// At most so many bytes a second from and to each of its disks, together; at least 64 KiB. What is beyond waits. After a
    /// silence a tenth of a second's worth passes at once, on cloud-hypervisor 1.25 MiB at least. The backend must be able to do
    /// it.
    #[must_use]
    pub fn disk_rate(mut self, bytes_a_second: u64) -> Self {
        self.settings.disk_rate = Some(bytes_a_second);
        self
    }

    /// At most so many reads and writes a second of each of its disks, together; at least 10. What is beyond waits. The backend
    /// must be able to do it.
    #[must_use]
    pub fn disk_iops(mut self, operations_a_second: u32) -> Self {
        self.settings.disk_iops = Some(operations_a_second);
        self
    }

    /// Words for the kernel's command line, after ours.
    #[must_use]
    pub fn kernel_args(mut self, args: impl Into<String>) -> Self {
        self.settings.kernel_args = Some(args.into());
        self
    }

    /// Gives the machine what it takes to run machines itself: a processor with virtualization, a `/dev/kvm` that works, and
    /// the kernel modules of their networks. Under emulation that is AMD's, and what runs inside is some ten times slower than
    /// on the machine itself.
    #[must_use]
    pub fn nested(mut self, nested: bool) -> Self {
        self.settings.nested = Some(nested);
        self
    }

    /// At most so many bits a second to the machine, and as many from it: whole Ethernet frames, each direction on its own.
    /// What is beyond waits for 50 ms at most, or in a queue of ten full frames if that is more, and is dropped then.
    ///
    /// The host's kernel limits it on the machine's port of each of its bridges, with `tbf` and `ifb`. From 64,000 to
    /// 100,000,000,000; a machine with replies has no port, and none.
    #[must_use]
    pub fn rate(mut self, bits_a_second: u64) -> Self {
        self.settings.rate = Some(bits_a_second);
        self
    }

    /// What the machine does wrong, and what it answers. It must run on the backend `fake`.
    #[must_use]
    pub fn fake(mut self, fake: Fake) -> Self {
        self.settings.fake = Some(fake);
        self
    }

    /// A directory, by its path, or a [`Fixture`] that the guest finds read-only at `at`.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("web")
    ///     .fixture("tests/data/www", "/srv/www")
    ///     .fixture(Fixture::from_files([("app.conf", "port = 80")]).label("conf"), "/srv/conf");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn fixture(mut self, fixture: impl Into<Fixture>, at: impl Into<String>) -> Self {
        self.settings.fixtures.push(FixtureSpec { fixture: fixture.into(), at: Some(at.into()) });
        self
    }

    /// A disk that is kept from one run to the next, by its name or as a [`Volume`], that the guest finds at `at`. What the
    /// machine has written is there for the next test when this one is over, however it ends; a machine that is killed loses
    /// what it did not sync.
    ///
    /// ```
    /// # use vmtest::prelude::*;
    /// let node = NodeSpec::new("db").volume(Volume::new("pgdata").size(4 << 30), "/var/lib/postgresql");
    /// # drop(node);
    /// ```
    #[must_use]
    pub fn volume(mut self, volume: impl Into<Volume>, at: impl Into<String>) -> Self {
        self.settings.volumes.push(VolumeSpec { volume: volume.into(), at: Some(at.into()) });
        self
    }
}
