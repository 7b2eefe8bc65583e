//! Removing what a run made, and looking for what nobody should have left: one function for every way in which a test
//! can end.

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{
    host_side::{self, HostSide},
    member::Member,
    power::State,
    run::Run,
    undo::{end, undo_all},
};
use crate::{
    evidence::{Event, say},
    host::{Effect, JOURNAL, Keeper, LOCK, ProcessId},
    plan::NetworkPlan,
    spec::Capability,
};

/// The name of the socket in the directory of a run by which others talk to its owner.
pub(crate) const CONTROL: &str = "control";

/// A guest writes some hundred MiB in this time under emulation; what takes longer is said.
const SYNCED_WITHIN: Duration = Duration::from_secs(5);

/// What is added to the name of something that no plan has.
const OF_NOBODY: &str = ", which is not of the framework: what a test makes in its cluster's network, it removes";

/// Undoes everything that the run's journal names, latest first, and removes its directory. Idempotent; dropped, it can
/// be begun again.
///
/// The result names what could not be removed, whose records stay in the journal for the next reconcile, and what was
/// there though nobody had planned it.
pub(crate) async fn teardown(run: &Run) -> Vec<String> {
    let began = Instant::now();
    sync_volumes(run).await;
    // From here on nothing new is made.
    run.tasks.end().await;
    for keeper in run.keepers() {
        keeper.close().await;
    }
    run.members().iter().for_each(|member| member.ssh.close());
    // Before the records are released that explain some of them.
    let mut leaks = end_strays(run).await;
    let mut left = undo_all(&run.journal, run.dir.path(), run.links.get()).await;
    leaks.extend(leaked_links(run).await);
    leaks.extend(host_side::leaked(run));
    leaks.extend(forgotten_files(run));
    if left.is_empty() {
        let removed = run.scratch.remove().and_then(|()| run.dir.remove());
        left.extend(removed.err().map(|e| e.to_string()));
    }
    // A machine that is left holds what it has.
    run.volumes.release();
    run.claim.release();
    run.host.iter().for_each(HostSide::release);
    left.extend(leaks);
    run.emit(&Event::TornDown { took: began.elapsed(), left: left.clone() });
    left
}

/// Has each machine that writes a volume write what it holds in memory: what a test has put there shall be there for the next
/// one, also where nobody has said `sync`. A machine that was killed has lost it.
async fn sync_volumes(run: &Run) {
    // What a fake machine writes is written.
    if !run.plan.capabilities.has(Capability::OwnKernel) {
        return;
    }
    let writes = |member: &Arc<Member>| {
        let written = member.plan.disks.iter().any(|disk| disk.volume.is_some() && !disk.read_only);
        written && member.state() == State::Running
    };
    let synced = |member: Arc<Member>| async move {
        if !member.has_run(b"sync".to_vec(), SYNCED_WITHIN).await {
            let node = &member.plan.name;
            say(format_args!(
                "vmtest: {}: node `{node}` did not `sync` its volumes at the end: what it wrote last may be missing",
                run.plan.name
            ));
        }
    };
    join_all(run.members().into_iter().filter(writes).map(synced)).await;
}

/// Ends children of the keeper that no record names. Where provisioning was dropped between a fork and its record,
/// there is one for each record of a process that was about to start; more than these are leaks.
async fn end_strays(run: &Run) -> Vec<String> {
    let outstanding = run.journal.outstanding();
    let processes = outstanding.iter().filter(|entry| entry.effect.is_process());
    let (recorded, about_to_start): (Vec<_>, Vec<_>) = processes.partition(|entry| entry.process.is_some());
    let recorded: BTreeSet<_> = recorded.iter().filter_map(|entry| Some(entry.process.as_ref()?.pid)).collect();
    let strays = run.keepers().flat_map(Keeper::children).filter(|pid| !recorded.contains(pid));
    let strays: Vec<_> = strays.filter_map(|pid| Some((ProcessId::of(pid).ok()?, name_of(pid)))).collect();
    let mut ended = Vec::new();
    let mut leaks = Vec::new();
    for (result, (id, name)) in join_all(strays.iter().map(|(id, _)| end(id))).await.into_iter().zip(&strays) {
        match result {
            Ok(()) => ended.push(format!("process {} (`{name}`), a child of the keeper that no record names", id.pid)),
            Err(e) => leaks.push(format!("{e} (`{name}`, a child of the keeper)")),
        }
    }
    leaks.extend(ended.into_iter().skip(about_to_start.len()));
    leaks
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Links in the cluster's network that were not there when it began.
async fn leaked_links(run: &Run) -> Vec<String> {
    let (Some(links), Some(before)) = (run.links.get(), run.links_before.get()) else { return Vec::new() };
    let names = match links.names().await {
        Ok(names) => names.into_iter().map(|(_, name)| name),
        Err(e) => return vec![e.to_string()],
    };
    let members = run.members();
    let ours = |name: &str| {
        let of_bridge =
            |network: &NetworkPlan| name == network.bridge || network.host.as_ref().is_some_and(|end| name == end.port);
        run.plan.networks.iter().any(of_bridge)
            || run.plan.egress.as_ref().is_some_and(|egress| egress.uplink == name)
            || members.iter().any(|member| member.plan.links().any(|link| link == name))
    };
    let leaked = names.filter(|name| !before.contains(name));
    leaked.map(|name| format!("link `{name}`{}", if ours(&name) { "" } else { OF_NOBODY })).collect()
}

/// Files in the directories of the run that are of no node, once those of the nodes are gone.
fn forgotten_files(run: &Run) -> Vec<String> {
    let outstanding = run.journal.outstanding();
    let known = |name: &str| {
        let of_node = |effect: &Effect| matches!(effect, Effect::NodeDir { name: of } if of == name);
        [LOCK, JOURNAL, CONTROL].contains(&name) || outstanding.iter().any(|entry| of_node(&entry.effect))
    };
    let found = [run.dir.path(), run.scratch.path()].into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let found = found.flatten().filter(|entry| !entry.file_name().to_str().is_some_and(known));
    let disk =
        |path: &_| outstanding.iter().any(|entry| matches!(&entry.effect, Effect::Scratch { path: of } if of == path));
    let forgotten = found.map(|entry| entry.path()).filter(|path| !disk(path));
    forgotten.map(|path| format!("{}, which no record names", path.display())).collect()
}
