//! Forking while a process has one thread.

use std::{fs, io};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{ForkResult, Pid, fork, getppid},
};

/// Starts a copy of this process that lives as long as `life`, whose result is its exit code, and no longer than the
/// calling thread. It may do whatever this process may: nobody else can have held a lock.
///
/// What `life` owns is dropped here, so that a pipe has only the ends that it should have.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] in a process that has more than one thread; else what the kernel says.
pub(crate) fn fork_alone(life: impl FnOnce() -> u8) -> io::Result<Pid> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let parent = Pid::this();
    // SAFETY: this process has one thread, which is here, so no lock is held by one that the child does not have.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let dies = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
            // The parent may have died before the signal was asked for; then nobody would ever send it.
            let code = if dies && getppid() == parent { life() } else { 1 };
            // SAFETY: ends the child without running anything of the parent's, whose buffers would be written twice.
            unsafe { nix::libc::_exit(code.into()) }
        }
    }
}
