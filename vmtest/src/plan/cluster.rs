//! From what was asked to what will be done.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Capabilities, DiskPlan, EgressPlan, Facts, InterfacePlan, NetworkPlan, NodePlan, ROOT, RatePlan, SCRATCH,
    addresses::{Addresses, assign},
    headroom::{disk_rate, headroom},
    image::{self, image_of},
    kernel,
    network::{MAX_NODES, ip6},
    node::TOLD,
    problems::Problems,
    requires, share, volume,
};
use crate::{
    error::Error,
    spec::{Capability, ClusterSpec, Fake, FixtureSpec, NetworkPlace, NodeSettings, NodeSpec, Resources},
};

/// Memory of a node that says nothing: the micro image with its root in memory uses 60 MiB of it.
pub(super) const DEFAULT_MEMORY: u64 = 256 << 20;
/// Below this the kernel and its initramfs do not fit.
const MIN_MEMORY: u64 = 96 << 20;
/// Boot and body of a test that sets no timeout, before scaling: boots take under 15 s, most bodies under a minute.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// The readiness ladder, before scaling: a kernel with what is in memory takes 3 s under emulation.
const BOOT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same with a root file system: a systemd Debian takes 11 s there alone, and minutes on a host that is many times over
/// committed; two with cloud-init beside each other took 160 s under emulation on a busy host.
const ROOT_BOOT_TIMEOUT: Duration = Duration::from_secs(90);
/// How much slower a guest is under emulation: kernels boot 3 to 4 times slower than with KVM.
pub(crate) const EMULATION_SCALE: f64 = 4.0;
/// Below this ext4 has no room for its journal.
pub(super) const MIN_DISK: u64 = 16 << 20;
/// Where a guest finds its scratch disk, and by which label; no fixture's label has a slash or is as long.
const SCRATCH_AT: &str = "/scratch";
const SCRATCH_LABEL: &str = "vmtest-scratch";
/// virtio-blk disks beyond this run out of the letters that people can read in `/dev/vd?`.
const MAX_DISKS: usize = 23;
/// What a guest does not run without.
const SYSTEM_DIRECTORIES: &[&str] = &["bin", "etc", "lib", "lib64", "root", "run", "sbin", "tmp", "usr", "var"];

/// Everything that will be done for one cluster; what `provision` carries out and what the evidence keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The test's path.
    pub name: String,
    /// The backend that runs the machines.
    pub backend: String,
    /// What its machines can do.
    pub capabilities: Capabilities,
    /// Its networks, the default one first.
    pub networks: Vec<NetworkPlan>,
    /// The way out of them; without, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressPlan>,
    /// The machines, in launch order.
    pub nodes: Vec<NodePlan>,
    /// For each node, the initramfs of its image, to which its own facts are appended.
    pub base_initramfs: Vec<String>,
    /// What the cluster takes from the host, and claims before it is made.
    pub claim: Resources,
    /// What of that is kept for machines that join later.
    pub spare: Resources,
    /// Limit for boot and body together, scaled.
    pub timeout: Duration,
    /// Limit for the readiness ladder, scaled; never above `timeout`.
    pub boot_timeout: Duration,
    /// What every limit of the test's author is multiplied by: the backend's share and the setting's.
    pub timeout_scale: f64,
}

impl Plan {
    /// A limit of the test's author, as it holds on this backend.
    pub fn scaled(&self, limit: Duration) -> Duration {
        limit.mul_f64(self.timeout_scale)
    }
}

/// Decides everything that can be decided before anything is touched.
///
/// # Errors
/// [`Kind::Spec`](crate::Kind::Spec) or [`Kind::Missing`](crate::Kind::Missing), with every problem of the spec and of
/// the host in one message.
pub fn plan(spec: &ClusterSpec, facts: &Facts) -> Result<Plan, Error> {
    let mut problems = Problems::default();
    let networks = NetworkPlan::all(spec, facts.host.as_ref(), &mut problems);
    for network in &networks {
        if let Err(why) = check_name(&network.name) {
            problems.spec(format!("`{}` is no name of a network: {why}", network.name));
        }
    }
    if spec.egress && spec.place == NetworkPlace::Host {
        let why = "the way out leads from a network of the cluster's own, and here the host is the gateway";
        problems.spec(format!("`egress` and `network = \"host\"`: {why}: leave one of the two out"));
    }
    requires::check(spec, facts, &mut problems);
    let nodes = plan_nodes(spec, &networks, facts, (&[], 0), &mut problems);
    let (nodes, base_initramfs): (Vec<_>, _) = nodes.into_iter().unzip();
    let (mut claim, mut spare) = (Resources::NONE, Resources::NONE);
    if let Ok(backend) = &facts.backend {
        spare = share::kept(spec, &backend.capabilities);
        claim = share::claim(share::cost_of_all(&nodes, &backend.capabilities) + spare, &facts.budget);
        problems.host_lacks(share::too_much(claim, &facts.budget));
    }
    let backend = facts.backend.clone().ok();
    problems.into_result(&spec.name)?;
    let backend = backend.expect("a missing backend is a problem, and problems returned above");
    let timeout_scale = facts.timeout_scale * if backend.capabilities.emulated { EMULATION_SCALE } else { 1.0 };
    let scaled = |limit: Duration| limit.mul_f64(timeout_scale);
    let timeout = scaled(spec.timeout.unwrap_or(DEFAULT_TIMEOUT));
    let boot_limit =
        if nodes.iter().any(|node| node.root || node.cloud.is_some()) { ROOT_BOOT_TIMEOUT } else { BOOT_TIMEOUT };
    Ok(Plan {
        name: spec.name.clone(),
        backend: backend.name,
        capabilities: backend.capabilities,
        egress: spec.egress.then(|| EgressPlan::new(&networks, facts.egress.as_ref())),
        networks,
        nodes,
        base_initramfs,
        claim,
        spare,
        timeout,
        boot_timeout: timeout.min(scaled(boot_limit)),
        timeout_scale,
    })
}

/// Decides the same for machines that join later: the nodes of this spec, on these networks and beside those that have
/// been there. The first of them gets this index. For each, the plan and the initramfs of its image.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_more(
    spec: &ClusterSpec,
    facts: &Facts,
    networks: &[NetworkPlan],
    others: &[NodePlan],
    first: usize,
) -> Result<Vec<(NodePlan, String)>, Error> {
    let mut problems = Problems::default();
    let nodes = plan_nodes(spec, networks, facts, (others, first), &mut problems);
    if let Ok(backend) = &facts.backend {
        let all = others.iter().chain(nodes.iter().map(|(node, _)| node));
        let all = share::cost_of_all(all, &backend.capabilities);
        problems.host_lacks(share::too_much(all, &facts.budget));
    }
    problems.into_result(&spec.name).map(|()| nodes)
}

fn plan_nodes(
    spec: &ClusterSpec,
    networks: &[NetworkPlan],
    facts: &Facts,
    (others, first): (&[NodePlan], usize),
    problems: &mut Problems,
) -> Vec<(NodePlan, String)> {
    check_names(&spec.nodes, others, problems);
    let count = first + spec.nodes.len();
    if count > MAX_NODES {
        problems.spec(format!("{count} nodes, but the network has addresses for {MAX_NODES}"));
    }
    problems.take(facts.backend.clone());
    problems.host_lacks(facts.missing.clone());
    for (name, image) in &facts.images {
        if let Err(why) = image {
            problems.missing(format!("image `{name}`: {why}"));
        }
    }
    kernel::check(facts, problems);
    for (fixture, built) in &facts.fixtures {
        if let Err(why) = built {
            problems.missing(format!("fixture `{fixture}`: {why}"));
        }
    }
    for (volume, known) in &facts.volumes {
        if let Err(why) = known {
            problems.missing(format!("volume `{volume}`: {why}"));
        }
    }
    volume::check_sharing(spec, others, problems);
    let addresses = assign(&spec.nodes, others, first, networks, problems);
    let nodes = (first..).zip(&spec.nodes).zip(addresses);
    let planned = nodes.map(|((index, node), addresses)| {
        let rate = plan_rate(node, &spec.defaults, problems);
        let interfaces = addresses.map(|addresses| plan_interfaces(index, addresses, rate));
        plan_node(index, node, interfaces, spec, facts, problems)
    });
    planned.flatten().collect()
}

/// The rate of a node in bits a second, if it has one that can be.
fn plan_rate(node: &NodeSpec, defaults: &NodeSettings, problems: &mut Problems) -> Option<u64> {
    let bits = node.settings.rate.or(defaults.rate)?;
    let fake = node.settings.fake.as_ref().or(defaults.fake.as_ref());
    if fake.is_some_and(Fake::is_scripted) {
        let why = "`rate` limits a port of the bridge, and a machine with replies has none: leave out one of the two";
        problems.spec(format!("node `{}`: {why}", node.name));
    }
    let possible = RatePlan::check(bits);
    possible.map_err(|why| problems.spec(format!("node `{}`: {why}", node.name))).ok().map(|()| bits)
}

fn plan_interfaces(index: usize, addresses: Vec<Addresses<'_>>, rate: Option<u64>) -> Vec<InterfacePlan> {
    let planned = (0..).zip(addresses).map(|(number, Addresses { network, ip, mac })| {
        let place = if number == 0 { index.to_string() } else { format!("{index}-{number}") };
        InterfacePlan {
            network: network.name.clone(),
            ip,
            ip6: ip6(ip),
            mac,
            rate: rate.map(|bits| RatePlan::new(bits, network.mtu, &place)),
            tap: format!("tap{place}"),
        }
    });
    planned.collect()
}

fn plan_node(
    index: usize,
    node: &NodeSpec,
    interfaces: Option<Vec<InterfacePlan>>,
    spec: &ClusterSpec,
    facts: &Facts,
    problems: &mut Problems,
) -> Option<(NodePlan, String)> {
    let (own, defaults) = (&node.settings, &spec.defaults);
    let cpus = own.cpus.or(defaults.cpus).unwrap_or(1);
    if cpus == 0 {
        problems.spec(format!("node `{}`: `cpus` must be at least 1", node.name));
    }
    let asked = image_of(own, defaults, &spec.base);
    let image = facts.images.get(&asked).and_then(|image| image.as_ref().ok());
    let usual = image.and_then(|image| image.memory).unwrap_or(DEFAULT_MEMORY);
    let memory = own.memory.or(defaults.memory).unwrap_or(usual);
    if memory < MIN_MEMORY {
        problems.spec(format!(
            "node `{}`: {} MiB of memory, but the image needs at least {} MiB",
            node.name,
            memory >> 20,
            MIN_MEMORY >> 20
        ));
    }
    let headroom = headroom(&node.name, (cpus, memory), [own, defaults], facts, problems);
    let disk_rate = disk_rate(&node.name, [own, defaults], facts, problems);
    let fixtures: Vec<_> = defaults.fixtures.iter().chain(&own.fixtures).collect();
    let volumes = defaults.volumes.len() + own.volumes.len();
    if fixtures.len() + volumes > MAX_DISKS {
        let beside = if volumes == 0 { String::new() } else { format!(" and {volumes} volumes") };
        let count = fixtures.len();
        problems.spec(format!("node `{}`: {count} fixtures{beside}, but a node takes {MAX_DISKS}", node.name));
    }
    let mut disks = plan_disks(&node.name, &fixtures, facts, problems);
    volume::plan_volumes(&node.name, [own, defaults], &mut disks, facts, problems);
    let root = image.and_then(|image| image.root.as_ref());
    let cloud = image.and_then(|image| image.cloud.as_ref());
    let usual = root.map(|_| image::DEFAULT_ROOT_DISK).or(cloud.map(|cloud| cloud.bytes.max(image::DEFAULT_ROOT_DISK)));
    let scratch = own.disk.or(defaults.disk).or(usual);
    let scratch_at = if root.is_some() { "/" } else { SCRATCH_AT };
    if let (Some(cloud), Some(bytes)) = (cloud, scratch) {
        if bytes < cloud.bytes {
            let (is, least) = (bytes >> 20, cloud.bytes.div_ceil(1 << 20));
            problems.spec(format!("node `{}`: a `disk` of {is} MiB, but that of its image has {least} MiB", node.name));
        }
        let layers = facts.backend.as_ref().is_ok_and(|backend| backend.capabilities.layers);
        disks = image::cloud_disks(disks, cloud, layers);
    } else if let Some(bytes) = scratch {
        if bytes < MIN_DISK {
            let (is, least) = (bytes >> 20, MIN_DISK >> 20);
            problems.spec(format!("node `{}`: a `disk` of {is} MiB, but it takes at least {least} MiB", node.name));
        }
        for disk in disks.iter().filter(|disk| root.is_none() && overlap(&disk.at, SCRATCH_AT)) {
            problems.spec(format!(
                "node `{}`: its `disk` is mounted at `{SCRATCH_AT}`: give the {} at `{}` another `at`",
                node.name,
                if disk.volume.is_some() { "volume" } else { "fixture" },
                disk.at
            ));
        }
        let path = format!("{SCRATCH}/disk.ext4");
        disks.push(DiskPlan {
            path,
            label: SCRATCH_LABEL.into(),
            at: scratch_at.into(),
            read_only: false,
            below: None,
            volume: None,
        });
    }
    if let Some(root) = root {
        disks.insert(0, image::root_disk(root));
    }
    let fake = own.fake.as_ref().or(defaults.fake.as_ref());
    let nested = own.nested.or(defaults.nested).unwrap_or_default();
    if let Ok(backend) = &facts.backend {
        let has = |capability| backend.capabilities.has(capability);
        if nested && !has(Capability::Nested) {
            problems.spec(format!(
                "node `{}`: `nested` is for a processor of its own that can be told to run machines, which `{}` does not give \
                 here: write `backend = \"qemu\"`, or turn nested virtualization on",
                node.name, backend.name
            ));
        }
        let says = |said: fn(&NodeSettings) -> bool| !has(Capability::OwnKernel) && (said(own) || said(defaults));
        let mut no_kernel = |what: &str| {
            problems.spec(format!(
                "node `{}`: {what} for a kernel of its own, which a machine of `{}` does not have",
                node.name, backend.name
            ));
        };
        if says(|settings| settings.kernel_args.is_some()) {
            no_kernel("`kernel_args` are");
        }
        if says(|settings| settings.kernel.is_some()) {
            no_kernel("`kernel` is");
        }
        image::check(&node.name, &asked, backend, problems);
        if !has(Capability::Faults) && fake.is_some() {
            problems.spec(format!(
                "node `{}`: faults and replies are for the backend `fake`, but this test runs on `{}`: write \
                 `backend = \"fake\"`",
                node.name, backend.name
            ));
        }
    }
    let image = image?;
    let firmware = image::check_start(&node.name, image, [own, defaults], facts, problems);
    let login = own.login.as_ref().or(defaults.login.as_ref()).or(image.login.as_ref()).filter(|login| *login != ROOT);
    let ready = own.ready.as_ref().or(defaults.ready.as_ref()).or(image.ready.as_ref());
    let initramfs = if nested { &image.nested } else { &image.initramfs }.display().to_string();
    let kernel = kernel::of_node(node, defaults, image, facts, problems)?;
    // So that all machines of an image have one initramfs.
    let tells = facts.backend.as_ref().is_ok_and(|backend| backend.capabilities.tells);
    let told = tells && image.asks_firmware && kernel.path == image.kernel;
    let interfaces = interfaces?;
    let extra = [&defaults.kernel_args, &own.kernel_args];
    let cmdline = ["console=ttyS0 panic=-1 reboot=t net.ifnames=0"]
        .into_iter()
        .chain(Some(image.arguments.as_str()).filter(|words| !words.is_empty()))
        .chain(extra.into_iter().flatten().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let plan = NodePlan {
        name: node.name.clone(),
        index,
        interfaces,
        nested,
        snapshots: spec.requires.contains(&Capability::Snapshot),
        hotplug: spec.requires.contains(&Capability::Hotplug),
        screen: spec.requires.contains(&Capability::Screenshot),
        cpus,
        max_cpus: headroom.max_cpus,
        memory: memory >> 20 << 20,
        max_memory: headroom.max_memory,
        disk_rate,
        firmware,
        kernel: kernel.path.display().to_string(),
        foreign_kernel: kernel.foreign,
        modules: kernel.modules.map(|archive| archive.display().to_string()),
        initramfs: if cloud.is_some() || told { initramfs.clone() } else { "initramfs".into() },
        told: told.then(|| TOLD.into()),
        cmdline,
        scratch,
        root: root.is_some(),
        cloud: cloud.map(|cloud| cloud.path.display().to_string()),
        entrypoint: image.entrypoint.clone(),
        image_digest: image.digest.clone(),
        login: login.cloned(),
        ready: ready.cloned(),
        disks,
        fake: fake.cloned(),
    };
    Some((plan, initramfs))
}

fn plan_disks(node: &str, fixtures: &[&FixtureSpec], facts: &Facts, problems: &mut Problems) -> Vec<DiskPlan> {
    let mut disks: Vec<DiskPlan> = Vec::new();
    for FixtureSpec { fixture, at } in fixtures {
        let at = at.clone().unwrap_or_else(|| format!("/fixtures/{}", fixture.name()));
        let at = match mount_point(&at) {
            Ok(at) => at,
            Err(why) => {
                problems.spec(format!("node `{node}`: the fixture `{fixture}` cannot be mounted at `{at}`: {why}"));
                continue;
            }
        };
        let built = facts.fixtures.iter().find(|(asked, _)| asked == fixture);
        let Some(built) = built.and_then(|(_, built)| built.as_ref().ok()) else { continue };
        for other in &disks {
            if other.at == at {
                problems.spec(format!("node `{node}`: two fixtures at `{at}`: give one of them another `at`"));
            } else if overlap(&other.at, &at) {
                problems.spec(format!(
                    "node `{node}`: of the fixtures at `{}` and `{at}` one is inside the other, which is read-only: give \
                     one of them another `at`",
                    other.at
                ));
            }
        }
        let path = built.path.display().to_string();
        if disks.iter().any(|disk| disk.label == built.label && disk.path != path) {
            problems.spec(format!(
                "node `{node}`: two fixtures with the label `{}`: give one of them another `label`",
                built.label
            ));
        }
        disks.push(DiskPlan { path, label: built.label.clone(), at, read_only: true, below: None, volume: None });
    }
    disks
}

/// The path without a `/` at its end or two in a row, or why nothing can be mounted there.
pub(crate) fn mount_point(at: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = at.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    // What `/proc/mounts` writes in another way.
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\' || c == '#';
    match parts.as_slice() {
        _ if !at.starts_with('/') => Err("give an absolute path"),
        _ if at.contains(odd) => Err("give a path without spaces, `#` and `\\`"),
        _ if parts.contains(&"..") => Err("give a path without `..`"),
        [] => Err("it would hide all files of the guest: give a directory below"),
        ["dev" | "proc" | "sys", ..] => Err("this is the kernel's: give another path"),
        [one] if SYSTEM_DIRECTORIES.contains(one) => Err("it would hide the guest's own files: give a directory below"),
        _ => Ok(format!("/{}", parts.join("/"))),
    }
}

/// Whether one is the other or inside of it.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    inside(a, b) || inside(b, a)
}

fn check_names(nodes: &[NodeSpec], others: &[NodePlan], problems: &mut Problems) {
    let mut count: BTreeMap<&str, usize> = others.iter().map(|other| (other.name.as_str(), 1)).collect();
    for node in nodes {
        *count.entry(&node.name).or_default() += 1;
        if let Err(why) = check_name(&node.name) {
            problems.spec(format!("`{}` is no host name: {why}", node.name));
        }
    }
    for (name, _) in count.into_iter().filter(|(_, n)| *n > 1) {
        problems.spec(format!("two nodes are called `{name}`: give each its own name"));
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match name {
        "" => Err("it is empty"),
        "localhost" => Err("it means the machine itself"),
        _ if name.len() > 63 => Err("it is longer than 63 characters"),
        _ if !name.bytes().all(ok) => Err("it may hold a-z, 0-9 and `-`"),
        _ if name.starts_with('-') || name.ends_with('-') => Err("it begins or ends with `-`"),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
