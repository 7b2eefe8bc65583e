//! The ids that an administrator has given to a user, and the programs that may map them.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::Path,
    process::Command,
};

use nix::{
    sys::wait::waitpid,
    unistd::{Pid, User},
};

use super::{enter::Caller, ids::MACHINE_IDS};
use crate::sys::fork_alone;

/// As many ids as a machine can have users.
const COUNT: u32 = MACHINE_IDS.end - MACHINE_IDS.start;
/// Where `useradd` begins by default (`SUB_UID_MIN` in login.defs).
const FIRST_SUBORDINATE: u32 = 100_000;

/// The program that maps users or groups, the caller's own id, and the first of the range that is given to the caller.
#[derive(Debug)]
struct Mapping {
    program: &'static str,
    own: u32,
    first: u32,
}

/// A process that stays outside of the namespace, as the user that this process was: only there may ids be mapped that are
/// not the user's own, by programs that are setuid.
#[derive(Debug)]
pub(super) struct Mapper {
    process: Pid,
    gate: io::PipeWriter,
    report: io::PipeReader,
}

impl Mapper {
    /// Starts it, for a process that will be in a new namespace.
    ///
    /// # Errors
    /// What is missing, with the line that adds it.
    pub(super) fn start(caller: Caller) -> Result<Self, String> {
        let mappings = mappings(caller)?;
        let failed = |e: io::Error| format!("no process can be started that maps ids: {e}");
        let (mut go, gate) = io::pipe().map_err(failed)?;
        let (report, mut tell) = io::pipe().map_err(failed)?;
        let target = Pid::this();
        let life = move || {
            // Ends with an error when there is nobody any more who could go on.
            if go.read_exact(&mut [0]).is_err() {
                return 1;
            }
            let said: String = mappings.iter().filter_map(|mapping| mapping.map(target).err()).collect();
            u8::from(tell.write_all(said.as_bytes()).is_err())
        };
        Ok(Self { process: fork_alone(life).map_err(failed)?, gate, report })
    }

    /// Has the ids mapped: those of the caller and those of machines. This process is in its new namespace by now.
    ///
    /// # Errors
    /// What the programs said; then it may be that only one of the two maps was written.
    pub(super) fn map(mut self) -> Result<(), String> {
        let mut said = String::new();
        let told = self.gate.write_all(&[1]).and_then(|()| self.report.read_to_string(&mut said));
        // Reaped here, so that no test finds a child that it has not started.
        let ended = waitpid(self.process, None);
        match (told, ended) {
            (Ok(_), Ok(_)) if said.is_empty() => Ok(()),
            (Err(e), _) => Err(format!("the process that maps ids does not answer: {e}")),
            (_, Err(e)) => Err(format!("the process that maps ids is lost: {e}")),
            _ => Err(said),
        }
    }
}

impl Mapping {
    fn map(&self, target: Pid) -> Result<(), String> {
        let numbers = [0, self.own, 1, MACHINE_IDS.start, self.first, COUNT].map(|number| number.to_string());
        let output = Command::new(self.program).arg(target.to_string()).args(numbers).output();
        let output = output.map_err(|e| format!("`{}` cannot be run: {e}", self.program))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{}` failed with {}: {}", self.program, output.status, said.trim()))
    }
}

/// Both maps, as the files of this host give them.
fn mappings(caller: Caller) -> Result<[Mapping; 2], String> {
    let user = User::from_uid(caller.uid.into()).ok().flatten();
    let name = user.map_or_else(|| caller.uid.to_string(), |user| user.name);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
    let has_programs = ["newuidmap", "newgidmap"].iter().all(|program| is_on_path(program));
    let names = [name.as_str(), &caller.uid.to_string()];
    match (has_programs, given(&uids, names), given(&gids, names)) {
        (true, Some(uid), Some(gid)) => Ok([
            Mapping { program: "newuidmap", own: caller.uid, first: uid },
            Mapping { program: "newgidmap", own: caller.gid, first: gid },
        ]),
        (has_programs, uid, gid) => Err(remedy(&name, has_programs, uid.is_some() && gid.is_some(), [&uids, &gids])),
    }
}

/// What is missing, and the one line that adds it.
fn remedy(name: &str, has_programs: bool, has_ranges: bool, files: [&str; 2]) -> String {
    let (mut missing, mut line) = (Vec::new(), Vec::new());
    if !has_programs {
        missing.push("newuidmap and newgidmap are not installed".to_owned());
        line.push("sudo apt-get install -y uidmap".to_owned());
    }
    if !has_ranges {
        let first = files.into_iter().map(free_from).max().unwrap_or(FIRST_SUBORDINATE);
        let range = format!("{first}-{}", u64::from(first) + u64::from(COUNT) - 1);
        missing.push(format!("`{name}` has no {} ids in /etc/subuid and /etc/subgid", COUNT));
        line.push(format!("sudo usermod --add-subuids {range} --add-subgids {range} {name}"));
    }
    format!("{}: run `{}`", missing.join(", and "), line.join(" && "))
}

/// The first of a range that is large enough, from lines of `<user>:<first>:<count>`.
fn given(file: &str, names: [&str; 2]) -> Option<u32> {
    entries(file).find(|(owner, _, length)| names.contains(owner) && *length >= COUNT).map(|(_, first, _)| first)
}

/// The first id behind those that are given to anybody.
fn free_from(file: &str) -> u32 {
    entries(file).map(|(_, first, length)| first.saturating_add(length)).fold(FIRST_SUBORDINATE, u32::max)
}

fn entries(file: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, length) = (fields.next()?, fields.next()?, fields.next()?);
        Some((owner, first.parse().ok()?, length.parse().ok()?))
    })
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| Path::is_file(&dir.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "alice:100000:65536\n# bob:1:65536\nbob:165536:1000\n1002:300000:65536\n";

    #[test]
    fn a_range_belongs_to_a_name_or_a_number() {
        assert_eq!(given(FILE, ["alice", "1000"]), Some(100_000));
        assert_eq!(given(FILE, ["carol", "1002"]), Some(300_000));
        assert_eq!(given(FILE, ["bob", "1001"]), None, "it is too small");
        assert_eq!(given("", ["alice", "1000"]), None);
    }

    #[test]
    fn what_is_missing_is_one_line_to_run() {
        assert_eq!(
            remedy("bob", false, false, [FILE, ""]),
            "newuidmap and newgidmap are not installed, and `bob` has no 65536 ids in /etc/subuid and /etc/subgid: run \
             `sudo apt-get install -y uidmap && \
             sudo usermod --add-subuids 365536-431071 --add-subgids 365536-431071 bob`"
        );
        assert_eq!(
            remedy("bob", false, true, [FILE, FILE]),
            "newuidmap and newgidmap are not installed: run `sudo apt-get install -y uidmap`"
        );
        assert!(
            remedy("bob", true, false, ["", ""])
                .ends_with("run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 bob`")
        );
    }
}
