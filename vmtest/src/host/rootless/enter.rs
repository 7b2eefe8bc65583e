//! Entering a user namespace of one's own.

use std::{
    env, fmt, fs,
    io::{self, Read, Write},
    path::Path,
    sync::OnceLock,
};

use nix::{
    libc,
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
};
use rustix::process::{getegid, geteuid};

use super::{forbidden, ranges::Mapper};
use crate::{host::has_capabilities, sys::fork_alone};

/// The setting that keeps a process where it is.
pub(crate) const ROOTLESS: &str = "VMTEST_ROOTLESS";
/// The capabilities that a cluster's network takes.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Where this process is, and why.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// It had the capabilities already, and stays where it was.
    NotNeeded,
    /// The settings forbid it.
    TurnedOff,
    /// In a user namespace of its own; without a range of ids for machines, this is why.
    Entered { no_range: Option<String> },
    /// Where it was: what forbids it, with the remedy.
    Refused(String),
}

/// The user that this process was started as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What is done in order to be root, in this order.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Step {
    Enter,
    MapIds,
    UseRights,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enter => "entering a user namespace",
            Self::MapIds => "mapping the user's ids",
            Self::UseRights => "using the rights in it",
        })
    }
}

static ENTRANCE: OnceLock<Entrance> = OnceLock::new();

/// Makes this process, while it has one thread, the root of a user namespace of its own if it needs that for networks and
/// taps. It keeps its network, its files, its groups and its user, which is shown as root from here on. Where it is not
/// allowed nothing changes. Once in a process; takes some milliseconds.
pub(crate) fn enter() -> &'static Entrance {
    ENTRANCE.get_or_init(|| {
        if may_make_networks() {
            return Entrance::NotNeeded;
        }
        if env::var_os(ROOTLESS).is_some_and(|value| value == "off") {
            return Entrance::TurnedOff;
        }
        enter_namespace().map_or_else(Entrance::Refused, |no_range| Entrance::Entered { no_range })
    })
}

/// What [`enter`] did; `None` before.
pub(crate) fn entrance() -> Option<&'static Entrance> {
    ENTRANCE.get()
}

/// Whether this process may make network namespaces and taps.
pub(crate) fn may_make_networks() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_capabilities(&status, &[CAP_SYS_ADMIN, CAP_NET_ADMIN])
}

/// The result is why there is no range of ids for machines, if there is none.
fn enter_namespace() -> Result<Option<String>, String> {
    let caller = Caller { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let why = |(step, e): (Step, io::Error)| forbidden::why(step, &e, Path::new("/proc/sys"));
    rehearse(caller).map_err(|e| match e {
        Rehearsal::Refused(step, e) => why((step, e)),
        Rehearsal::Failed(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            "a process can do so only while it has one thread: call `vmtest::enter_rootless` before all else in `main`, \
             and start no thread before `main`"
                .to_owned()
        }
        Rehearsal::Failed(e) => format!("it cannot be tried: {e}"),
    })?;
    // Outside, before this process is inside.
    let mapper = Mapper::start(caller);
    enter_user_namespace().map_err(why)?;
    let no_range = mapper.and_then(Mapper::map).err();
    map_own_ids(caller).map_err(why)?;
    Ok(no_range)
}

/// Why a rehearsal does not end well.
enum Rehearsal {
    /// What was rehearsed is not allowed.
    Refused(Step, io::Error),
    /// There was none.
    Failed(io::Error),
}

/// Does in a child what this process is about to do: one that has entered a namespace and may not use it is nobody, and
/// cannot go back.
fn rehearse(caller: Caller) -> Result<(), Rehearsal> {
    let (mut report, mut tell) = io::pipe().map_err(Rehearsal::Failed)?;
    let life = move || {
        let become_root = || {
            enter_user_namespace()?;
            map_own_ids(caller)?;
            // AppArmor lets anybody enter a namespace, and then takes the rights away. The cheapest namespace of all.
            unshare(CloneFlags::CLONE_NEWUTS).map_err(|e| (Step::UseRights, e.into()))
        };
        let Err((step, e)) = become_root() else { return 0 };
        let errno = e.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        let bytes: Vec<u8> = [step as u8].into_iter().chain(errno).collect();
        u8::from(tell.write_all(&bytes).is_err())
    };
    let child = fork_alone(life).map_err(Rehearsal::Failed)?;
    let mut said = Vec::new();
    let read = report.read_to_end(&mut said);
    // Reaped in any case, so that no test finds a child that it has not started.
    let ended = waitpid(child, None);
    read.and(ended.map_err(io::Error::from)).map_err(Rehearsal::Failed)?;
    let [step, errno @ ..] = said.as_slice() else { return Ok(()) };
    let step = [Step::Enter, Step::MapIds, Step::UseRights].into_iter().find(|known| *known as u8 == *step);
    let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
    Err(Rehearsal::Refused(step.unwrap_or(Step::Enter), io::Error::from_raw_os_error(errno)))
}

fn enter_user_namespace() -> Result<(), (Step, io::Error)> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| (Step::Enter, e.into()))
}

/// Makes the caller root of the namespace of this process, as far as nobody has: that needs no right.
fn map_own_ids(caller: Caller) -> Result<(), (Step, io::Error)> {
    let map = || {
        for (path, id) in [("/proc/self/uid_map", caller.uid), ("/proc/self/gid_map", caller.gid)] {
            if !fs::read_to_string(path)?.is_empty() {
                continue;
            }
            if path.ends_with("gid_map") {
                // Else a process could leave a group that keeps it from a file, and the kernel refuses the map.
                fs::write("/proc/self/setgroups", "deny")?;
            }
            fs::write(path, format!("0 {id} 1"))?;
        }
        Ok(())
    };
    map().map_err(|e| (Step::MapIds, e))
}
