//! A command line for a guest's shell, and how it is ended with all that it started.

use std::{
    ffi::{OsStr, OsString},
    future::Future,
    os::unix::ffi::OsStrExt,
    pin::pin,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::ssh::{Exec, Ssh};
use crate::{
    error::{Error, Kind},
    host::random,
};

/// A command may have been on its way when its processes were looked for, and one that begins a program has no
/// environment for a moment; so they are looked for again after this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Where nobody tells whether a command has ended: time for three looks.
const LOOKED_ENOUGH_AFTER: Duration = Duration::from_millis(125);
/// A killed process is gone in milliseconds, under emulation too; one that is not hangs in its kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(20);

/// Begins a session if the shell does not lead one: under OpenSSH it does, and there `setsid` would fork and lose the
/// exit code; under dropbear it does not.
const IN_A_SESSION: &str = "read -r _ _ _ _ group _ </proc/$$/stat; [ \"$group\" = $$ ] || set -- setsid; ";
/// The shell becomes what follows, in that session.
const BECOME: &str = "exec \"$@\" ";

/// Variables by which shells, the loader and `su` are steered. They are set for the command alone, after the programs that
/// start it have been found.
const STEERING: [&[u8]; 9] = [b"BASH_ENV", b"ENV", b"HOME", b"IFS", b"LOGNAME", b"PATH", b"PWD", b"SHELL", b"USER"];
/// What the names of those of the loader begin with.
const OF_THE_LOADER: &[u8] = b"LD_";

/// An environment variable that marks the processes of one command, so that all of them are found, whichever group or
/// session they moved to. Random, because a forked snapshot has commands of its own.
#[derive(Debug, Clone)]
pub(crate) struct Mark(String);

impl Mark {
    /// The variable's value.
    pub(crate) fn value(&self) -> &str {
        self.0.split_once('=').map_or("", |(_, value)| value)
    }
}

/// A command line with what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    text: OsString,
    env: Vec<(OsString, OsString)>,
    user: Option<String>,
}

impl Command {
    pub(crate) fn new(text: impl AsRef<OsStr>) -> Self {
        Self { text: text.as_ref().to_owned(), env: Vec::new(), user: None }
    }

    pub(crate) fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
    }

    pub(crate) fn user(&mut self, name: impl Into<String>) {
        self.user = Some(name.into());
    }

    /// The command as its author wrote it.
    pub(crate) fn shown(&self) -> String {
        self.text.to_string_lossy().into_owned()
    }

    /// What the guest's shell is given, and the mark of this one run: a session of its own, so that what the command does to its process group does
    /// not reach the SSH server, with the mark and the variables in its environment. Servers refuse variables that are
    /// sent beside the command, so they are exported before it: by the shell that becomes the command, so that no list of
    /// processes shows their values.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a NUL byte, or a name that no shell takes for a variable or a user.
    pub(crate) fn line(&self) -> Result<(Vec<u8>, Mark), Error> {
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        for (name, value) in &self.env {
            check_variable(name)?;
            let (name, value) = (name.as_bytes(), quoted(value));
            if STEERING.contains(&name) || name.starts_with(OF_THE_LOADER) {
                inner.extend([b"export ", name, b"=", &value, b"\n"].concat());
            } else {
                outer.extend([b"export ", name, b"=", &value, b"; "].concat());
            }
        }
        inner.extend(self.text.as_bytes());
        if outer.contains(&0) || inner.contains(&0) {
            let shown = self.shown().replace('\0', "\\0");
            return Err(Error::new(Kind::Spec, format!("`{shown}` holds a NUL byte, which no command line can")));
        }
        let inner = quoted(OsStr::from_bytes(&inner));
        let shell = match &self.user {
            None => [b"sh -c ", inner.as_slice()].concat(),
            Some(user) => [b"su -s /bin/sh ", check_user(user)?.as_bytes(), b" -c ", &inner].concat(),
        };
        let random = random().map_err(|e| Error::new(Kind::Host, "cannot mark a command").caused_by(e))?;
        let mark = Mark(format!("VMTEST_COMMAND={:016x}", u64::from_ne_bytes(random)));
        let begin = [b"export ", mark.0.as_bytes(), b"; ", IN_A_SESSION.as_bytes()].concat();
        Ok(([&*begin, &*outer, BECOME.as_bytes(), &*shell].concat(), mark))
    }
}

/// Holds a command: dropped, it ends everything that the command started, in the background.
pub(crate) struct Leash {
    ssh: Ssh,
    mark: Mark,
    /// Run once the command is dead: what it would have done itself.
    cleanup: Option<Vec<u8>>,
    released: bool,
}

impl Leash {
    pub(crate) fn new(ssh: &Ssh, mark: Mark) -> Self {
        Self { ssh: ssh.clone(), mark, cleanup: None, released: false }
    }

    /// Runs this script in the guest once the command has been killed.
    pub(crate) fn clean_up_with(&mut self, script: Vec<u8>) {
        self.cleanup = Some(script);
    }

    /// The command has ended; nothing is to be done any more.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    /// Sends a signal to all processes of the command.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a signal that the guest does not know, [`Kind::Connection`].
    pub(crate) async fn signal(&self, signal: &str) -> Result<(), Error> {
        if !signal.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+') {
            return Err(Error::new(Kind::Spec, format!("`{signal}` is no signal: give a name such as TERM")));
        }
        let exec = self.ssh.exec(signal_each(&self.mark, signal)).await?;
        let status = exec.ended().await?;
        if status.code == Some(0) {
            return Ok(());
        }
        let why = exec.output(status).stderr();
        Err(Error::new(Kind::Command, format!("cannot send the signal `{signal}`: {why}")))
    }

    /// Kills all processes of the command and waits until they are gone.
    ///
    /// # Errors
    /// [`Kind::Timeout`] for a process that cannot be killed, [`Kind::Connection`].
    pub(crate) async fn kill(&mut self, exec: &Exec) -> Result<(), Error> {
        self.released = true;
        kill(&self.ssh, &self.mark, self.cleanup.take(), exec.ended()).await
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let (ssh, mark, cleanup) = (self.ssh.clone(), self.mark.clone(), self.cleanup.take());
        self.ssh.engine().spawn(async move {
            // Nobody is left to be told; a machine that has died has taken the processes with it.
            drop(kill(&ssh, &mark, cleanup, sleep(LOOKED_ENOUGH_AFTER)).await);
        });
    }
}

async fn kill(ssh: &Ssh, mark: &Mark, cleanup: Option<Vec<u8>>, ended: impl Future) -> Result<(), Error> {
    let work = async {
        let mut ended = pin!(ended);
        loop {
            ssh.exec(until_none(mark)).await?.ended().await?;
            tokio::select! {
                _ = &mut ended => break,
                () = sleep(LOOK_AGAIN_AFTER) => {}
            }
        }
        if let Some(cleanup) = cleanup {
            ssh.exec(cleanup).await?.ended().await?;
        }
        Ok(())
    };
    timeout(KILLED_WITHIN, work).await.unwrap_or_else(|_| {
        let seconds = KILLED_WITHIN.as_secs();
        Err(Error::new(Kind::Timeout, format!("a killed command is still there after {seconds} s")))
    })
}

/// A script that names the environments with the mark. Its exit code says nothing: it is that of an error whenever any
/// process of the machine has ended between being listed and being read.
fn list(Mark(mark): &Mark) -> String {
    format!("grep -ls {mark} /proc/[0-9]*/environ")
}

/// A script that sends this signal to each process with the mark; it fails where one that is still there did not get it.
fn signal_each(mark: &Mark, signal: &str) -> Vec<u8> {
    let list = list(mark);
    let send = format!("kill -{signal} ${{p#/proc/}} || [ ! -e $p ] || failed=1");
    format!("failed=; for p in $({list}); do p=${{p%/environ}}; {send}; done; [ -z \"$failed\" ]").into_bytes()
}

/// A script that kills until there is none left.
fn until_none(mark: &Mark) -> Vec<u8> {
    let list = list(mark);
    let kill = "for p in $pids; do p=${p#/proc/}; kill -KILL ${p%/environ}; done";
    format!("n=0; while pids=$({list}); [ -n \"$pids\" ] && [ $((n += 1)) -le 500 ]; do {kill}; done 2>/dev/null; [ $n -le 500 ]")
        .into_bytes()
}

/// The text as one word of a shell.
pub(crate) fn quoted(text: impl AsRef<OsStr>) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text.as_ref().as_bytes() {
        match byte {
            b'\'' => word.extend(br"'\''"),
            byte => word.push(byte),
        }
    }
    word.push(b'\'');
    word
}

fn check_variable(name: &OsStr) -> Result<(), Error> {
    let bytes = name.as_bytes();
    let valid = bytes.first().is_some_and(|c| !c.is_ascii_digit())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    if valid {
        return Ok(());
    }
    let message = format!("`{}` is no variable's name: letters, digits and `_` make one", name.to_string_lossy());
    Err(Error::new(Kind::Spec, message))
}

fn check_user(name: &str) -> Result<&str, Error> {
    let valid = !name.is_empty()
        && !name.starts_with('-')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
    if valid { Ok(name) } else { Err(Error::new(Kind::Spec, format!("`{name}` is no user's name"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(line: Vec<u8>) -> String {
        let output = std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let mut command = Command::new("printf '%s|' \"$A\" \"it's\" $B");
        command.env("A", "a 'quoted' $HOME `x` \n line");
        command.env("B", OsStr::from_bytes(b"\xff"));
        assert_eq!(ran(command.line().unwrap().0), "a 'quoted' $HOME `x` \n line|it's|\u{fffd}|");
    }

    #[test]
    fn variables_are_in_no_list_of_processes() {
        let mut command = Command::new("echo \"$TOKEN\"; tr '\\0' ' ' </proc/$$/cmdline");
        command.env("TOKEN", "a-secret");
        let ran = ran(command.line().unwrap().0);
        assert_eq!(ran.matches("a-secret").count(), 1, "{ran}");
        assert!(ran.starts_with("a-secret\n") && ran.contains("/proc/$$/cmdline"), "{ran}");
    }

    #[test]
    fn what_steers_a_shell_is_set_for_the_command_alone() {
        let mut command = Command::new("echo \"$PATH|$LD_LIBRARY_PATH|$group|$IFS|\"");
        for (name, value) in [("PATH", "/none"), ("LD_LIBRARY_PATH", "/no"), ("group", "mine"), ("IFS", "x")] {
            command.env(name, value);
        }
        assert_eq!(ran(command.line().unwrap().0), "/none|/no|mine|x|\n");
    }

    #[test]
    fn a_command_is_in_a_session_of_its_own_and_carries_its_mark() {
        let command =
            Command::new("ps -o sid= -p $$ | tr -d ' '; echo $$; tr '\\0' '\\n' </proc/$$/environ | grep VMTEST");
        let (line, mark) = command.line().unwrap();
        let ran = ran(line);
        let lines: Vec<_> = ran.lines().collect();
        assert_eq!(lines[0], lines[1], "the shell leads its session");
        assert_eq!(lines[2], mark.0);
    }

    #[test]
    fn a_shell_that_leads_a_session_keeps_its_exit_code() {
        let (line, _) = Command::new("sleep 0.1; exit 7").line().unwrap();
        let mut leader = std::process::Command::new("setsid");
        let status = leader.args(["--wait", "sh", "-c"]).arg(OsStr::from_bytes(&line)).status().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[test]
    fn what_no_shell_takes_is_refused() {
        let mut variable = Command::new("true");
        variable.env("A B", "");
        let mut user = Command::new("true");
        user.user("root; reboot");
        for (command, why) in [
            (Command::new("echo \0"), "`echo \\0` holds a NUL byte"),
            (variable, "`A B` is no variable's name"),
            (user, "`root; reboot` is no user's name"),
        ] {
            let error = command.line().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
