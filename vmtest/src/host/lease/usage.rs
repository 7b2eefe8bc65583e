//! What the machines of a run use of what was claimed for them.

use std::path::Path;

use vmtest_fixtures::allocated;

use crate::{
    host::{Effect, Journal, ProcessId},
    spec::Resources,
};

/// What the processes and scratch disks that a live run's journal names take up now; nothing where there is none yet,
/// or one that cannot be read. CPUs are not measured.
pub(super) fn used(run: &Path) -> Resources {
    let Ok(Some(journal)) = Journal::open(run, None) else { return Resources::NONE };
    let taken = journal.outstanding().into_iter().map(|entry| match (entry.effect, entry.process) {
        (Effect::Process { .. }, Some(process)) => {
            Resources { memory: memory(&process).unwrap_or_default(), ..Resources::NONE }
        }
        (Effect::Scratch { path }, _) => Resources { disk: allocated(&path), ..Resources::NONE },
        _ => Resources::NONE,
    });
    taken.sum()
}

/// What the process has touched of its own memory, in bytes: what the kernel cannot drop. `None` when it is gone.
fn memory(id: &ProcessId) -> Option<u64> {
    let status = procfs::process::Process::new(id.pid).ok()?.status().ok()?;
    let kib = status.rssanon.unwrap_or_default() + status.rssshmem.unwrap_or_default();
    // Compared after it was read: the pid may be another's by now.
    (ProcessId::of(id.pid).ok()? == *id).then_some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt,
    };

    use super::*;

    #[test]
    fn what_is_touched_is_used_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(used(root.path()), Resources::NONE, "there is no journal");
        let journal = Journal::create(root.path(), "t", None).unwrap();
        let scratch = root.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let disk = File::create(scratch.join("disk.ext4")).unwrap();
        disk.set_len(1 << 30).unwrap();
        disk.write_all_at(&[1; 64 << 10], 1 << 20).unwrap();
        disk.sync_all().unwrap();
        journal.intent(Effect::Scratch { path: scratch }).unwrap();
        let process = journal.intent(Effect::Process { node: "a".into() }).unwrap();
        journal.intent(Effect::Process { node: "not yet started".into() }).unwrap();
        journal.done(process, Some(ProcessId::own())).unwrap();
        let gone = journal.intent(Effect::Process { node: "reused pid".into() }).unwrap();
        journal.done(gone, Some(ProcessId { start: 1, ..ProcessId::own() })).unwrap();

        let before = used(root.path());
        assert!((64 << 10..1 << 20).contains(&before.disk), "{before}");
        assert!(before.memory > 0, "this process uses memory");
        // Larger than what a concurrent test may free meanwhile.
        let touched = vec![1_u8; 256 << 20];
        let after = used(root.path());
        assert!(after.memory > before.memory + (128 << 20), "{before} and then {after} with {}", touched.len());
    }
}
