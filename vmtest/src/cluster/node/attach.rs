//! Disks that are plugged in while a machine runs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use vmtest_fixtures::Fixture;
use vmtest_fixtures::copy_sparse;

use super::{Node, power::api};
use crate::{
    cluster::{ladder::succeeds, late::lease, member::Member, power::Action, run::Run},
    error::{Error, Kind},
    guest::mounts,
    host::{Place, if_there, storage_error},
    plan::{DiskPlan, HOTPLUG_PLACES, SCRATCH, mount_point, overlap},
    spec::{NodeSpec, Resources},
};

/// A guest finds a disk, and lets one go, in a tenth of a second under emulation. Scaled.
const GUEST_WITHIN: Duration = Duration::from_secs(10);

/// A disk that a machine does not have yet.
#[derive(Debug, Clone)]
pub struct NewDisk(Content);

#[derive(Debug, Clone)]
enum Content {
    /// An empty file system in so many bytes.
    Blank(u64),
    Fixture(Fixture),
}

impl NewDisk {
    /// An empty ext4 of this size in bytes, which the machine can write.
    pub fn blank(bytes: u64) -> Self {
        Self(Content::Blank(bytes))
    }
}

/// A directory, by its path, or a [`Fixture`], which the machine can only read.
impl<T: Into<Fixture>> From<T> for NewDisk {
    fn from(fixture: T) -> Self {
        Self(Content::Fixture(fixture.into()))
    }
}

/// A disk that was plugged into a machine. Dropped, it stays where it is.
#[derive(Debug, Clone)]
pub struct Disk {
    node: Node,
    place: usize,
    /// The boot of the machine in which it was plugged in.
    boot: u32,
    plan: DiskPlan,
    /// What it takes from the host.
    bytes: u64,
}

/// Disks that come and go. A test that plugs in some says so: `requires(hotplug)`.
///
/// ```no_run
/// use vmtest::prelude::*;
///
/// #[vm_test(requires(hotplug))]
/// async fn data_moves(old: Node) -> Result {
///     let disk = old.attach(NewDisk::blank(64 << 20), "/mnt/data").await?;
///     old.sh("echo precious >/mnt/data/file").await?;
///     disk.detach().await?;
///     old.sh("my-service check").await.expect_err("its data is gone");
///     Ok(())
/// }
/// ```
impl Node {
    /// Plugs a disk in, and mounts it at this directory of the guest, which is made. Returns when it is there. A blank one takes
    /// its size from the host's budget, as the `disk` of a machine that joins late. A machine has up to four at once; each is as
    /// slow as `disk_rate` says.
    ///
    /// It goes, with what is on it, when the machine reboots, is switched off or goes back to a snapshot.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a test that does not say `requires(hotplug)`, a machine that does not run, a directory where nothing can
    /// be mounted, or a fifth disk; [`Kind::Missing`] for a fixture that cannot be made; [`Kind::Host`] for a VMM that refuses;
    /// [`Kind::Connection`] when the guest does not find the disk.
    pub async fn attach(&self, disk: impl Into<NewDisk>, at: impl Into<String>) -> Result<Disk, Error> {
        let (NewDisk(content), at, node) = (disk.into(), at.into(), self.clone());
        self.change(Action::Attach, true, move |run, member| async move {
            let (place, at) = free_place(&member, &at)?;
            let bytes = match content {
                Content::Blank(bytes) => bytes,
                Content::Fixture(_) => 0,
            };
            let cost = Resources { disk: bytes, ..Resources::NONE };
            lease(&run, cost).await?;
            let attached = attach(&run, &member, place, content, at).await;
            let plan = attached.inspect_err(|_| run.claim.give_back(cost))?;
            Ok(Disk { node, place, boot: member.boot(), plan, bytes })
        })
        .await
    }
}

impl Disk {
    /// The directory of the guest at which it is mounted.
    pub fn at(&self) -> &str {
        &self.plan.at
    }

    /// Unmounts the disk and pulls it out; what is on it is gone. Returns when the VMM has closed it.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the guest cannot unmount it, because a process has a file of it open for example: the disk is
    /// there as before then; [`Kind::Spec`] for one that has gone before; [`Kind::Timeout`] when the guest does not let it go.
    pub async fn detach(self) -> Result<(), Error> {
        let Self { node, place, boot, plan, bytes } = self;
        node.change(Action::Detach, true, move |run, member| async move {
            if member.boot() != boot || member.attached()[place].as_ref() != Some(&plan) {
                return Err(Error::new(Kind::Spec, format!("the disk at `{}` is not there any more", plan.at)));
            }
            member
                .during_boot(async {
                    succeeds(&member, &unmount(&plan.at), "the guest cannot unmount the disk").await?;
                    pull_out(&run, &member, place).await
                })
                .await?;
            remove_file(&member, &plan)?;
            run.claim.give_back(Resources { disk: bytes, ..Resources::NONE });
            Ok(())
        })
        .await
    }
}

/// A place for a disk, and where the guest shall mount it.
fn free_place(member: &Member, at: &str) -> Result<(usize, String), Error> {
    let refused = |why: String| Err(Error::new(Kind::Spec, why));
    if !member.plan.hotplug {
        return refused("it takes no disks while it runs: say `requires(hotplug)` on the test".to_owned());
    }
    let at = match mount_point(at) {
        Ok(at) => at,
        Err(why) => return refused(format!("a disk cannot be mounted at `{at}`: {why}")),
    };
    let attached = member.attached();
    let mut there = member.plan.disks.iter().chain(attached.iter().flatten());
    if let Some(other) = there.find(|disk| overlap(&disk.at, &at)) {
        return refused(format!("a disk cannot be mounted at `{at}`: there is one at `{}`", other.at));
    }
    match attached.iter().position(Option::is_none) {
        Some(place) => Ok((place, at)),
        None => refused(format!("it has {HOTPLUG_PLACES} disks that were attached, and takes no more: `detach` one")),
    }
}

async fn attach(
    run: &Arc<Run>,
    member: &Arc<Member>,
    place: usize,
    content: Content,
    at: String,
) -> Result<DiskPlan, Error> {
    let path = format!("{SCRATCH}/hotplug{place}.ext4");
    let plan = DiskPlan { path, label: format!("vmtest-hot{place}"), at, read_only: false, below: None, volume: None };
    remove_file(member, &plan)?;
    let file = member.dir.join(&plan.path);
    let plan = match content {
        Content::Blank(bytes) => {
            let label = plan.label.clone();
            in_background(move || vmtest_fixtures::blank(&file, bytes, &label).map_err(io::Error::other)).await?;
            plan
        }
        Content::Fixture(fixture) => {
            let built = build(run, member, fixture, &plan.at).await?;
            // By a name in the one folder that the VMM is allowed to read.
            let from = PathBuf::from(built.path);
            in_background(move || link_or_copy(&from, &file)).await?;
            DiskPlan { label: built.label, read_only: true, ..plan }
        }
    };
    let same = |disk: &&DiskPlan| disk.label == plan.label;
    let other =
        member.plan.disks.iter().chain(member.attached().iter().flatten()).find(same).map(|disk| disk.at.clone());
    if let Some(other) = other {
        let message = format!("the disk at `{other}` has the label `{}` too: give the fixture another", plan.label);
        return Err(Error::new(Kind::Spec, message));
    }
    let machine = api(member)?;
    let mounted = member.during_boot(async {
        machine.add_disk(place, &plan, member.plan.disk_rate).await?;
        member.attached()[place] = Some(plan.clone());
        let within = run.plan.scaled(GUEST_WITHIN);
        let mounted = succeeds(member, &mounts::mount(&plan, within), "the guest does not find the disk").await;
        if mounted.is_err() {
            // Why it was not found is what counts.
            drop(pull_out(run, member, place).await);
        }
        mounted
    });
    mounted.await.map(|()| plan)
}

/// What unmounts the disk and waits until the guest reads nothing of it any more: a file system that was just mounted reads ahead,
/// and what of that is under way when the disk goes is an I/O error in the kernel's words. Half a minute at most.
fn unmount(at: &str) -> String {
    let at = mounts::quoted(at);
    format!(
        "disk=$(stat -c %d {at}) && umount {at} || exit
        disk=/sys/dev/block/$((disk / 256)):$((disk % 256))
        for _ in $(seq 1500); do [ \"$(tr -dc 0-9 <$disk/inflight)\" = 00 ] && exit; sleep 0.02; done"
    )
}

/// Has the VMM pull out the disk at this place, which the guest does not use.
async fn pull_out(run: &Run, member: &Member, place: usize) -> Result<(), Error> {
    let within = run.plan.scaled(GUEST_WITHIN);
    let removed = timeout(within, api(member)?.remove_disk(place, member.plan.disk_rate)).await;
    removed.unwrap_or_else(|_| {
        let message = format!("the guest has not let the disk go within {} s", within.as_secs());
        Err(Error::new(Kind::Timeout, message))
    })?;
    member.attached()[place] = None;
    Ok(())
}

/// The disk of a fixture, made as that of a machine that joins would be.
async fn build(run: &Arc<Run>, member: &Member, fixture: Fixture, at: &str) -> Result<DiskPlan, Error> {
    let (planning, like) = (run.clone(), NodeSpec::new(&member.plan.name).fixture(fixture, at));
    let (name, index) = (member.plan.name.clone(), member.plan.index);
    let planned = run.outside.spawn_blocking(move || {
        let others = planning.members().into_iter().filter(|other| other.plan.name != name);
        let others: Vec<_> = others.map(|other| other.plan.clone()).collect();
        (planning.planner)(&[like], &others, index)
    });
    let failed = |e| Err(Error::new(Kind::Host, "cannot plan").caused_by(io::Error::other(e)));
    let planned = planned.await.unwrap_or_else(failed)?;
    let disk = planned.into_iter().flat_map(|(node, _)| node.disks).find(|disk| disk.at == at);
    disk.ok_or_else(|| Error::new(Kind::Host, "the fixture became no disk"))
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    // Of another file system, or of another user's.
    fs::hard_link(from, to).or_else(|_| copy_sparse(&File::open(from)?, to))
}

fn remove_file(member: &Member, plan: &DiskPlan) -> Result<(), Error> {
    if_there(fs::remove_file(member.dir.join(&plan.path))).map_err(cannot_make)
}

async fn in_background(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Error> {
    spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(cannot_make)
}

fn cannot_make(why: io::Error) -> Error {
    storage_error("cannot make the disk", Place::Scratch, why)
}
