//! Removing what runs left whose owner was killed.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::undo::undo_all;
use crate::{
    error::Error,
    host::{CrashPoint, Journal, Ledger, LockedDir, Place},
};

/// Where runs have files.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The run directories.
    pub(crate) runs: PathBuf,
    /// The scratch disks.
    pub(crate) scratch: PathBuf,
    /// Where our own tests have the process killed.
    pub(crate) crash: Option<CrashPoint>,
}

/// Whether abandoned runs are removed or only named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Remove,
    Look,
}

/// What there was of runs whose owner is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Abandoned {
    /// Each of them, in the order of places and ids.
    pub runs: Vec<AbandonedRun>,
    /// What is there under the name of a run and cannot be looked at; each with the reason.
    pub unclear: Vec<String>,
}

/// What there was of one run in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AbandonedRun {
    /// The run's id, the name of its directory.
    pub id: String,
    /// Which of its directories.
    pub place: Place,
    /// The directory.
    pub path: PathBuf,
    /// The test's path; `None` where the owner died before it wrote it down, and for scratch disks.
    pub test: Option<String>,
    /// When it began, in milliseconds since the epoch.
    pub at: Option<u64>,
    /// What its journal names that was not undone, for people, latest first.
    pub outstanding: Vec<String>,
    /// What could not be removed, and why; empty when nothing is left of it.
    pub left: Vec<String>,
}

impl Abandoned {
    /// Everything that stays on this host, for people; empty when all was removed.
    pub fn left(&self) -> Vec<String> {
        let of_run = |run: &AbandonedRun| {
            let id = run.id.clone();
            run.left.iter().map(move |what| format!("run {id}: {what}")).collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).chain(self.unclear.iter().cloned()).collect()
    }
}

/// Removes all runs whose owner is gone and their shares of the host, or names what would be. Live ones are never
/// touched. Idempotent; dropped, it can be begun again.
///
/// # Errors
/// When a place cannot be read, or has no locks.
pub(crate) async fn reconcile(places: &Places, mode: Mode) -> Result<Abandoned, Error> {
    let mut all = Abandoned::default();
    if mode == Mode::Remove {
        Ledger::sweep(&places.runs)?;
    }
    let found = LockedDir::abandoned(&places.runs, Place::Run)?;
    all.unclear.extend(found.unclear);
    // Held until the scratch disks have been looked at: those of a run that stays belong to its journal.
    let runs = found.abandoned;
    for run in &runs {
        all.runs.push(replay(run, places, mode).await);
    }
    // By now the scratch disks that a journal names are gone. Others are of runs whose directories were lost, with a
    // reboot for example, because they were in memory.
    let found = LockedDir::abandoned(&places.scratch, Place::Scratch)?;
    all.unclear.extend(found.unclear);
    for disks in found.abandoned.iter().filter(|disks| !is_dir(&places.runs.join(disks.id()))) {
        let removed = if mode == Mode::Remove { disks.remove() } else { Ok(()) };
        all.runs.push(AbandonedRun {
            id: disks.id().to_owned(),
            place: Place::Scratch,
            path: disks.path().to_owned(),
            test: None,
            at: None,
            outstanding: Vec::new(),
            left: removed.err().iter().map(ToString::to_string).collect(),
        });
    }
    all.runs.sort_by(|a, b| (a.place, &a.id).cmp(&(b.place, &b.id)));
    Ok(all)
}

async fn replay(run: &LockedDir, places: &Places, mode: Mode) -> AbandonedRun {
    let mut abandoned = AbandonedRun {
        id: run.id().to_owned(),
        place: Place::Run,
        path: run.path().to_owned(),
        test: None,
        at: None,
        outstanding: Vec::new(),
        left: Vec::new(),
    };
    let journal = match Journal::open(run.path(), places.crash.clone()) {
        Ok(journal) => journal,
        Err(e) => {
            abandoned.left.push(e.to_string());
            return abandoned;
        }
    };
    if let Some(journal) = &journal {
        let begin = journal.begin();
        abandoned.at = begin.as_ref().map(|begin| begin.at);
        abandoned.test = begin.map(|begin| begin.test);
        abandoned.outstanding = journal.outstanding().iter().map(ToString::to_string).collect();
    }
    if mode == Mode::Look {
        return abandoned;
    }
    if let Some(journal) = &journal {
        abandoned.left = undo_all(journal, run.path(), None).await;
    }
    if abandoned.left.is_empty() {
        match run.remove() {
            Ok(()) => tracing::info!("removed run {} whose owner was killed", run.id()),
            Err(e) => abandoned.left.push(e.to_string()),
        }
    }
    abandoned
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::MetadataExt,
        process::{Child, Command},
    };

    use tempfile::TempDir;
    use tracing_test::traced_test;

    use super::*;
    use crate::{
        host::{Effect, LOCK, ProcessId},
        plan::SCRATCH,
    };

    /// Places of our own.
    fn places() -> (TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places { runs: root.path().join("runs"), scratch: root.path().join(SCRATCH), crash: None };
        std::fs::create_dir(&places.runs).unwrap();
        (root, places)
    }

    async fn remove(places: &Places) -> Abandoned {
        reconcile(places, Mode::Remove).await.unwrap()
    }

    fn sleeper() -> (Child, ProcessId) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap();
        (child, id)
    }

    /// A run as a killed owner leaves it: a journal, a folder, a disk, and a process that should have died.
    fn leave_a_run(places: &Places, process: &ProcessId) -> PathBuf {
        let dir = LockedDir::create(&places.runs, &LockedDir::new_id().unwrap(), Place::Run).unwrap();
        let journal = Journal::create(dir.path(), "killed", None).unwrap();
        let link = journal.intent(Effect::Link { name: "br0".into() }).unwrap();
        journal.done(link, None).unwrap();
        journal.intent(Effect::NodeDir { name: "node".into() }).unwrap();
        std::fs::create_dir(dir.path().join("node")).unwrap();
        let id = journal.intent(Effect::Process { node: "node".into() }).unwrap();
        journal.done(id, Some(process.clone())).unwrap();
        journal.intent(Effect::Process { node: "other".into() }).unwrap();
        let disks = LockedDir::create(&places.scratch, dir.id(), Place::Scratch).unwrap();
        let scratch = disks.path().join("0");
        journal.intent(Effect::Scratch { path: scratch.clone() }).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        std::fs::write(scratch.join("disk.ext4"), "").unwrap();
        released(disks);
        released(dir)
    }

    /// Gives up the lock, and waits until nobody has it: a child that another test of this process forks has it too, until
    /// it has become another program. Seen without opening it, which would make one more descriptor to inherit.
    fn released(dir: LockedDir) -> PathBuf {
        let path = dir.path().to_owned();
        drop(dir);
        wait_until_free(&path);
        path
    }

    fn wait_until_free(run: &Path) {
        let inode = run.join(LOCK).metadata().unwrap().ino();
        while std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{inode} ")) {
            std::thread::yield_now();
        }
    }

    /// All paths below, with the times of their last change.
    fn tree(root: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
        let entries = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
        let mut all: Vec<_> = entries
            .flat_map(|path| {
                let changed = path.symlink_metadata().unwrap().modified().unwrap();
                let below = if path.is_dir() { tree(&path) } else { Vec::new() };
                [(path, changed)].into_iter().chain(below)
            })
            .collect();
        all.sort();
        all
    }

    #[tokio::test]
    #[traced_test]
    async fn what_a_killed_owner_left_is_removed_and_said() {
        let (_root, places) = places();
        let (mut sleeper, id) = sleeper();
        leave_a_run(&places, &id);
        let removed = remove(&places).await;
        assert_eq!(removed.left(), Vec::<String>::new());
        assert_eq!(removed.runs[0].test.as_deref(), Some("killed"));
        assert!(sleeper.wait().is_err(), "reconcile has ended the child and waited for it");
        for place in [&places.runs, &places.scratch] {
            let left: Vec<_> = tree(place).into_iter().map(|(path, _)| path).collect();
            assert_eq!(left, [place.join("registry.lock")]);
        }
        assert!(logs_contain("whose owner was killed"));
        assert_eq!(remove(&places).await, Abandoned::default(), "a second time changes nothing");
    }

    #[tokio::test]
    async fn looking_names_everything_and_changes_nothing() {
        let (root, places) = places();
        let (mut sleeper, id) = sleeper();
        let run = leave_a_run(&places, &id);
        let lost = released(LockedDir::create(&places.scratch, "0000000a", Place::Scratch).unwrap());
        let before = tree(root.path());
        let found = reconcile(&places, Mode::Look).await.unwrap();
        assert_eq!(tree(root.path()), before);
        assert!(sleeper.try_wait().unwrap().is_none());
        assert_eq!(found.runs.iter().map(|run| &run.path).collect::<Vec<_>>(), [&run, &lost]);
        let id = run.file_name().unwrap().to_string_lossy();
        let disk = format!("scratch disk {}/{id}/0", places.scratch.display());
        let process = format!("VMM of `node`, process {}", sleeper.id());
        assert_eq!(found.runs[0].outstanding, [&disk, "VMM of `other`", &process, "folder `node`", "link `br0`"]);
        remove(&places).await;
        drop(sleeper.wait());
    }

    #[tokio::test]
    async fn a_reused_pid_is_left_alone() {
        let (_root, places) = places();
        let (mut sleeper, id) = sleeper();
        leave_a_run(&places, &ProcessId { start: id.start - 1, ..id.clone() });
        leave_a_run(&places, &ProcessId { boot: "another".into(), ..id });
        assert_eq!(remove(&places).await.left(), Vec::<String>::new());
        assert!(sleeper.try_wait().unwrap().is_none(), "it is somebody else's process");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    #[tokio::test]
    async fn disks_without_a_run_are_removed_and_live_ones_stay() {
        let (_root, places) = places();
        let [lost, live] =
            ["0000000a", "0000000b"].map(|id| LockedDir::create(&places.scratch, id, Place::Scratch).unwrap());
        std::fs::create_dir(lost.path().join("0")).unwrap();
        let path = released(lost);
        assert_eq!(remove(&places).await.left(), Vec::<String>::new());
        assert!(!path.exists() && live.path().exists());
    }

    #[tokio::test]
    async fn a_run_that_cannot_be_understood_keeps_its_disks_and_hides_no_other() {
        let (_root, places) = places();
        let (mut sleeper, id) = sleeper();
        let unclear = leave_a_run(&places, &ProcessId { boot: "another".into(), ..id.clone() });
        let journal = unclear.join(crate::host::JOURNAL);
        let text = std::fs::read_to_string(&journal).unwrap();
        std::fs::write(&journal, text.replacen("\"version\":3", "\"version\":4", 1)).unwrap();
        let other = leave_a_run(&places, &id);
        let left = remove(&places).await.left();
        assert!(left.len() == 1 && left[0].contains("is of version 4; this vmtest reads 3"), "{left:?}");
        assert!(places.scratch.join(unclear.file_name().unwrap()).join("0/disk.ext4").exists());
        assert!(!other.exists());
        drop(sleeper.wait());

        std::fs::write(&journal, text).unwrap();
        wait_until_free(&unclear);
        assert_eq!(remove(&places).await.left(), Vec::<String>::new());
        assert!(!unclear.exists());
    }
}
