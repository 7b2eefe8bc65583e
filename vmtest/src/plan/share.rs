//! What machines take from the host, and whether the host has it.

use bytesize::ByteSize;
use vmtest_fixtures::VolumeWish;

use super::{
    BudgetFacts, Capabilities, MemoryLimit, NodePlan,
    cluster::DEFAULT_MEMORY,
    image::{DEFAULT_ROOT_DISK, image_of},
};
use crate::spec::{Capability, ClusterSpec, NodeSettings, Resources};

/// What a machine of this size takes. One without a kernel of its own has neither memory nor CPUs of its own, and its
/// disk is a directory: it takes what the backend takes for each.
pub(super) fn cost(memory: u64, cpus: u32, disk: u64, capabilities: &Capabilities) -> Resources {
    let overhead = Resources { memory: capabilities.overhead, ..Resources::NONE };
    if capabilities.has(Capability::OwnKernel) { overhead + Resources { memory, cpus, disk } } else { overhead }
}

/// What the machines of a cluster are given, as far as that is known before an image is made and a backend is found.
pub(crate) fn asked_resources(spec: &ClusterSpec) -> Resources {
    let of = |own: &NodeSettings| {
        let image = image_of(own, &spec.defaults, &spec.base);
        let memory = own.memory.or(spec.defaults.memory).or(image.usual_memory()).unwrap_or(DEFAULT_MEMORY);
        let root = (!image.needs_no_kernel()).then_some(DEFAULT_ROOT_DISK);
        let written = spec.defaults.volumes.iter().chain(&own.volumes).filter(|asked| !asked.volume.read_only);
        let volumes: u64 = written.map(|asked| asked.volume.bytes.unwrap_or(VolumeWish::DEFAULT_BYTES)).sum();
        let disk = own.disk.or(spec.defaults.disk).or(root).unwrap_or_default() + volumes;
        Resources { memory, cpus: own.cpus.or(spec.defaults.cpus).unwrap_or(1), disk }
    };
    let later = &spec.budget;
    let joins = NodeSettings { memory: later.memory, cpus: later.cpus, disk: later.disk, ..NodeSettings::default() };
    spec.nodes.iter().map(|node| of(&node.settings)).sum::<Resources>() + of(&joins).times(later.nodes)
}

/// What is kept for machines that join later.
pub(super) fn kept(spec: &ClusterSpec, capabilities: &Capabilities) -> Resources {
    let (later, defaults) = (&spec.budget, &spec.defaults);
    let memory = later.memory.or(defaults.memory).unwrap_or(DEFAULT_MEMORY);
    let cpus = later.cpus.or(defaults.cpus).unwrap_or(1);
    let disk = later.disk.or(defaults.disk).unwrap_or_default();
    cost(memory, cpus, disk, capabilities).times(later.nodes)
}

/// What all these machines take together.
pub(super) fn cost_of_all<'a>(nodes: impl IntoIterator<Item = &'a NodePlan>, capabilities: &Capabilities) -> Resources {
    nodes.into_iter().map(|node| node.cost(capabilities)).sum()
}

/// The same as a claim: machines share CPUs, so a cluster that has more than there are takes all, and runs alone.
pub(super) fn claim(wanted: Resources, budget: &BudgetFacts) -> Resources {
    Resources { cpus: wanted.cpus.min(budget.whole.cpus), ..wanted }
}

/// Why this is more than the host can ever give; each with its remedy.
pub(super) fn too_much(claim: Resources, budget: &BudgetFacts) -> Vec<String> {
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    // The setting takes whole units; what it is told to must suffice.
    let enough = |bytes: u64| format!("{}MiB", bytes.div_ceil(1 << 20));
    let mut problems = Vec::new();
    let Resources { memory, disk, .. } = budget.whole;
    if claim.memory > memory {
        let setting = format!("VMTEST_BUDGET=\"memory={}\"", enough(claim.memory));
        let (who, remedy) = match budget.memory_of {
            MemoryLimit::Host => ("this host", format!("count on guests that leave theirs untouched with {setting}")),
            MemoryLimit::Cgroup => ("the cgroup of this process", "raise its limit".to_owned()),
            MemoryLimit::Setting => ("VMTEST_BUDGET", format!("raise it to {setting}")),
        };
        problems.push(format!(
            "its machines take {} of memory, with what each needs beside its own, but {who} has {} for machines: give \
             them less `memory`, or {remedy}",
            size(claim.memory),
            size(memory)
        ));
    }
    if claim.disk > disk {
        problems.push(format!(
            "its machines take {} of disk, but there is room for {} in the cache: give them a smaller `disk`, set \
             VMTEST_CACHE to another file system, or count on disks that stay sparse with VMTEST_BUDGET=\"disk={}\"",
            size(claim.disk),
            size(disk),
            enough(claim.disk)
        ));
    }
    problems
}
