//! What undoes what: one table, for every way in which a run can end.

use std::path::Path;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::{
    error::Error,
    host::{DEATH_WITHIN, Effect, Entry, Journal, LockedDir, Process, ProcessId, remove_folder},
    net::{Links, egress::restore_forwarding, mark, remove_table, within},
    plan::SCRATCH,
};

/// Undoes everything that the journal names, processes first, the rest the latest first. Idempotent; dropped, it can be
/// begun again.
///
/// The result names what could not be undone; those records stay in the journal.
pub(super) async fn undo_all(journal: &Journal, dir: &Path, links: Option<&Links>) -> Vec<String> {
    let entries = journal.outstanding();
    let (processes, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.effect.is_process());
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
        (Effect::Process { .. } | Effect::Helper { .. }, Some(id)) => end(id).await,
        // Not yet known when its owner died, and so killed by its parent-death signal.
        (Effect::Process { .. } | Effect::Helper { .. }, None) => Ok(()),
        (Effect::NodeDir { name }, _) => remove_node_dir(name, dir),
        (Effect::Scratch { path }, _) => remove_scratch(path, dir),
        (Effect::Link { name }, _) => match links {
            Some(links) => links.remove(name).await.map_err(|e| e.to_string()),
            // The owner is gone, and with it and its VMMs the namespace that held the link.
            None => Ok(()),
        },
        (Effect::HostLink { name, namespace }, _) if Effect::is_host_link(dir, name) => {
            let run = id_of(dir);
            in_network(*namespace, journal, async || Links::open()?.remove_marked(name, &run).await)
        }
        (Effect::HostTable { name, namespace }, _) if Effect::is_host_table(dir, name) => {
            let mark = mark(&id_of(dir));
            in_network(*namespace, journal, async || remove_table(name, &mark))
        }
        (Effect::HostForwarding { namespace }, _) => {
            let run = id_of(dir);
            in_network(*namespace, journal, async || restore_forwarding(&run))
        }
        (Effect::HostLink { name, .. } | Effect::HostTable { name, .. }, _) => {
            Err(format!("`{name}`: not of this run"))
        }
    };
    result.map(|()| journal.released(entry.id)).err()
}

/// The id of the run with this directory.
fn id_of(run: &Path) -> String {
    run.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Does this in a network namespace of others, if that is still there. It is not after a reboot, when another may have
/// its number.
fn in_network(
    namespace: u64,
    journal: &Journal,
    work: impl AsyncFnOnce() -> Result<(), Error> + Send,
) -> Result<(), String> {
    if journal.begin().is_some_and(|begin| begin.owner.boot != ProcessId::own().boot) {
        return Ok(());
    }
    within(namespace, work).map(|_| ()).map_err(|e| e.to_string())
}

fn remove_node_dir(name: &str, run: &Path) -> Result<(), String> {
    let path = Effect::node_dir(run, name).ok_or_else(|| format!("`{name}`: no folder of this run"))?;
    remove_folder(&path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Removes the folder of a scratch disk, and that of the run above it with the last. Whose it is, is in its path.
fn remove_scratch(path: &Path, run: &Path) -> Result<(), String> {
    let of_run = Effect::scratch_of_run(path, run, SCRATCH)
        .ok_or_else(|| format!("{}: no scratch disk of this run", path.display()))?;
    remove_folder(path).map_err(|e| format!("{}: {e}", path.display()))?;
    LockedDir::remove_if_empty(of_run).map_err(|e| format!("{}: {e}", of_run.display()))
}

/// Kills the process, if it still is the one of this pid, start time and boot, and waits until it is gone.
///
/// # Errors
/// That it could not be killed, or has not ended in time.
pub(super) async fn end(id: &ProcessId) -> Result<(), String> {
    let what = || format!("process {}", id.pid);
    let Some(process) = Process::find(id).map_err(|e| format!("{}: {e}", what()))? else { return Ok(()) };
    process.kill().map_err(|e| format!("{}: cannot be killed: {e}", what()))?;
    match timeout(DEATH_WITHIN, process.ended()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("{}: {e}", what())),
        Err(_) => Err(format!("{}: still there {} s after SIGKILL", what(), DEATH_WITHIN.as_secs())),
    }
}

#[cfg(test)]
mod tests;
