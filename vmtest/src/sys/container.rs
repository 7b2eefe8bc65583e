//! Starting a program as the first process of namespaces of its own.

use std::{
    ffi::{CStr, CString},
    io::{self, Read, Write},
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::libc;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, mkdirat, mknodat, symlinkat},
    io::{Errno, FdFlags},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, mount_change,
        mount_remount, move_mount, unmount,
    },
    process::{Signal, chdir, pivot_root, set_parent_process_death_signal, setsid, umask},
    system::sethostname,
    thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// Everything of a host that a machine could otherwise reach.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWCGROUP;
/// What stands in a report in place of a step's number.
const NO_STEP: u32 = u32::MAX;

/// Something that the new process does to its own namespaces before it becomes the program, one after the other.
/// Relative paths begin where [`Step::Enter`] has led.
#[derive(Debug)]
pub(crate) enum Step {
    /// No mount from here on is seen outside, nor the other way round.
    KeepMountsPrivate,
    /// `mount(2)` of a new file system.
    Mount { kind: CString, source: CString, at: CString, flags: MountFlags, options: CString },
    /// Shows a file or directory at a second place.
    Bind { from: CString, at: CString },
    /// Attaches a mount that whoever made the container has cloned, with these flags.
    Attach { tree: OwnedFd, at: CString, flags: MountFlags },
    /// A directory; one that is there is as good.
    Directory { at: CString, mode: u32 },
    /// An empty file.
    File { at: CString },
    /// A named pipe.
    Pipe { at: CString, mode: u32 },
    /// A symbolic link.
    Link { at: CString, to: CString },
    /// The current directory from here on.
    Enter(CString),
    /// The current directory, a mount, becomes the root; what was the root cannot be reached any more.
    BecomeRoot,
    /// The host name.
    HostName(CString),
    /// This, if the kernel allows it.
    IfAllowed(Box<Step>),
}

/// A program with the namespaces in which it shall run.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) steps: Vec<Step>,
    /// The program, as a path below the new root.
    pub(crate) program: CString,
    /// Its arguments, its own name first.
    pub(crate) args: Vec<CString>,
    /// Its whole environment.
    pub(crate) env: Vec<CString>,
    /// Descriptors that it has as long as it runs.
    pub(crate) held: Vec<OwnedFd>,
    pub(crate) stdin: OwnedFd,
    /// Its standard output and standard error.
    pub(crate) output: OwnedFd,
}

/// A process that waits in its new namespaces for [`Contained::release`]. Dropped before, it ends.
#[derive(Debug)]
pub(crate) struct Contained {
    pub(crate) pid: i32,
    gate: io::PipeWriter,
    report: io::PipeReader,
    steps: Vec<Step>,
}

impl Contained {
    /// Lets the process carry out its steps and become the program; resolves when it has, within milliseconds. By now its
    /// ids must have been mapped. Dropped, it may leave the process running.
    ///
    /// # Errors
    /// Which step failed, and why.
    pub(crate) async fn release(mut self) -> io::Result<()> {
        let mut reports = pipe::Receiver::from_owned_fd(self.report.into())?;
        self.gate.write_all(&[1])?;
        let mut report = [0; 8];
        match reports.read_exact(&mut report).await {
            // Closed by exec.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => drop(read?),
        }
        let [step, errno] = [&report[..4], &report[4..]].map(|bytes| bytes.try_into().map(u32::from_ne_bytes));
        let why = io::Error::from_raw_os_error(errno.map_or(libc::EIO, u32::cast_signed));
        let step = step.ok().and_then(|step| self.steps.get(usize::try_from(step).ok()?));
        let what = step.map_or_else(|| "becoming its program".to_owned(), |step| format!("{step:?}"));
        Err(io::Error::new(why.kind(), format!("{what}: {why}")))
    }
}

/// Starts a process in new namespaces, of every kind that there is, as a child of the calling thread: a session of its
/// own that dies with that thread. The result holds it back.
///
/// # Errors
/// `EPERM`, `ENOSPC` or `EINVAL` where namespaces are forbidden.
pub(crate) fn spawn_contained(container: Container) -> io::Result<(OwnedFd, Contained)> {
    let (gate, open_gate) = io::pipe()?;
    let (report, write_report) = io::pipe()?;
    let tree = |step: &Step| if let Step::Attach { tree, .. } = step { Some(tree.as_raw_fd()) } else { None };
    let mut kept: Vec<RawFd> = container.steps.iter().filter_map(tree).collect();
    kept.extend(container.held.iter().chain([&container.stdin, &container.output]).map(AsRawFd::as_raw_fd));
    kept.extend([gate.as_raw_fd(), write_report.as_raw_fd()]);
    kept.sort_unstable();
    let prepared = Prepared {
        args: pointers(&container.args),
        env: pointers(&container.env),
        closed: gaps(&kept),
        gate: &gate,
        container: &container,
    };

    let life = || {
        let failed = prepared.run();
        let report = [failed.0.to_ne_bytes(), failed.1.raw_os_error().to_ne_bytes()];
        // Nobody else could be told if this failed.
        _ = rustix::io::write(&write_report, report.as_flattened());
    };
    // SAFETY: until it executes a program the child makes system calls only; what they need was made before.
    let (pidfd, pid) = unsafe { fork(NAMESPACES, life)? };
    let steps = container.steps;
    Ok((pidfd, Contained { pid, gate: open_gate, report, steps }))
}

/// Starts a process that does nothing until a signal ends it, as a child of the calling thread: a session of its own that
/// dies with that thread.
///
/// # Errors
/// What the kernel says.
pub(crate) fn spawn_idle() -> io::Result<(OwnedFd, i32)> {
    let (gate, open_gate) = io::pipe()?;
    let (mut report, write_report) = io::pipe()?;
    let mut kept = [gate.as_raw_fd(), write_report.as_raw_fd()];
    kept.sort_unstable();
    let closed = gaps(&kept);
    let life = || {
        // Every signal ends it, whatever the parent does with it.
        default_signals();
        let ready = || rustix::io::write(&write_report, &[1]).is_ok();
        if die_with_parent(&closed, &gate).is_ok() && setsid().is_ok() && ready() {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
    };
    // SAFETY: the child makes system calls only.
    let started = unsafe { fork(0, life)? };
    drop(write_report);
    report.read_exact(&mut [0])?;
    drop(open_gate);
    Ok(started)
}

/// A child with a copy of the memory and one thread, in these new namespaces, which ends when `life` returns.
///
/// # Safety
/// `life` must not allocate and not take a lock: another thread may have held it.
unsafe fn fork(namespaces: libc::c_int, life: impl FnOnce()) -> io::Result<(OwnedFd, i32)> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain old data, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD).cast_unsigned().into();
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM nothing that the child does is seen here; the caller promises the rest.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        life();
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(1) }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pidfd, i32::try_from(pid).map_err(io::Error::other)?))
}

/// In the child: closes all descriptors but those that were kept, and asks to be killed with the parent, which must hold
/// the other end of the gate open until this is done.
fn die_with_parent(closed: &[(u32, u32)], gate: &io::PipeReader) -> Result<(), Errno> {
    // First of all, so that the gate has no other writer than the parent.
    for &(first, last) in closed {
        // SAFETY: nothing in this process uses these descriptors any more.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    check_parent(gate)
}

/// In the child: every signal does again what it does by default, but for two that belong to the C library.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: changes this process alone, which has one thread.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// In the child: leaves the session keyring of the parent, whose keys a new user namespace hides and does not take away.
/// Before the change of ids, so that it counts as one of the parent's, who may have more.
fn leave_keyring() -> Result<(), Errno> {
    let no_name: *const libc::c_char = ptr::null();
    // SAFETY: changes the credentials of this process alone; without a name nothing is read.
    if unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) } >= 0 {
        return Ok(());
    }
    match Errno::from_io_error(&io::Error::last_os_error()) {
        // A kernel without keys, and a host that lets nobody have any.
        Some(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => Ok(()),
        why => Err(why.unwrap_or(Errno::IO)),
    }
}

/// The parent may have died before the signal was asked for; then nobody would send it.
fn check_parent(gate: &io::PipeReader) -> Result<(), Errno> {
    let mut gate = [PollFd::new(gate, PollFlags::empty())];
    poll(&mut gate, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if gate[0].revents().contains(PollFlags::HUP) { Err(Errno::PIPE) } else { Ok(()) }
}

/// What the child needs, made while allocating was allowed.
struct Prepared<'a> {
    container: &'a Container,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// Ranges of descriptors that the child must not have.
    closed: Vec<(u32, u32)>,
    gate: &'a io::PipeReader,
}

impl Prepared<'_> {
    /// The child's whole life; returns only what failed, with the number of the step.
    fn run(&self) -> (u32, Errno) {
        let prepared = self.become_guest();
        if let Err(e) = prepared {
            return (NO_STEP, e);
        }
        for (number, step) in (0..).zip(&self.container.steps) {
            if let Err(e) = step.take() {
                return (number, e);
            }
        }
        umask(Mode::WGRP | Mode::WOTH);
        // What this process ignores, the program would ignore too, and a shell could not even trap it.
        default_signals();
        // SAFETY: both arrays end with a null pointer and point to strings that live as long as `self`; the signal calls
        // change this process alone, which has one thread.
        unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            libc::execve(self.container.program.as_ptr(), self.args.as_ptr(), self.env.as_ptr());
        }
        (NO_STEP, Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }

    fn become_guest(&self) -> Result<(), Errno> {
        die_with_parent(&self.closed, self.gate)?;
        setsid()?;
        if rustix::io::retry_on_intr(|| rustix::io::read(self.gate, &mut [0; 1]))? == 0 {
            return Err(Errno::PIPE);
        }
        for held in &self.container.held {
            rustix::io::fcntl_setfd(held, FdFlags::empty())?;
        }
        rustix::stdio::dup2_stdin(&self.container.stdin)?;
        rustix::stdio::dup2_stdout(&self.container.output)?;
        rustix::stdio::dup2_stderr(&self.container.output)?;
        leave_keyring()?;
        set_thread_groups(&[])?;
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        // A change of ids clears it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        check_parent(self.gate)?;
        umask(Mode::empty());
        Ok(())
    }
}

impl Step {
    fn take(&self) -> Result<(), Errno> {
        match self {
            Self::KeepMountsPrivate => mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
            Self::Mount { kind, source, at, flags, options } => {
                mount(source.as_c_str(), at.as_c_str(), kind.as_c_str(), *flags, options.as_c_str())
            }
            Self::Bind { from, at } => mount_bind(from.as_c_str(), at.as_c_str()),
            Self::Attach { tree, at, flags } => {
                move_mount(tree, c"", CWD, at.as_c_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
                mount_remount(at.as_c_str(), MountFlags::BIND | *flags, c"")
            }
            Self::Directory { at, mode } => match mkdirat(CWD, at.as_c_str(), Mode::from_raw_mode(*mode)) {
                Err(Errno::EXIST) => Ok(()),
                made => made,
            },
            Self::File { at } => make_node(at, FileType::RegularFile, 0o600),
            Self::Pipe { at, mode } => make_node(at, FileType::Fifo, *mode),
            Self::Link { at, to } => symlinkat(to.as_c_str(), CWD, at.as_c_str()),
            Self::Enter(path) => chdir(path.as_c_str()),
            Self::BecomeRoot => {
                pivot_root(c".", c".")?;
                unmount(c".", UnmountFlags::DETACH)?;
                chdir(c"/")
            }
            Self::HostName(name) => sethostname(name.as_bytes()),
            Self::IfAllowed(step) => match step.take() {
                Err(Errno::PERM | Errno::ACCESS) => Ok(()),
                taken => taken,
            },
        }
    }
}

fn make_node(at: &CStr, kind: FileType, mode: u32) -> Result<(), Errno> {
    mknodat(CWD, at, kind, Mode::from_raw_mode(mode), 0)
}

/// As `execve` wants it: ended by a null pointer.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The ranges between these descriptors, from 3 on, for `close_range(2)`.
fn gaps(kept: &[RawFd]) -> Vec<(u32, u32)> {
    let mut gaps = Vec::with_capacity(kept.len() + 1);
    let mut next = 3;
    for fd in kept.iter().map(|fd| fd.cast_unsigned()).filter(|fd| *fd >= 3) {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = fd + 1;
    }
    gaps.push((next, u32::MAX));
    gaps
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn what_is_not_kept_is_closed() {
        assert_eq!(gaps(&[0, 3, 4, 7]), [(5, 6), (8, u32::MAX)]);
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
    }

    /// The serial number of the calling thread's session keyring.
    fn keyring() -> i64 {
        // SAFETY: takes two numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, libc::KEY_SPEC_SESSION_KEYRING, 0) }
    }

    #[test]
    fn a_child_leaves_the_keys_of_its_parent() {
        // One that is this thread's alone.
        leave_keyring().unwrap();
        let own = keyring();
        let (mut reader, writer) = io::pipe().unwrap();
        let life = || {
            let left = leave_keyring().is_ok();
            // Nobody else could be told if this failed.
            _ = rustix::io::write(&writer, [i64::from(left), keyring()].map(i64::to_ne_bytes).as_flattened());
        };
        // SAFETY: the child makes system calls only.
        let (pidfd, _) = unsafe { fork(0, life) }.unwrap();
        let mut told = [0; 16];
        reader.read_exact(&mut told).unwrap();
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        let [left, keyring] = [&told[..8], &told[8..]].map(|bytes| i64::from_ne_bytes(bytes.try_into().unwrap()));
        assert_eq!(left, 1);
        assert!(own < 0 || keyring != own, "the child has the keyring {keyring}");
    }
}
