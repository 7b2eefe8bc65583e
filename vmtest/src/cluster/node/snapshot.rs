//! Saving a machine, and going back to where it was saved.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tokio::task::spawn_blocking;
use vmtest_fixtures::copy_sparse;

use super::{
    Node,
    power::{api, kill},
};
use crate::{
    cluster::{
        boot::boot_in_time,
        ladder::succeeds,
        member::Member,
        power::{Action, State},
    },
    error::{Error, Kind},
    host::{Place, storage_error},
    hypervisor::Saved,
    plan::SCRATCH,
};

/// A machine as it was at one moment. Clones are the same snapshot. Its files, as large as what the guest uses of its
/// memory and its scratch disk (on Firecracker, all of its memory), are removed with the last of them, and with the test.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    member: Arc<Member>,
    saved: Saved,
    files: TempDir,
}

/// Snapshots. A test that makes some says so: `requires(snapshot)`.
///
/// ```no_run
/// use vmtest::prelude::*;
///
/// #[vm_test(requires(snapshot))]
/// async fn every_file_matters(node: Node) -> Result {
///     node.sh("install-my-service").await?;
///     let installed = node.snapshot().await?;
///     for file in ["/etc/my-service.conf", "/var/lib/my-service/key"] {
///         node.sh(format!("rm {file}")).await?;
///         node.sh("my-service check").await.expect_err("a file is missing");
///         node.restore(&installed).await?;
///     }
///     Ok(())
/// }
/// ```
impl Node {
    /// Saves the machine as it is: its memory, its devices and its scratch disk. It stands still meanwhile, for as long
    /// as it takes to copy the memory that the guest uses, and goes on as it was.
    ///
    /// Cancelled, it may leave the machine paused, as [`state`](Self::state) says then.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that is off, and for a test that does not say `requires(snapshot)`; [`Kind::Host`] for
    /// a VMM that refuses, and when there is no space in the cache.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.change(Action::Snapshot, true, |_, member| async move {
            if !member.plan.snapshots {
                return Err(Error::new(Kind::Spec, "it cannot be saved: say `requires(snapshot)` on the test"));
            }
            if member.attached().iter().any(Option::is_some) {
                let remedy = "a disk that was attached is not saved: `detach` it first";
                return Err(Error::new(Kind::Spec, remedy));
            }
            let machine = api(&member)?;
            let runs = member.state() == State::Running;
            let files = tempfile::Builder::new().prefix("snapshot-").tempdir_in(member.dir.join(SCRATCH));
            let files = files.map_err(cannot_save)?;
            let saved = member.during_boot(async {
                if runs {
                    machine.pause().await?;
                    member.set_state(State::Paused);
                }
                let name = files.path().file_name().unwrap_or_default().to_string_lossy();
                let saved = machine.save(&format!("{SCRATCH}/{name}")).await;
                let copied = copy_disks(&member, files.path(), |disk, copy| (disk, copy)).await;
                if runs {
                    machine.resume().await?;
                    member.set_state(State::Running);
                }
                copied.map_err(cannot_save)?;
                saved
            });
            let saved = saved.await?;
            Ok(Snapshot(Arc::new(Taken { member, saved, files })))
        })
        .await
    }

    /// Goes back to where the machine was saved, whatever it has done since, as often as wanted. Its VMM is killed and
    /// another one takes up memory, devices and disk; name and addresses stay. Returns when it answers. Connections to it
    /// have ended; those that it had open, it takes for open still. Its clock is set.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a snapshot of another machine, else why it does not come up; it is off then.
    pub async fn restore(&self, to: &Snapshot) -> Result<(), Error> {
        let taken = to.0.clone();
        self.change(Action::Restore, true, |run, member| async move {
            if !Arc::ptr_eq(&taken.member, &member) {
                let message = format!("the snapshot is one of `{}`", taken.member.plan.name);
                return Err(Error::new(Kind::Spec, message));
            }
            if member.state() != State::Off {
                member.intend(Some(Action::Kill));
                kill(&member).await?;
            }
            let restored = copy_disks(&member, taken.files.path(), |disk, copy| (copy, disk)).await;
            restored.map_err(|e| storage_error("cannot restore the machine's disk", Place::Scratch, e))?;
            boot_in_time(&run, &member, Some(&taken.saved)).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let set = format!("date -u -s @{now} >/dev/null");
            member.during_boot(succeeds(&member, &set, "the guest's clock could not be set")).await
        })
        .await
    }
}

/// Copies the disks that the machine can write: for each its own place and that in the snapshot, of which this says from
/// which one to which. What is there is replaced.
async fn copy_disks(
    member: &Member,
    snapshot: &Path,
    direction: for<'a> fn(&'a Path, &'a Path) -> (&'a Path, &'a Path),
) -> io::Result<()> {
    for disk in member.plan.disks.iter().filter(|disk| !disk.read_only) {
        let disk = member.dir.join(&disk.path);
        let copy = snapshot.join(disk.file_name().unwrap_or_default());
        let copying = move || {
            let (from, to) = direction(&disk, &copy);
            let unfinished = to.with_extension("unfinished");
            copy_sparse(&File::open(from)?, &unfinished)?;
            fs::rename(unfinished, to)
        };
        spawn_blocking(copying).await.map_err(io::Error::other)??;
    }
    Ok(())
}

fn cannot_save(why: io::Error) -> Error {
    storage_error("cannot save the machine", Place::Scratch, why)
}
