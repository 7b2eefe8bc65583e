//! How much of this host machines may take.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use procfs::Current;

use super::{Asked, Ledger, cgroup::CgroupMemory, ledger::Live};
use crate::{
    error::{Error, Kind},
    plan::{BudgetFacts, MemoryLimit},
    spec::Resources,
};

/// This part of the memory is left to everything that is no machine: one sixteenth, 1 GiB of 16. The test processes
/// take 15 MiB each, and `MemAvailable` has taken the kernel's own share off already.
const RESERVED_PART: u64 = 16;
/// So many virtual CPUs go on one of the host. A guest needs its CPU whole only while it boots. Four of them that do so
/// at once on one CPU take four times as long, three seconds each under emulation; the limit for that is 120 s.
const VCPUS_PER_CPU: u32 = 4;

/// What the host has, and what the user has decided about it.
#[derive(Debug, Clone)]
pub(crate) struct HostBudget {
    asked: Asked,
    whole: Resources,
    memory_of: MemoryLimit,
    /// Where scratch disks are.
    cache: PathBuf,
}

impl HostBudget {
    /// Looks at the host: less than a millisecond.
    ///
    /// # Errors
    /// [`Kind::Host`] when the memory or the disk cannot be measured, or the claims not be read.
    pub(crate) fn measure(ledger: &Ledger, asked: Asked, cache: PathBuf) -> Result<Self, Error> {
        let cgroup = CgroupMemory::of_this_process();
        let (memory, memory_of) = match (asked.memory, cgroup) {
            (Some(memory), _) => (memory, MemoryLimit::Setting),
            (None, cgroup) => {
                let total = memory_info()?.mem_total;
                let limit = cgroup.map_or(total, |cgroup| cgroup.limit.min(total));
                (limit - limit / RESERVED_PART, if limit < total { MemoryLimit::Cgroup } else { MemoryLimit::Host })
            }
        };
        let disk = match asked.disk {
            Some(disk) => disk,
            // What our own machines have filled is theirs to share.
            None => {
                let claims = ledger.lock()?.claims()?;
                claims.iter().map(|claim| ledger.used_by(&claim.run).disk).sum::<u64>() + free_disk(&cache)?
            }
        };
        let cpus = asked.cpus.unwrap_or_else(|| {
            let cpus = thread::available_parallelism().map_or(1, usize::from);
            u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(VCPUS_PER_CPU)
        });
        Ok(Self { asked, whole: Resources { memory, cpus, disk }, memory_of, cache })
    }

    /// All that machines may take.
    pub(crate) fn whole(&self) -> Resources {
        self.whole
    }

    /// The same, as planning knows it.
    pub(crate) fn facts(&self) -> BudgetFacts {
        BudgetFacts { whole: self.whole, memory_of: self.memory_of }
    }

    /// What is free now, beyond what these claims will still take: what the user has decided is not measured.
    pub(super) fn free_now(&self, ledger: &Ledger, claims: &[Live]) -> Result<Resources, Error> {
        let unlimited = Resources { memory: u64::MAX, cpus: u32::MAX, disk: u64::MAX };
        if self.asked.memory.is_some() && self.asked.disk.is_some() {
            return Ok(unlimited);
        }
        let memory = match self.asked.memory {
            Some(_) => u64::MAX,
            None => {
                let available = memory_info()?.mem_available.unwrap_or_default();
                let cgroup = CgroupMemory::of_this_process().map_or(u64::MAX, |cgroup| cgroup.available);
                // The reserve is that of the whole: the sixteenth of the limit is a fifteenth of what is left of it.
                available.min(cgroup).saturating_sub(self.whole.memory / (RESERVED_PART - 1))
            }
        };
        let disk = self.asked.disk.map_or_else(|| free_disk(&self.cache), |_| Ok(u64::MAX))?;
        Ok(Resources { memory, disk, ..unlimited }.without(untouched(ledger, claims)))
    }
}

/// What these claims will still take.
fn untouched(ledger: &Ledger, claims: &[Live]) -> Resources {
    claims.iter().map(|claim| claim.record.holder.holds.without(ledger.used_by(&claim.run))).sum()
}

fn memory_info() -> Result<procfs::Meminfo, Error> {
    procfs::Meminfo::current().map_err(|e| {
        let message = "cannot see how much memory there is: set VMTEST_BUDGET, for example to \"memory=8GiB\"";
        Error::new(Kind::Host, message).caused_by(e)
    })
}

/// What an ordinary user may still write to the file system of this directory, in bytes.
fn free_disk(dir: &Path) -> Result<u64, Error> {
    // The cache may not be there yet.
    let stat = dir.ancestors().map(rustix::fs::statvfs).find(|stat| !matches!(stat, Err(rustix::io::Errno::NOENT)));
    let stat = stat.unwrap_or(Err(rustix::io::Errno::NOENT)).map_err(|e| {
        let message = format!("cannot see how much room there is in {}", dir.display());
        Error::new(Kind::Host, message).caused_by(io::Error::from(e))
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::record::{Holder, Record, VERSION},
        *,
    };
    use crate::host::{Effect, Journal, ProcessId};

    fn claim_of(memory: u64) -> Live {
        let holder = Holder { test: "t".into(), pid: 1, holds: Resources { memory, ..Resources::NONE } };
        Live { run: "r".into(), record: Record { version: VERSION, holder, waits: None } }
    }

    #[test]
    fn what_is_not_said_is_measured() {
        let root = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        let asked = Asked { cpus: Some(3), ..Asked::default() };
        let budget = HostBudget::measure(&ledger, asked, root.path().join("not/yet/there")).unwrap();
        let total = memory_info().unwrap().mem_total;
        assert!((1..=total - total / RESERVED_PART).contains(&budget.whole().memory), "{}", budget.whole());
        assert_eq!(budget.whole().cpus, 3);
        assert!(budget.whole().disk > 0);
        let cpus = HostBudget::measure(&ledger, Asked::default(), root.path().to_owned()).unwrap().whole().cpus;
        assert_eq!(cpus as usize, usize::from(thread::available_parallelism().unwrap()) * 4);
    }

    #[test]
    fn what_is_claimed_and_not_used_is_not_free() {
        let root = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        let budget = HostBudget::measure(&ledger, Asked::default(), root.path().to_owned()).unwrap();
        let free = |claims: &[Live]| budget.free_now(&ledger, claims).unwrap().memory;
        let before = free(&[]);
        assert!(before > 0 && before < memory_info().unwrap().mem_total);
        assert_eq!(free(&[claim_of(before * 2)]), 0);
        // A run whose process uses a part of what was claimed: that part is gone from what is available already.
        let run = root.path().join("r");
        fs::create_dir(&run).unwrap();
        let journal = Journal::create(&run, "t", None).unwrap();
        let process = journal.intent(Effect::Process { node: "a".into() }).unwrap();
        journal.done(process, Some(ProcessId::own())).unwrap();
        let claim = claim_of(1 << 50);
        let left = untouched(&ledger, &[claim]).memory;
        assert!(left < 1 << 50 && left > (1 << 50) - memory_info().unwrap().mem_total, "{left}");
    }

    #[test]
    fn what_the_user_has_decided_is_not_measured() {
        let root = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        let asked = Asked { memory: Some(1 << 50), cpus: None, disk: Some(1 << 50) };
        let budget = HostBudget::measure(&ledger, asked, root.path().to_owned()).unwrap();
        assert_eq!((budget.whole().memory, budget.whole().disk), (1 << 50, 1 << 50));
        assert_eq!(budget.facts().memory_of, MemoryLimit::Setting);
        let free = budget.free_now(&ledger, &[claim_of(1 << 49)]).unwrap();
        assert_eq!((free.memory, free.disk), (u64::MAX, u64::MAX));
    }
}
