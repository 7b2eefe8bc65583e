//! Starting a fake machine.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{
    Owner,
    root::{Sources, open, steps},
};
use crate::{
    error::{Error, Kind},
    host::ProcessId,
    hypervisor::{LaunchPlan, RootPlan, Site, start::make_files},
    sys::{Contained, Container, spawn_contained},
};

/// Starts the first process of a machine in namespaces of its own and plugs it into the cluster's bridge.
///
/// # Errors
/// [`Kind::Host`] when a file or a namespace cannot be made.
pub(super) async fn launch(plan: &LaunchPlan, site: &Site<'_>, owner: Owner) -> Result<(OwnedFd, ProcessId), Error> {
    let failed = |e: io::Error| Error::new(Kind::Host, "cannot start a fake machine").caused_by(e);
    let container = container(plan, site.dir, site.locks()?).map_err(failed)?;
    let start = move || {
        let (pidfd, contained) = spawn_contained(container)?;
        let id = ProcessId::of(contained.pid)?;
        Ok((pidfd, contained, id))
    };
    let (pidfd, contained, id) = site.keeper.spawn(start).await.map_err(failed)?;
    owner.map(contained.pid).map_err(failed)?;
    for (number, (network, interface)) in site.places().enumerate() {
        // The end that a machine before this one left, where its own end was not seen.
        site.links.remove(&interface.tap).await?;
        site.links.add_veth(network, interface, contained.pid, &format!("eth{number}")).await?;
    }
    contained.release().await.map_err(failed)?;
    Ok((pidfd, id))
}

/// Whether this host allows the namespaces of which a machine is made: tried, because nothing else tells.
///
/// # Errors
/// What the kernel says.
pub(super) fn try_namespaces(owner: Owner) -> io::Result<()> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let nothing = Container {
        steps: vec![],
        program: CString::default(),
        args: vec![],
        env: vec![],
        held: vec![],
        stdin: null()?,
        output: null()?,
    };
    let (pidfd, contained) = spawn_contained(nothing)?;
    let mapped = owner.map(contained.pid);
    // It ends when it is dropped.
    drop::<Contained>(contained);
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    mapped
}

fn container(plan: &LaunchPlan, dir: &Path, locks: Vec<OwnedFd>) -> io::Result<Container> {
    let missing = || io::Error::other("the plan has no root");
    let RootPlan { hostname, layers, disks, boot_id } = plan.root.as_ref().ok_or_else(missing)?;
    let sources = Sources {
        layers: layers.iter().map(|layer| open(&dir.join(layer))).collect::<io::Result<_>>()?,
        disks: disks
            .iter()
            .map(|disk| Ok((open(&dir.join(&disk.path))?, disk.at.clone(), disk.read_only)))
            .collect::<io::Result<_>>()?,
        boot_id: open(&dir.join(boot_id))?,
    };
    // The name of the node's folder is the node's, that of the folder above the run's id.
    let run = dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let steps = steps(sources, hostname, &format!("vmtest-{run}-{hostname}"))?;
    let (console, _) = make_files(plan, dir)?;
    let args = [&plan.program].into_iter().chain(&plan.args);
    Ok(Container {
        steps,
        program: CString::new(plan.program.as_str())?,
        args: args.map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?,
        env: ["HOME=/root", "TERM=linux"].map(|variable| CString::new(variable).expect("no NUL is in it")).into(),
        held: locks,
        stdin: File::open("/dev/null")?.into(),
        output: console.into(),
    })
}
