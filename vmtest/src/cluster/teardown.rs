//! Removing what a run made: one function for every way in which a run can end, and for runs whose owner was killed.

use std::{io, path::Path, time::Instant};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::run::Run;
use crate::{
    error::Error,
    evidence::Event,
    host::{DEATH_WITHIN, Effect, Entry, Journal, Ledger, Process, ProcessId, RunDir, if_there},
    net::Links,
    plan::SCRATCH,
};

/// Undoes everything that the run's journal names, latest first, and removes its directory. Idempotent.
///
/// The result names what could not be removed; those records stay in the journal, for the next reconcile.
pub(crate) async fn teardown(run: &Run) -> Vec<String> {
    let began = Instant::now();
    // From here on nothing new is made.
    run.tasks.end().await;
    run.keeper.close().await;
    run.members().iter().for_each(|member| member.ssh.close());
    let mut left = undo_all(&run.journal, run.dir.path(), run.links.get()).await;
    left.extend(end_strays(run).await);
    left.extend(leaked_links(run).await);
    if left.is_empty()
        && let Err(e) = run.dir.remove()
    {
        left.push(e.to_string());
    }
    run.claim.release();
    run.emit(&Event::TornDown { took: began.elapsed(), left: left.clone() });
    left
}

/// Removes all runs whose owner is gone, and the claims and tickets of such. The result names what could not be
/// removed.
///
/// # Errors
/// When the run directories cannot be read.
pub(crate) async fn reconcile(root: &Path) -> Result<Vec<String>, Error> {
    Ledger::sweep(root)?;
    let mut left = Vec::new();
    for run in RunDir::abandoned(root)? {
        let unfinished = match Journal::open(run.path()) {
            Ok(Some(journal)) => undo_all(&journal, run.path(), None).await,
            Ok(None) => Vec::new(),
            Err(e) => vec![e.to_string()],
        };
        if unfinished.is_empty() {
            run.remove()?;
            tracing::info!("removed run {} whose owner was killed", run.id());
        }
        left.extend(unfinished.into_iter().map(|what| format!("run {}: {what}", run.id())));
    }
    Ok(left)
}

async fn undo_all(journal: &Journal, dir: &Path, links: Option<&Links>) -> Vec<String> {
    let entries = journal.outstanding();
    let (processes, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| matches!(entry.effect, Effect::Process { .. }));
    // All at once, and before anything that they use is taken away.
    let mut left: Vec<_> = join_all(processes.iter().map(|entry| undo(entry, journal, dir, links))).await;
    if let Some(links) = links
        && let Err(e) = links.remove_all().await
    {
        // Each is tried again below, and named if it stays.
        tracing::warn!("{e}");
    }
    for entry in &others {
        left.push(undo(entry, journal, dir, links).await);
    }
    left.into_iter().flatten().collect()
}

/// The one table of what undoes what. The result names what is left.
async fn undo(entry: &Entry, journal: &Journal, dir: &Path, links: Option<&Links>) -> Option<String> {
    let result = match (&entry.effect, &entry.process) {
        (Effect::Process { .. }, Some(id)) => end(id).await,
        // Not yet known when its owner died, and so killed by its parent-death signal.
        (Effect::Process { .. }, None) => Ok(()),
        (Effect::NodeDir { name }, _) => remove_folder(&dir.join(name)),
        (Effect::Scratch { path }, _) => remove_scratch(path, dir),
        (Effect::Link { name }, _) => match links {
            Some(links) => links.remove(name).await.map_err(|e| e.to_string()),
            // The owner is gone, and with it and its VMMs the namespace that held the link.
            None => Ok(()),
        },
    };
    result.and_then(|()| journal.released(entry.id).map_err(|e| e.to_string())).err()
}

/// Removes the folder of a scratch disk, and that of the run above it with the last. Whose it is, is in its path.
fn remove_scratch(path: &Path, run: &Path) -> Result<(), String> {
    let of_run = path.parent().filter(|parent| parent.file_name() == run.file_name());
    let Some(of_run) = of_run.filter(|parent| parent.parent().is_some_and(|above| above.ends_with(SCRATCH))) else {
        return Err(format!("{}: no scratch disk of this run", path.display()));
    };
    remove_folder(path)?;
    match if_there(std::fs::remove_dir(of_run)) {
        Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => Err(format!("{}: {e}", of_run.display())),
        _ => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<(), String> {
    if_there(std::fs::remove_dir_all(path)).map_err(|e| format!("{}: {e}", path.display()))
}

async fn end(id: &ProcessId) -> Result<(), String> {
    let what = || format!("process {}", id.pid);
    let Some(process) = Process::find(id).map_err(|e| format!("{}: {e}", what()))? else { return Ok(()) };
    process.kill().map_err(|e| format!("{}: cannot be killed: {e}", what()))?;
    match timeout(DEATH_WITHIN, process.ended()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("{}: {e}", what())),
        Err(_) => Err(format!("{}: still there {} s after SIGKILL", what(), DEATH_WITHIN.as_secs())),
    }
}

/// Ends children of the keeper that no record names: provisioning was dropped between a fork and its record.
async fn end_strays(run: &Run) -> Vec<String> {
    let strays = run.keeper.children().into_iter().filter_map(|pid| ProcessId::of(pid).ok());
    let ended = join_all(strays.map(|id| async move { end(&id).await.err() })).await;
    let mut left: Vec<_> = ended.into_iter().flatten().collect();
    left.extend(run.keeper.children().into_iter().map(|pid| format!("process {pid}, a child of the keeper")));
    left
}

async fn leaked_links(run: &Run) -> Vec<String> {
    let Some(links) = run.links.get() else { return Vec::new() };
    let members = run.members();
    let ours = |name: &str| name == run.plan.network.bridge || members.iter().any(|member| member.plan.tap == name);
    match links.names().await {
        Ok(names) => {
            names.into_iter().filter(|(_, name)| ours(name)).map(|(_, name)| format!("link `{name}`")).collect()
        }
        Err(e) => vec![e.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;
    use tracing_test::traced_test;

    use super::*;

    /// A run as a killed owner leaves it: a journal, a folder, and a process that should have died.
    fn abandoned_run(root: &Path, process: &ProcessId) -> TempDir {
        let dir = RunDir::create(root, RunDir::new_id().unwrap()).unwrap();
        let journal = Journal::create(dir.path(), "killed").unwrap();
        let link = journal.intent(Effect::Link { name: "br0".into() }).unwrap();
        journal.done(link, None).unwrap();
        journal.intent(Effect::NodeDir { name: "node".into() }).unwrap();
        std::fs::create_dir(dir.path().join("node")).unwrap();
        let id = journal.intent(Effect::Process { node: "node".into() }).unwrap();
        journal.done(id, Some(process.clone())).unwrap();
        journal.intent(Effect::Process { node: "other".into() }).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let scratch = cache.path().join(SCRATCH).join(dir.id()).join("0");
        journal.intent(Effect::Scratch { path: scratch.clone() }).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        std::fs::write(scratch.join("disk.ext4"), "").unwrap();
        cache
    }

    #[test]
    fn only_what_is_named_after_the_run_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("1234");
        for other in ["scratch/5678/node", "1234/node", "scratch/1234/node/deeper"] {
            let path = root.path().join(other);
            std::fs::create_dir_all(&path).unwrap();
            assert!(remove_scratch(&path, &run).unwrap_err().contains("no scratch disk of this run"), "{other}");
            assert!(path.exists());
        }
        remove_scratch(&root.path().join("scratch/1234/node"), &run).unwrap();
        assert!(!root.path().join("scratch/1234").exists());
        remove_scratch(&root.path().join("scratch/1234/node"), &run).unwrap();
    }

    #[tokio::test]
    #[traced_test]
    async fn what_a_killed_owner_left_is_removed_and_said() {
        let root = tempfile::tempdir().unwrap();
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(sleeper.id().cast_signed()).unwrap();
        let cache = abandoned_run(root.path(), &id);
        assert_eq!(reconcile(root.path()).await.unwrap(), Vec::<String>::new());
        assert!(sleeper.wait().is_err(), "reconcile has ended the child and waited for it");
        assert!(RunDir::abandoned(root.path()).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(cache.path().join(SCRATCH)).unwrap().count(), 0);
        assert!(logs_contain("whose owner was killed"));
        assert_eq!(reconcile(root.path()).await.unwrap(), Vec::<String>::new(), "a second time changes nothing");
    }

    #[tokio::test]
    async fn a_reused_pid_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(sleeper.id().cast_signed()).unwrap();
        abandoned_run(root.path(), &ProcessId { start: id.start - 1, ..id });
        assert_eq!(reconcile(root.path()).await.unwrap(), Vec::<String>::new());
        assert!(sleeper.try_wait().unwrap().is_none(), "it is somebody else's process");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
