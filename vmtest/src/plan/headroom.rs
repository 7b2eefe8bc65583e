//! What a machine can be given while it runs, and how fast its disks are.

use serde::{Deserialize, Serialize};

use super::{Facts, problems::Problems};
use crate::spec::{Capability, NodeSettings};

/// Below this a page of the guest's takes a second.
const MIN_DISK_RATE: u64 = 64 << 10;
/// Below this a tenth of a second, in which limits are reckoned, has no whole operation.
const MIN_DISK_IOPS: u32 = 10;

/// What limits each disk of a machine, reads and writes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRatePlan {
    /// In bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// In operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u32>,
}

impl DiskRatePlan {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a machine can be given while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headroom {
    pub(super) max_cpus: Option<u32>,
    /// In bytes, a multiple of 1 MiB.
    pub(super) max_memory: Option<u64>,
}

/// What a machine with so many CPUs and so much memory can be given.
pub(super) fn headroom(
    name: &str,
    (cpus, memory): (u32, u64),
    [own, defaults]: [&NodeSettings; 2],
    facts: &Facts,
    problems: &mut Problems,
) -> Headroom {
    let max_cpus = own.max_cpus.or(defaults.max_cpus);
    let max_memory = own.max_memory.or(defaults.max_memory).map(|bytes| bytes >> 20 << 20);
    if let Some(max) = max_cpus.filter(|max| *max < cpus) {
        problems.spec(format!("node `{name}`: `max_cpus` is {max}, but it boots with `cpus = {cpus}`"));
    }
    if let Some(max) = max_memory.filter(|max| *max < memory >> 20 << 20) {
        let (max, memory) = (max >> 20, memory >> 20);
        problems.spec(format!("node `{name}`: `max_memory` is {max} MiB, but it boots with {memory} MiB"));
    }
    if max_cpus.is_some() || max_memory.is_some() {
        needs(name, Capability::Resize, "`max_cpus` and `max_memory` are for", facts, problems);
    }
    Headroom { max_cpus, max_memory }
}

/// What limits the disks of a machine.
pub(super) fn disk_rate(
    name: &str,
    [own, defaults]: [&NodeSettings; 2],
    facts: &Facts,
    problems: &mut Problems,
) -> DiskRatePlan {
    let rate =
        DiskRatePlan { bytes: own.disk_rate.or(defaults.disk_rate), operations: own.disk_iops.or(defaults.disk_iops) };
    if let Some(bytes) = rate.bytes.filter(|bytes| *bytes < MIN_DISK_RATE) {
        let least = MIN_DISK_RATE >> 10;
        problems
            .spec(format!("node `{name}`: a `disk_rate` of {bytes} bytes a second, but it is at least {least} KiB"));
    }
    if let Some(operations) = rate.operations.filter(|operations| *operations < MIN_DISK_IOPS) {
        problems.spec(format!("node `{name}`: `disk_iops = {operations}`, but it is at least {MIN_DISK_IOPS}"));
    }
    if !rate.is_none() {
        needs(name, Capability::DiskRate, "`disk_rate` and `disk_iops` are for", facts, problems);
    }
    rate
}

/// Reports that the backend cannot do this, with those that can.
fn needs(name: &str, capability: Capability, what: &str, facts: &Facts, problems: &mut Problems) {
    let Ok(backend) = &facts.backend else { return };
    if backend.capabilities.has(capability) {
        return;
    }
    let able = facts.known.iter().filter(|known| known.can.contains(&capability));
    let able: Vec<_> = able.map(|known| format!("`{}`", known.name)).collect();
    problems.spec(format!(
        "node `{name}`: {what} backends that can do it, which `{}` cannot: {} can, and `requires({capability})` takes one \
         of them",
        backend.name,
        able.join(" and ")
    ));
}
