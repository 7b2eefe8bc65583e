//! A machine that runs nothing and answers what the test has scripted.
//!
//! A process that does nothing stands for the VMM, so that it is killed, paused and watched like any other; its SSH
//! server is a task of this process, under the machine's address on the cluster's bridge.

use std::{future::pending, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use rustix::process::Signal;
use tokio::{
    net::{TcpListener, TcpSocket},
    select, spawn,
    task::JoinSet,
    time::sleep,
};
use vmtest_images::GuestConfig;

use super::{
    answers::{Script, serve},
    machine::{Addresses, signal},
};
use crate::{
    error::{Error, Kind},
    host::{Process, ProcessId},
    hypervisor::{LaunchPlan, Site, start::make_files},
    net::Links,
    plan::SSH_PORT,
    spec::{Fake, Fault, Rung},
    sys::spawn_idle,
};

/// Connections that wait to be accepted; a cluster's test opens a few at once.
const BACKLOG: u32 = 128;

/// Starts the process that stands for the machine, and the task that answers for it.
///
/// # Errors
/// [`Kind::Host`] when a file or a process cannot be made.
pub(super) async fn launch(
    plan: &LaunchPlan,
    site: &Site<'_>,
    config: &GuestConfig,
    fake: Fake,
) -> Result<(OwnedFd, ProcessId), Error> {
    let failed = |e: io::Error| Error::new(Kind::Host, "cannot start a scripted machine").caused_by(e);
    let (console, _) = make_files(plan, site.dir).map_err(failed)?;
    let start = || {
        let (pidfd, pid) = spawn_idle()?;
        Ok((pidfd, ProcessId::of(pid)?))
    };
    let (pidfd, id) = site.keeper.spawn(start).await.map_err(failed)?;
    let watched = Process::of_child(pidfd.try_clone().map_err(failed)?).map_err(failed)?;
    let boot = Boot {
        id: id.clone(),
        addresses: Addresses::of(site),
        links: site.links.clone(),
        script: Arc::new(Script::new(config, fake.clone(), id.clone(), console)),
        faults: fake.faults,
    };
    let (links, addresses) = (site.links.clone(), Addresses::of(site));
    spawn(async move {
        select! {
            booted = boot.run() => if let Err(e) = booted {
                tracing::warn!("a scripted machine cannot go on: {e}");
            },
            // Whoever follows the machine reaps the process; here its end is all that counts.
            _ = watched.gone() => {}
        }
        // Nobody else does it for a machine that nobody has connected to.
        if let Err(e) = addresses.remove(&links).await {
            tracing::warn!("{e}");
        }
    });
    Ok((pidfd, id))
}

/// One life of a scripted machine.
struct Boot {
    id: ProcessId,
    addresses: Addresses,
    links: Links,
    script: Arc<Script>,
    faults: Vec<Fault>,
}

impl Boot {
    /// Climbs the ladder as far as it shall, then serves until it is dropped.
    async fn run(self) -> Result<(), Error> {
        self.rung(Rung::VmmAlive).await?;
        self.rung(Rung::KernelSpeaks).await?;
        self.script.print("vmtest: a scripted machine");
        for fault in &self.faults {
            if let Fault::BootsSlowly(time) = fault {
                sleep(*time).await;
            }
        }
        self.rung(Rung::NetworkAnswers).await?;
        self.addresses.add(&self.links).await?;
        self.script.print("vmtest: network up");
        self.rung(Rung::SshBanner).await?;
        let mut servers = JoinSet::new();
        for address in self.addresses.ips().map(|ip| SocketAddr::from((ip, SSH_PORT))) {
            let failed = |e| Error::new(Kind::Host, format!("cannot listen on {address}")).caused_by(e);
            servers.spawn(serve_all(self.script.clone(), listen(address).map_err(failed)?));
        }
        self.script.print("vmtest: ready");
        let crash = self.faults.iter().find_map(|fault| match fault {
            Fault::Crashes(after) => Some(*after),
            _ => None,
        });
        let Some(crash) = crash else { return pending().await };
        sleep(crash).await;
        signal(&self.id, Signal::KILL)
    }

    /// Does what was injected for this rung, if anything.
    async fn rung(&self, rung: Rung) -> Result<(), Error> {
        if self.faults.contains(&Fault::Dies(rung)) {
            signal(&self.id, Signal::KILL)?;
        } else if self.faults.contains(&Fault::Panics(rung)) {
            self.script.panic()?;
        } else if !self.faults.contains(&Fault::Stops(rung)) {
            return Ok(());
        }
        pending().await
    }
}

/// Serves whoever connects there.
async fn serve_all(script: Arc<Script>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(script.clone(), stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The connections of the boot before may still be winding down.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
