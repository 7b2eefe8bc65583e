//! Where a root file system can be made: as root with all ids of a system, in namespaces that end with this process.
//!
//! A process of an ordinary user is root of a user namespace that has a range of ids beside its own (`newuidmap`, see
//! `docs/decisions/0008-rootless.md`). One below it, whose root is the first of that range, has all ids that a system
//! needs, and may be made without anybody's help.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

use crate::{Error, Result, packages};

/// As many ids as a system has.
const IDS: u32 = 1 << 16;
/// Kills what is started when this process dies; more precisely, when the thread ends that has started it, and that waits for it.
const DIES: &[&str] = &["setpriv", "--pdeathsig", "KILL"];
/// The same in mounts and process ids of its own, with everything in them.
const ALONE: &[&str] = &["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"];
/// In namespaces that this process has made, but not under it.
const HOLDER: &[&str] = &["setpriv", "--pdeathsig", "KILL", "unshare", "--user", "sh", "-c", "echo; exec cat"];

/// A place with all ids of a system.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The first of the ids that are a system's there; without, the ids here are.
    first: Option<u32>,
}

impl Inside {
    /// Looks for one.
    ///
    /// # Errors
    /// [`Error::Ids`] where this process has not enough of them.
    pub(crate) fn find() -> Result<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let maps = [read("/proc/self/uid_map"), read("/proc/self/gid_map")];
        let found = geteuid().is_root().then(|| maps.map(|map| range(&map)));
        match found {
            Some([Some(uids), Some(gids)]) if uids == gids => Ok(Self { first: Some(uids).filter(|first| *first > 0) }),
            _ => Err(Error::Ids),
        }
    }

    /// The first of the ids that are a system's there, as they are here.
    pub(crate) fn first(&self) -> u32 {
        self.first.unwrap_or(0)
    }

    /// Runs this script with these arguments in this directory, with a new file for the disk as what it reads, and hands over
    /// each line that it prints.
    ///
    /// # Errors
    /// When it cannot be started, or not be followed.
    pub(crate) fn run(
        &self,
        script: &str,
        args: &[&str],
        dir: &Path,
        disk: &Path,
        mut line: impl FnMut(&str),
    ) -> Result<ExitStatus> {
        // Whoever makes the file system is nobody here, and has this one file; its directory keeps everybody else out.
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o666).open(disk);
        let file = file.map_err(Error::file("make", disk))?;
        file.set_permissions(Permissions::from_mode(0o666)).map_err(Error::file("change the mode of", disk))?;
        let holder = self.first.map(|first| Holder::start(first, dir)).transpose()?;
        let enter = holder.as_ref().map(Holder::enter).unwrap_or_default();
        let words = enter.iter().map(String::as_str).chain(ALONE.iter().copied());
        let words: Vec<_> = words.chain(["sh", "-c", script, "sh"]).chain(args.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(dir).env("LC_ALL", "C").env("TMPDIR", "/mnt/tmp");
        command.stdin(file).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = start(&mut command)?;
        let stdout = child.stdout.take().expect("it was asked for");
        let failed = |e: std::io::Error| Error::Tool { command: words[0].to_owned(), why: e.to_string() };
        for bytes in BufReader::new(stdout).split(b'\n') {
            line(&String::from_utf8_lossy(&bytes.map_err(failed)?));
        }
        child.wait().map_err(failed)
    }
}

/// The same command, of which nothing outlives this process: what it starts itself ends with it too. Without the right to process
/// ids of its own only the program itself does.
pub(crate) fn alone(command: &Command) -> Command {
    let may = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let words = if may { ALONE } else { DIES };
    let mut alone = Command::new(words[0]);
    alone.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        alone.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    alone
}

/// That there was no space for what a script makes in this tree of a build, if what it has printed says so.
pub(crate) fn no_space(printed: &[String], tree: &Path) -> Option<Error> {
    // Where the directory of this build is, which is gone when somebody reads this.
    let full = || Error::Full { dir: tree.ancestors().nth(2).unwrap_or(tree).to_owned() };
    printed.iter().any(|line| packages::says_no_space(line)).then(full)
}

/// A process that keeps a user namespace until it is dropped.
struct Holder(Child);

impl Holder {
    /// Whose root is this id here, and owns the directory.
    fn start(first: u32, dir: &Path) -> Result<Self> {
        chown(dir, Some(first), Some(first)).map_err(Error::file("change the owner of", dir))?;
        let mut command = Command::new(HOLDER[0]);
        command.args(&HOLDER[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Self(start(&mut command)?);
        // It says so when it is in its namespace.
        let said = holder.0.stdout.as_mut().map(|out| out.read_exact(&mut [0]));
        let failed = |why: String| Error::Tool { command: HOLDER.join(" "), why };
        match said {
            Some(Ok(())) => {}
            other => return Err(failed(format!("it has made no user namespace: {other:?}"))),
        }
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", holder.0.id());
            fs::write(&path, format!("0 {first} {IDS}")).map_err(Error::file("write", path))?;
        }
        Ok(holder)
    }

    /// The words of a command that runs what follows as its root.
    fn enter(&self) -> Vec<String> {
        let namespace = format!("--user=/proc/{}/ns/user", self.0.id());
        ["nsenter", &namespace, "--setuid", "0", "--setgid", "0", "--"].map(str::to_owned).into()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends by itself at the latest with this process.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|source| Error::NoTool { program, source })
}

/// The first of enough ids, from a map as the kernel shows it.
fn range(map: &str) -> Option<u32> {
    let parse = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            [first, _, count] if *count >= IDS => Some(*first),
            _ => None,
        }
    };
    map.lines().find_map(parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_system_are_found() {
        assert_eq!(range("         0          0 4294967295\n"), Some(0), "a host");
        assert_eq!(range("0 100000 65536\n"), Some(0), "a container");
        assert_eq!(range("0 1000 1\n1879048192 100000 65536\n"), Some(1_879_048_192), "a user with a range");
        assert_eq!(range("0 1000 1\n"), None, "a user alone");
    }
}
