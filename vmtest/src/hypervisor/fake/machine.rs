//! What can be done to a fake machine from outside.

use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, join_all};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::injected;
use crate::{
    error::{Error, Kind},
    host::{Ended, Process, ProcessId},
    hypervisor::{Machine, Site},
    net::Links,
    plan::NetworkPlan,
    spec::{Call, Fault},
};

/// The signal by which a first process that the kernel ended for a reboot has died (`reboot(2)`).
const REBOOTED_BY: Signal = Signal::HUP;

/// A fake machine that runs.
#[derive(Debug)]
pub(super) struct FakeMachine {
    /// Its first process, or the one that stands for it.
    pub(super) first: ProcessId,
    pub(super) faults: Vec<Fault>,
    pub(super) links: Links,
    pub(super) body: Body,
}

/// The addresses of a scripted machine, which its bridges have.
#[derive(Debug, Clone)]
pub(super) struct Addresses(Vec<(NetworkPlan, Ipv4Addr)>);

impl Addresses {
    pub(super) fn of(site: &Site<'_>) -> Self {
        Self(site.places().map(|(network, interface)| (network.clone(), interface.ip)).collect())
    }

    pub(super) fn ips(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.iter().map(|&(_, ip)| ip)
    }

    pub(super) async fn add(&self, links: &Links) -> Result<(), Error> {
        for (network, ip) in &self.0 {
            links.add_address(network, *ip).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, links: &Links) -> Result<(), Error> {
        for (network, ip) in &self.0 {
            links.remove_address(network, *ip).await?;
        }
        Ok(())
    }
}

/// What a machine consists of.
#[derive(Debug)]
pub(super) enum Body {
    /// Namespaces, with pairs of network interfaces.
    Namespaces {
        /// The host's ends of the pairs.
        ports: Vec<String>,
        /// What a pause has stopped.
        stopped: Mutex<Vec<ProcessId>>,
    },
    /// A script, under addresses of the bridges.
    Script(Addresses),
}

impl Body {
    pub(super) fn namespaces(site: &Site<'_>) -> Self {
        let ports = site.node.interfaces.iter().map(|interface| interface.tap.clone()).collect();
        Self::Namespaces { ports, stopped: Mutex::default() }
    }

    pub(super) fn script(site: &Site<'_>) -> Self {
        Self::Script(Addresses::of(site))
    }
}

impl FakeMachine {
    async fn called(&self, call: Call) -> Result<(), Error> {
        injected(&self.faults, call).await
    }

    /// Its kernel is the host's, which would answer for it while it stands still.
    async fn plug(&self, plugged: bool) -> Result<(), Error> {
        match &self.body {
            Body::Namespaces { ports, .. } => {
                for port in ports {
                    self.links.set_port(port, plugged).await?;
                }
                Ok(())
            }
            Body::Script(addresses) if plugged => addresses.add(&self.links).await,
            Body::Script(addresses) => addresses.remove(&self.links).await,
        }
    }

    fn stop(&self) -> io::Result<()> {
        match &self.body {
            Body::Namespaces { stopped, .. } => self.stop_all(&mut lock(stopped)),
            Body::Script(..) => send(&self.first, Signal::STOP),
        }
    }

    fn go_on(&self) -> io::Result<()> {
        match &self.body {
            Body::Namespaces { stopped, .. } => lock(stopped).drain(..).try_for_each(|id| send(&id, Signal::CONT)),
            Body::Script(..) => send(&self.first, Signal::CONT),
        }
    }

    /// Stops every process of the machine that is not stopped yet, until there is none: a process that is stopped starts
    /// no other.
    fn stop_all(&self, stopped: &mut Vec<ProcessId>) -> io::Result<()> {
        let namespace = fs::read_link(namespace_of(self.first.pid))?;
        if fs::read_link("/proc/self/ns/pid")? == namespace {
            return Err(io::Error::other("the machine has no namespace of its own"));
        }
        loop {
            let mut found = false;
            let all = processes()?;
            for (&pid, &(state, _)) in &all {
                // In the machine's namespace, or in one that was made inside, and then below the first process.
                let inside = fs::read_link(namespace_of(pid)).is_ok_and(|ns| ns == namespace);
                if matches!(state, 'T' | 'Z') || !(inside || descends(&all, pid, self.first.pid)) {
                    continue;
                }
                // It may have ended meanwhile.
                let Ok(id) = ProcessId::of(pid) else { continue };
                if !stopped.contains(&id) {
                    send(&id, Signal::STOP)?;
                    stopped.push(id);
                    found = true;
                }
            }
            if !found {
                return Ok(());
            }
        }
    }
}

impl Machine for FakeMachine {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async {
            self.called(Call::Status).await?;
            Ok(state(self.first.pid).is_some_and(|(state, _)| state != 'T'))
        })
    }

    fn described(&self) -> BoxFuture<'_, Result<Value, Error>> {
        Box::pin(async {
            self.called(Call::Status).await?;
            Ok(json!({ "first_process": state(self.first.pid).map(|(state, _)| state) }))
        })
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.called(Call::Pause).await?;
            self.plug(false).await?;
            self.stop().map_err(failed)
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.called(Call::Resume).await?;
            self.go_on().map_err(failed)?;
            self.plug(true).await
        })
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.called(Call::PowerButton).await?;
            match &self.body {
                Body::Script(..) if self.faults.contains(&Fault::IgnoresShutdown) => Ok(()),
                _ => signal(&self.first, Signal::USR2),
            }
        })
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.called(Call::Quit).await?;
            signal(&self.first, Signal::KILL)
        })
    }

    fn ended(&self, how: Ended) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            // With its last process its network goes too, but later: until then it would still answer.
            let unplugged = match &self.body {
                Body::Namespaces { ports, .. } => join_all(ports.iter().map(|port| self.links.remove(port))).await,
                Body::Script(addresses) => vec![addresses.remove(&self.links).await],
            };
            for e in unplugged.into_iter().filter_map(Result::err) {
                tracing::warn!("{e}");
            }
            how.signal == Some(REBOOTED_BY.as_raw())
        })
    }
}

/// Sends a signal to a process, if it is still there.
pub(super) fn signal(process: &ProcessId, signal: Signal) -> Result<(), Error> {
    send(process, signal).map_err(failed)
}

fn send(process: &ProcessId, signal: Signal) -> io::Result<()> {
    Process::find(process)?.map_or(Ok(()), |process| process.send(signal))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(why: io::Error) -> Error {
    Error::new(Kind::Host, "cannot reach the processes of a fake machine").caused_by(why)
}

fn namespace_of(pid: i32) -> String {
    format!("/proc/{pid}/ns/pid")
}

/// All processes of this host, each with its state and its parent.
fn processes() -> io::Result<BTreeMap<i32, (char, i32)>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Some((pid, state(pid)?))).collect())
}

/// Whether one process is below another.
fn descends(all: &BTreeMap<i32, (char, i32)>, mut pid: i32, ancestor: i32) -> bool {
    // Each was read at another moment, so that the parents may make a circle.
    for _ in 0..all.len() {
        match all.get(&pid) {
            Some(&(_, parent)) if parent == ancestor => return true,
            Some(&(_, parent)) => pid = parent,
            None => return false,
        }
    }
    false
}

/// The third and fourth field of `/proc/<pid>/stat`, state and parent; `None` for a process that has gone.
fn state(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
