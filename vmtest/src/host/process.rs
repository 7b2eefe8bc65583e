//! Processes, named so that a reused pid is never mistaken for them.

use std::{
    env, fmt, fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::sys::watch_readable;

/// A killed VMM is gone in under 20 ms; one that is not after this is stuck in the kernel.
pub(crate) const DEATH_WITHIN: Duration = Duration::from_secs(10);

/// Where programs for root are, which are not on the PATH of every user.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The path of a program: on PATH, or where those for root are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether a process with this `/proc/<pid>/status` may use all of these capabilities, by their numbers.
pub(crate) fn has_capabilities(status: &str, wanted: &[u32]) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    wanted.iter().all(|capability| effective & (1 << capability) != 0)
}

/// One process of one boot of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub(crate) start: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot: String,
}

impl ProcessId {
    /// The calling process.
    pub(crate) fn own() -> Self {
        Self::of(std::process::id().cast_signed()).expect("a process finds itself in /proc")
    }

    /// The process that has this pid now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field, the name in parentheses, may itself hold spaces and parentheses.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let start = after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok());
        let start = start.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { pid, start, boot })
    }
}

/// A process held by a descriptor, so that no signal can reach another one.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Holds a child that has just been spawned and not been waited for. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the process cannot be held.
    pub(crate) fn of_child(pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pidfd: watch_readable(pidfd)? })
    }

    /// Holds the process if it still is the one that was recorded; `None` where it is gone.
    ///
    /// # Errors
    /// When the kernel refuses to open a process that exists.
    pub(crate) fn find(id: &ProcessId) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(id.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Compared after it is held: from here on the pid cannot change its owner.
        match ProcessId::of(id.pid) {
            Ok(now) if now == *id => Self::of_child(pidfd).map(Some),
            _ => Ok(None),
        }
    }

    /// Sends SIGKILL. A process that is gone already is no error.
    ///
    /// # Errors
    /// When the process is not ours to kill.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    /// Sends SIGTERM. A process that is gone already is no error.
    ///
    /// # Errors
    /// When the process is not ours to end.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        self.send(Signal::TERM)
    }

    /// Sends a signal. A process that is gone already is no error.
    ///
    /// # Errors
    /// When the process is not ours.
    pub(crate) fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until it has ended, and leaves it to others to reap it. Cancel-safe.
    ///
    /// # Errors
    /// When the process cannot be watched.
    pub(crate) async fn gone(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    /// Waits until it has ended, and reaps it if it is a child of this process. Cancel-safe; may be called again.
    pub(crate) async fn ended(&self) -> io::Result<Ended> {
        let _ready = self.pidfd.readable().await?;
        match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => Ok(Ended { code: status.exit_status(), signal: status.terminating_signal() }),
            // Somebody else's child, or reaped by an earlier call.
            Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(Ended { code: None, signal: None }),
            Err(e) => Err(e.into()),
        }
    }
}

/// How a process ended; both are `None` where it was not our child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("an unknown status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reused_pid_is_not_found() {
        let own = ProcessId::own();
        assert!(Process::find(&own).unwrap().is_some());
        assert!(Process::find(&ProcessId { start: own.start + 1, ..own.clone() }).unwrap().is_none());
        assert!(Process::find(&ProcessId { boot: "another".into(), ..own }).unwrap().is_none());
    }
}
