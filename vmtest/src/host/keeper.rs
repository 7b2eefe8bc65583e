//! The thread whose children the VMMs are.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
};
use tokio::sync::oneshot;

use super::ProcessId;
use crate::{
    error::{Error, Kind},
    sys::guard_child,
};

/// The descriptor under which a dup of the test's stdout stays open in each VMM, so that a test runner that watches
/// its pipe calls a leak a leak. Above those that launch plans use.
const CANARY_FD: i32 = 19;

/// A VMM to start.
#[derive(Debug)]
pub(crate) struct SpawnRequest {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// Working directory: the node's folder.
    pub(crate) dir: PathBuf,
    /// Receives stdout, where the log does not.
    pub(crate) stdout: Option<File>,
    /// Receives stderr, and stdout.
    pub(crate) log: File,
    /// Descriptors to inherit, each with its number in the child.
    pub(crate) fds: Vec<(OwnedFd, i32)>,
    /// Whether all its threads share one CPU of the host.
    pub(crate) one_cpu: bool,
}

enum Order {
    /// Start a child and tell whoever waits; or, with the argument `false`, tell that none is started any more.
    Spawn(Box<dyn FnOnce(bool) + Send>),
    /// Spawn nothing any more.
    Close(oneshot::Sender<()>),
}

/// One long-lived thread of a cluster that spawns its VMMs and lives until all are gone.
///
/// The parent-death signal of a child belongs to the thread that forked it, so this must never be a pool's thread.
/// Dropping the keeper ends the thread, and the kernel kills what it still had.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
    tid: i32,
}

impl Keeper {
    /// Starts the thread, in the network namespace of the calling one.
    ///
    /// # Errors
    /// [`Kind::Host`] when the thread cannot be made.
    pub(crate) fn start() -> Result<Self, Error> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let (tell_tid, tid) = mpsc::sync_channel(1);
        let work = move || {
            if tell_tid.send(nix::unistd::gettid().as_raw()).is_err() {
                return;
            }
            let mut open = true;
            for order in inbox {
                match order {
                    Order::Spawn(start) => start(open),
                    Order::Close(reply) => {
                        open = false;
                        // Whoever asked may have gone.
                        _ = reply.send(());
                    }
                }
            }
        };
        let failed = |e: io::Error| Error::new(Kind::Host, "cannot start the keeper thread").caused_by(e);
        thread::Builder::new().name("vmtest-keeper".into()).spawn(work).map_err(failed)?;
        let tid = tid.recv().map_err(|_| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { orders, tid })
    }

    /// Calls this on the keeper's thread, to start a child of it.
    ///
    /// Not cancel-safe: a dropped future may leave a child, which [`Keeper::children`] names.
    ///
    /// # Errors
    /// What `fork` or `exec` said.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = move |open| {
            let started = if open { start() } else { Err(io::Error::other("the cluster is being torn down")) };
            // Whoever asked may have been cancelled; the journal's intent is then undone by teardown, which kills all
            // children of this thread that it does not know.
            drop(reply.send(started));
        };
        self.orders.send(Order::Spawn(Box::new(work))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        answer.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
    }

    /// From the moment that this resolves, no child is spawned any more.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Close(reply)).is_ok() {
            // A keeper that has died spawns nothing either.
            drop(answer.await);
        }
    }

    /// The pids of the children that the keeper has now, zombies included.
    pub(crate) fn children(&self) -> Vec<i32> {
        // Without CONFIG_PROC_CHILDREN the file is absent; the journal remains as the only witness.
        let list = std::fs::read_to_string(format!("/proc/self/task/{}/children", self.tid)).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

/// Starts a program as a child of the calling thread, which is the keeper's.
///
/// # Errors
/// What `fork` or `exec` said.
pub(crate) fn spawn_program(request: SpawnRequest) -> io::Result<(OwnedFd, ProcessId)> {
    let mut command = Command::new(&request.program);
    command.args(&request.args).current_dir(&request.dir).stdin(Stdio::null());
    command.stdout(request.stdout.map_or_else(|| request.log.try_clone(), Ok)?).stderr(request.log);
    let mut mappings: Vec<_> =
        request.fds.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    if let Ok(canary) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 0) {
        mappings.push(FdMapping { parent_fd: canary, child_fd: CANARY_FD });
    }
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    guard_child(&mut command);
    let child = if request.one_cpu { on_one_cpu(|| command.spawn())? } else { command.spawn()? };
    // Nobody reaps the child before its pidfd is open, so the pid is still its own.
    let pid = child.id().cast_signed();
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
    Ok((pidfd, ProcessId::of(pid)?))
}

/// Has the calling thread on the CPU where it is meanwhile, and with it the child that it starts, for good.
fn on_one_cpu<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let allowed = sched_getaffinity(None)?;
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here)?;
    let started = start();
    sched_setaffinity(None, &allowed)?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_on_one_cpu_leaves_the_others_to_its_parent() {
        let before = sched_getaffinity(None).unwrap();
        let output = on_one_cpu(|| Command::new("grep").args(["Cpus_allowed_list", "/proc/self/status"]).output());
        let allowed = String::from_utf8(output.unwrap().stdout).unwrap();
        let cpu = allowed.trim_start_matches("Cpus_allowed_list:").trim();
        assert!(cpu.parse::<usize>().is_ok_and(|cpu| before.is_set(cpu)), "{allowed}");
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
