//! What a machine can be, and what may be done to it then.

use std::fmt;

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Its VMM runs, and it does not answer yet.
    Booting,
    /// It has climbed the readiness ladder.
    Running,
    /// Its virtual CPUs are stopped.
    Paused,
    /// Its VMM has ended.
    Off,
    /// It is not part of the cluster any more.
    Removed,
}

/// What is known of a machine's life, now: see [`Node::liveness`](crate::Node::liveness).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Liveness {
    /// Its VMM answers.
    Alive,
    /// Its VMM has ended.
    Dead,
    /// Its VMM is there and does not answer: it may be booting, have too much to do, or hang.
    Unknown,
}

#[cfg(test)]
impl State {
    const ALL: [Self; 5] = [Self::Booting, Self::Running, Self::Paused, Self::Off, Self::Removed];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Removed => "removed",
        })
    }
}

/// Something that is done to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Kill,
    Shutdown,
    Start,
    Reboot,
    Pause,
    Resume,
    Remove,
    Snapshot,
    Restore,
    Resize,
    Attach,
    Detach,
}

#[cfg(test)]
impl Action {
    const ALL: [Self; 12] = [
        Self::Kill,
        Self::Shutdown,
        Self::Start,
        Self::Reboot,
        Self::Pause,
        Self::Resume,
        Self::Remove,
        Self::Snapshot,
        Self::Restore,
        Self::Resize,
        Self::Attach,
        Self::Detach,
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Shutdown => "shutdown",
            Self::Start => "start",
            Self::Reboot => "reboot",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Remove => "remove",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Resize => "resize",
            Self::Attach => "attach a disk to",
            Self::Detach => "detach a disk from",
        })
    }
}

/// What a machine in this state is once this has been done to it, or why it cannot be done.
pub(crate) fn after(state: State, action: Action) -> Result<State, &'static str> {
    use Action::{Attach, Detach, Kill, Pause, Reboot, Remove, Resize, Restore, Resume, Shutdown, Snapshot, Start};
    use State::{Booting, Off, Paused, Removed, Running};
    match (state, action) {
        (Booting | Running | Paused, Kill) | (Running, Shutdown) => Ok(Off),
        (Off, Start) | (Running, Reboot | Resize | Attach | Detach | Snapshot) | (Off | Paused | Running, Restore) => {
            Ok(Running)
        }
        (Running, Pause) | (Paused, Snapshot) => Ok(Paused),
        (Paused, Resume) => Ok(Running),
        (Off, Remove) => Ok(Removed),
        (Off, Kill | Shutdown | Reboot | Pause | Resume | Resize | Attach | Detach | Snapshot) => {
            Err("it is off: `start` it first")
        }
        (Running | Paused | Booting, Start) => Err("it runs already"),
        (Running | Booting, Resume) => Err("it is not paused"),
        (Paused, Pause) => Err("it is paused already"),
        (Paused, Shutdown | Reboot | Resize | Attach | Detach) => {
            Err("a paused guest does nothing: `resume` it first, or `kill` it")
        }
        (Booting, Shutdown | Reboot | Pause | Resize | Attach | Detach | Snapshot | Restore) => {
            Err("it is booting: wait until it runs, or `kill` it")
        }
        (Booting | Running | Paused, Remove) => Err("its VMM runs: `shutdown` or `kill` it first"),
        (Removed, _) => Err("it was removed from the cluster"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn every_action_in_every_state_is_decided() {
        let line = |state| {
            let cell =
                |action| format!("{action}: {}", after(state, action).map_or_else(str::to_owned, |s| s.to_string()));
            format!("{state}\n  {}\n", Action::ALL.map(cell).join("\n  "))
        };
        expect![[r#"
            booting
              kill: off
              shutdown: it is booting: wait until it runs, or `kill` it
              start: it runs already
              reboot: it is booting: wait until it runs, or `kill` it
              pause: it is booting: wait until it runs, or `kill` it
              resume: it is not paused
              remove: its VMM runs: `shutdown` or `kill` it first
              snapshot: it is booting: wait until it runs, or `kill` it
              restore: it is booting: wait until it runs, or `kill` it
              resize: it is booting: wait until it runs, or `kill` it
              attach a disk to: it is booting: wait until it runs, or `kill` it
              detach a disk from: it is booting: wait until it runs, or `kill` it
            running
              kill: off
              shutdown: off
              start: it runs already
              reboot: running
              pause: paused
              resume: it is not paused
              remove: its VMM runs: `shutdown` or `kill` it first
              snapshot: running
              restore: running
              resize: running
              attach a disk to: running
              detach a disk from: running
            paused
              kill: off
              shutdown: a paused guest does nothing: `resume` it first, or `kill` it
              start: it runs already
              reboot: a paused guest does nothing: `resume` it first, or `kill` it
              pause: it is paused already
              resume: running
              remove: its VMM runs: `shutdown` or `kill` it first
              snapshot: paused
              restore: running
              resize: a paused guest does nothing: `resume` it first, or `kill` it
              attach a disk to: a paused guest does nothing: `resume` it first, or `kill` it
              detach a disk from: a paused guest does nothing: `resume` it first, or `kill` it
            off
              kill: it is off: `start` it first
              shutdown: it is off: `start` it first
              start: running
              reboot: it is off: `start` it first
              pause: it is off: `start` it first
              resume: it is off: `start` it first
              remove: removed
              snapshot: it is off: `start` it first
              restore: running
              resize: it is off: `start` it first
              attach a disk to: it is off: `start` it first
              detach a disk from: it is off: `start` it first
            removed
              kill: it was removed from the cluster
              shutdown: it was removed from the cluster
              start: it was removed from the cluster
              reboot: it was removed from the cluster
              pause: it was removed from the cluster
              resume: it was removed from the cluster
              remove: it was removed from the cluster
              snapshot: it was removed from the cluster
              restore: it was removed from the cluster
              resize: it was removed from the cluster
              attach a disk to: it was removed from the cluster
              detach a disk from: it was removed from the cluster
        "#]]
        .assert_eq(&State::ALL.map(line).concat());
    }
}
