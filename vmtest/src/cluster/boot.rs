//! Starting one machine, following it to its end, and starting it again.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    ladder::climb,
    member::{Member, PANIC_LINES_WITHIN},
    power::{Action, State},
    run::Run,
};
use crate::{
    error::{Error, Kind},
    guest,
    host::{self, Anomaly, DEATH_WITHIN, Effect, Place, Process, relink, storage_error},
    hypervisor::{self, LaunchPlan, Saved},
    plan::SCRATCH,
};

/// In bytes. A Debian that boots says 60 KB, and its VMM next to nothing.
const ROOM: u64 = 256 << 10;

/// Starts the machine's VMM, where it was saved if it shall go on there, and waits until it answers.
///
/// # Errors
/// What could not be made, or how the machine ended before it answered.
pub(super) async fn boot(run: &Arc<Run>, member: &Arc<Member>, from: Option<&Saved>) -> Result<(), Error> {
    let plan = launch(run, member, from).await.map_err(|e| e.on_node(&member.plan.name))?;
    climb(run, member, &plan).await?;
    run.spawn(heed_panic(member.clone()));
    member.set_state(State::Running);
    Ok(())
}

/// Waits until the guest of this boot tells its VMM that its kernel panics, which ends the machine also where its console shows
/// nothing of it.
async fn heed_panic(member: Arc<Member>) {
    let Some(machine) = member.machine() else { return };
    tokio::select! {
        () = machine.panicked() => {
            // The words for it come by another way.
            drop(tokio::time::timeout(PANIC_LINES_WITHIN, member.console.anomaly()).await);
            member.console.find(Anomaly::SilentPanic);
        }
        _ = member.lost(member.boot()) => {}
    }
}

/// [`boot`], within the limit for boots. A machine that does not come up is off afterwards, and its VMM gone.
///
/// # Errors
/// Those of [`boot`], or the rung that was not reached.
pub(super) async fn boot_in_time(run: &Arc<Run>, member: &Arc<Member>, from: Option<&Saved>) -> Result<(), Error> {
    let limit = run.plan.boot_timeout;
    let booted = host::timeout(limit, boot(run, member, from)).await.unwrap_or_else(|_| {
        let what = member.not_ready().unwrap_or_default();
        let message = format!("not ready within {:.1} s: {what}", limit.as_secs_f64());
        Err(Error::new(Kind::Timeout, message).on_node(&member.plan.name).after(limit))
    });
    if let Err(e) = &booted {
        member.fail(e);
        if let Some(process) = member.process() {
            process.kill().map_err(|e| Error::new(Kind::Host, "cannot kill the VMM").caused_by(e))?;
            // Else a start that follows would share its files and its port. A teardown names one that stays.
            _ = tokio::time::timeout(DEATH_WITHIN, process.gone()).await;
        }
    }
    booted
}

async fn launch(run: &Arc<Run>, member: &Arc<Member>, from: Option<&Saved>) -> Result<LaunchPlan, Error> {
    let plan = run.hypervisor.render(&member.plan, from);
    member.begin_life();
    if !member.dir.exists() {
        let folder = run.journal.intent(Effect::NodeDir { name: member.plan.name.clone() })?;
        let rendered = serde_json::to_string_pretty(&plan).expect("a launch plan is plain data");
        let made = fs::create_dir(&member.dir).and_then(|()| fs::write(member.dir.join("launch.json"), rendered));
        made.map_err(|e| cannot_write(&member.dir, e))?;
        run.journal.done(folder, None)?;
        if let Some(attempt) = run.recorder.attempt() {
            attempt.write_json(&format!("nodes/{}/launch.json", member.plan.name), &plan);
        }
    }
    make_scratch(run, member)?;
    // At each start, because other machines may have come and gone. A few milliseconds, so it may block the engine; on
    // another thread it could not be stopped by a teardown.
    let config = guest::config(&member.plan, &run.plan, &run.nodes(), &run.keys);
    // A guest that goes on has read it.
    if from.is_none() {
        run.hypervisor
            .prepare(&member.plan, &member.base_initramfs, &member.dir, &config)
            .map_err(|e| cannot_write(&member.dir, e))?;
    }
    has_room(&member.dir).map_err(|e| cannot_write(&member.dir, e))?;

    let intent = run.journal.intent(Effect::Process { node: member.plan.name.clone() })?;
    let (pidfd, id) = run.hypervisor.launch(&plan, &run.site(member)?, &config).await?;
    run.journal.done(intent, Some(id.clone()))?;
    let process = Process::of_child(pidfd).map_err(|e| Error::new(Kind::Host, "cannot watch the VMM").caused_by(e))?;
    let process = Arc::new(process);
    member.set_process(process.clone(), id);
    run.spawn(attend(run.clone(), member.clone(), process, intent, member.boot()));
    Ok(plan)
}

/// Whether there is room for what comes into the folder of a machine while it runs: without, it boots, and its console is empty.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] without, in the words of the kernel.
fn has_room(dir: &Path) -> io::Result<()> {
    let stat = rustix::fs::statvfs(dir)?;
    // Some file systems do not count.
    let full = stat.f_blocks > 0 && stat.f_bavail.saturating_mul(stat.f_frsize) < ROOM;
    if full { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
}

/// Makes the folder of the machine's scratch disk and of what is saved of it, if it has such, at its first boot.
fn make_scratch(run: &Run, member: &Member) -> Result<(), Error> {
    // Not by its name, which a machine that has left may have had before.
    let path = run.scratch.path().join(member.plan.index.to_string());
    let needed = member.plan.scratch.is_some() || member.plan.snapshots || member.plan.hotplug;
    if !needed || path.exists() {
        return Ok(());
    }
    let scratch = run.journal.intent(Effect::Scratch { path: path.clone() })?;
    run.scratch.ensure()?;
    let make = || {
        // What a guest puts there belongs to the caller, also what is setuid.
        DirBuilder::new().mode(0o700).create(&path)?;
        relink(&path, &member.dir.join(SCRATCH))
    };
    make().map_err(|e| storage_error(format!("cannot write to {}", path.display()), Place::Scratch, e))?;
    run.journal.done(scratch, None)
}

/// Follows a VMM to its end, and decides what that means. Boxed, because the next boot is followed in the same way.
fn attend(run: Arc<Run>, member: Arc<Member>, process: Arc<Process>, intent: u32, boot: u32) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut fate = member.attend(&process, &member.dir.join(hypervisor::CONSOLE)).await;
        if fate.anomaly.is_some() {
            // It may still run; the teardown ends it.
            return member.end(fate);
        }
        let (mut reset, mut panicked) = (false, false);
        if let (Some(machine), Some(how)) = (member.machine(), fate.ended) {
            reset = machine.ended(how).await;
            // All that it has said is read by now.
            panicked = machine.panicked().now_or_never().is_some();
        }
        run.journal.released(intent);
        if member.boot() != boot {
            // The test has started it again, after a boot that was given up.
            return;
        }
        if panicked {
            fate.anomaly = Some(Anomaly::SilentPanic);
            return member.end(fate);
        }
        match member.intent() {
            // The same path for a reboot that we asked for and one that the guest did by itself.
            Some(Action::Reboot) => return boot_again(&run, &member).await,
            None if reset && member.state() != State::Booting => return boot_again(&run, &member).await,
            // It would do so for ever. What cannot be booted here does so at its first instructions.
            None if reset && member.console.tail(1).is_empty() => {
                fate.how = format!("reset itself before {} said anything,", member.plan.started_by());
            }
            None if reset => fate.how = "reset itself before it was ready,".to_owned(),
            None if member.machine().is_some_and(|machine| machine.switched_off()) => {
                fate.how = "was switched off by its guest,".to_owned();
            }
            Some(Action::Kill) => fate.how = "was killed by the test".to_owned(),
            Some(Action::Shutdown) => fate.how = format!("was shut down by the test, by {},", member.means()),
            _ => {}
        }
        member.end(fate);
    })
}

async fn boot_again(run: &Arc<Run>, member: &Arc<Member>) {
    if let Err(e) = boot_in_time(run, member, None).await {
        // Whoever talks to the machine is told; it is off.
        tracing::warn!("{} has not come up again: {e}", member.plan.name);
    }
}

fn cannot_write(dir: &Path, why: io::Error) -> Error {
    storage_error(format!("cannot write to {}", dir.display()), Place::Run, why)
}
