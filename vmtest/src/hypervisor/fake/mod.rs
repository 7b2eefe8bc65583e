//! Machines without a VMM: namespaces of this host's kernel, whose root is the unpacked image.
//!
//! The first process of such a machine stands for the VMM: it has the same session, parent-death signal and pidfd, and
//! when it ends, all processes of the machine do. What the guest runs is the image's own busybox and dropbear; nothing is
//! run on the host. A machine sees no file of the host, and its root is nobody there.

mod answers;
mod launch;
mod machine;
mod owner;
mod render;
mod root;
mod scripted;

use std::{
    fs,
    future::pending,
    io,
    os::{fd::OwnedFd, unix::fs::lchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use once_cell::sync::OnceCell;
use rustix::process::Signal;
use vmtest_images::GuestConfig;

use self::{
    machine::{Body, FakeMachine},
    owner::Owner,
};
use super::{FAKE, Hypervisor, LaunchPlan, Machine, Port, Saved, Site, able};
use crate::{
    error::{Error, Kind},
    host::{ProcessId, if_there, random, relink},
    plan::{Capabilities, NodePlan, SCRATCH},
    spec::{Call, Fake, Fault, Rung},
};

/// Where the machine finds its first process.
const INIT_AT: &str = "/etc/vmtest/init";
const INIT: &str = include_str!("init.sh");

/// Memory of a machine: 2.2 MiB for its init, its SSH server and one session, and what it writes to its root.
const OVERHEAD: u64 = 4 << 20;

/// Namespaces on this host.
#[derive(Debug)]
pub(super) struct FakeHypervisor {
    /// Who is root in its machines; where there can be none but scripted ones, why.
    owner: Result<Owner, &'static str>,
}

impl FakeHypervisor {
    /// Sees whether this host allows what a machine is made of; tried once in a process.
    pub(super) fn find() -> Self {
        static TRIED: OnceCell<Result<Owner, String>> = OnceCell::new();
        let tried = TRIED.get_or_init(|| {
            let owner = Owner::of_this_process().map_err(|e| e.to_string())?;
            launch::try_namespaces(owner).map(|()| owner).map_err(|e| {
                format!("{e}: see `sysctl user.max_user_namespaces` and, in a container, the rules of that")
            })
        });
        Self { owner: tried.as_ref().copied().map_err(String::as_str) }
    }

    fn write_seed(&self, node: &NodePlan, base: &Path, dir: &Path, config: &GuestConfig) -> io::Result<()> {
        let Ok(owner) = &self.owner else { return Ok(()) };
        let (seed, root) = (dir.join(render::SEED), owner.root());
        if_there(fs::remove_dir_all(&seed))?;
        vmtest_images::write_seed(&seed, root, config)?;
        fs::write(seed.join(INIT_AT.trim_start_matches('/')), INIT)?;
        fs::write(dir.join(render::BOOT_ID), boot_id()?)?;
        let tree = vmtest_images::tree(base, root).map_err(io::Error::other)?;
        relink(&tree, &dir.join(render::TREE))?;
        for (number, disk) in node.disks.iter().enumerate() {
            let path = Path::new(&disk.path);
            let content = match &disk.volume {
                Some(_) if disk.read_only => fs::canonicalize(path)?,
                Some(_) => content(path, root)?,
                None if disk.read_only => vmtest_fixtures::unpacked(path, root).map_err(io::Error::other)?,
                None => content(&dir.join(SCRATCH).join("content"), root)?,
            };
            relink(&content, &dir.join(render::disk(number)))?;
        }
        Ok(())
    }
}

impl Hypervisor for FakeHypervisor {
    fn name(&self) -> &'static str {
        FAKE
    }

    fn describe(&self) -> String {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        format!("fake machines in namespaces of Linux {release}")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can: able(FAKE, &self.lacks()), overhead: OVERHEAD, ..Capabilities::default() }
    }

    fn port(&self) -> Port {
        Port::Veth
    }

    fn render(&self, node: &NodePlan, _: Option<&Saved>) -> LaunchPlan {
        render::render(node)
    }

    fn prepare(&self, node: &NodePlan, base: &Path, dir: &Path, config: &GuestConfig) -> io::Result<()> {
        if node.fake.as_ref().is_some_and(Fake::is_scripted) {
            return Ok(());
        }
        self.write_seed(node, base, dir, config)
    }

    fn launch<'a>(
        &'a self,
        plan: &'a LaunchPlan,
        site: &'a Site<'a>,
        config: &'a GuestConfig,
    ) -> BoxFuture<'a, Result<(OwnedFd, ProcessId), Error>> {
        Box::pin(async move {
            let fake = site.node.fake.clone().unwrap_or_default();
            injected(&fake.faults, Call::Launch).await?;
            if fake.is_scripted() {
                return scripted::launch(plan, site, config, fake).await;
            }
            let owner = self.owner.as_ref().map_err(|why| forbidden(why))?;
            launch::launch(plan, site, *owner).await
        })
    }

    fn connect<'a>(
        &'a self,
        _: &'a LaunchPlan,
        site: &'a Site<'a>,
        vmm: &'a ProcessId,
    ) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>> {
        Box::pin(async move {
            let Fake { faults, replies } = site.node.fake.clone().unwrap_or_default();
            injected(&faults, Call::Connect).await?;
            if faults.contains(&Fault::Dies(Rung::ApiAnswers)) {
                machine::signal(vmm, Signal::KILL)?;
                pending::<()>().await;
            }
            if faults.contains(&Fault::Stops(Rung::ApiAnswers)) {
                pending::<()>().await;
            }
            let body = if replies.is_empty() { Body::namespaces(site) } else { Body::script(site) };
            Ok(Arc::new(FakeMachine { first: vmm.clone(), faults, links: site.links.clone(), body })
                as Arc<dyn Machine>)
        })
    }
}

/// Does what was injected for this call, if anything.
async fn injected(faults: &[Fault], call: Call) -> Result<(), Error> {
    if faults.contains(&Fault::Hangs(call)) {
        pending::<()>().await;
    }
    if faults.contains(&Fault::Refuses(call)) {
        let message = format!("the fake VMM refuses the call `{call}`, as it was told to");
        return Err(Error::new(Kind::Host, message));
    }
    Ok(())
}

fn forbidden(why: &str) -> Error {
    let message = format!(
        "this host allows no namespaces of which a fake machine could be made ({why}): give the machine replies, with \
         which it runs nothing"
    );
    Error::new(Kind::Missing, message)
}

/// A directory that stands for a disk which the machine writes; what is in it stays from boot to boot.
fn content(path: &Path, root: u32) -> io::Result<PathBuf> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        // Also of one whose maker was killed before it was given away.
        _ => lchown(path, Some(root), Some(root))?,
    }
    fs::canonicalize(path)
}

/// A random id in the form of the kernel's.
fn boot_id() -> io::Result<String> {
    let id = u128::from_be_bytes(random()?);
    let hex = format!("{id:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-") + "\n")
}
