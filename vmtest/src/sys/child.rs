//! What happens in a child between fork and exec.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Pid, getppid, setsid},
};

/// Makes the command a session of its own that dies with the thread that spawns it.
///
/// A session of its own keeps Ctrl-C away from it until the evidence is taken. The parent-death signal belongs to the
/// spawning *thread*: call this only for commands that a long-lived thread spawns.
pub(crate) fn guard_child(command: &mut Command) {
    let parent = Pid::this();
    let prepare = move || {
        setsid()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the signal was asked for; then nobody would ever send it.
        if getppid() != parent { Err(io::Error::from(io::ErrorKind::BrokenPipe)) } else { Ok(()) }
    };
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed. It makes three
    // system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}
