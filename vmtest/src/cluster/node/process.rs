//! A command that runs beside the test.

use std::{ffi::OsStr, fmt, future::IntoFuture, io, sync::Arc};

use super::{Node, sh::Running};
use crate::{
    cluster::member::Member,
    error::{Error, Kind},
    evidence::{Outcome, Span, Work},
    guest::{
        Command, Leash,
        ssh::{Exec, ExitStatus, Spool},
    },
};

/// A command for a guest, not yet started. Awaited, it gives the live [`Process`].
///
/// # Errors
/// [`Kind::Connection`] when it cannot be started, [`Kind::Spec`] for a command that no shell could run. That there is
/// no such program is the process' own end, with exit code 127.
#[derive(Debug, Clone)]
#[must_use = "a process starts when it is awaited"]
pub struct Spawn<'a> {
    node: &'a Node,
    command: Command,
}

impl<'a> Spawn<'a> {
    pub(super) fn new(node: &'a Node, command: &OsStr) -> Self {
        Self { node, command: Command::new(command) }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it as this user of the guest instead of root.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.command.user(name);
        self
    }
}

impl IntoFuture for Spawn<'_> {
    type Output = Result<Process, Error>;
    type IntoFuture = Running<Process>;

    fn into_future(self) -> Self::IntoFuture {
        let (member, command) = (self.node.member.clone(), self.command);
        Running::on(self.node, async move {
            let (line, mark) = command.line().map_err(|e| e.on_node(&member.plan.name))?;
            let span = Some(member.recorder.work(Some(&member.plan.name), Work::Process, command.shown()));
            let mut leash = Leash::new(&member.ssh, mark);
            let exec = member.while_alive(member.ssh.exec(line)).await.inspect_err(|_| leash.release())?;
            let lines = |spool: &Arc<Spool>| Lines { spool: spool.clone(), partial: Vec::new() };
            let (stdout, stderr) = (lines(&exec.stdout), lines(&exec.stderr));
            Ok(Process { stdout, stderr, exec, leash, shown: command.shown(), member, span })
        })
    }
}

/// A live process of a guest. Dropped, it is killed with everything that it started.
///
/// Nobody has to read what it prints: unread output waits in memory up to 1 MiB a stream, then in a file.
pub struct Process {
    /// What it prints.
    pub stdout: Lines,
    /// What it complains of.
    pub stderr: Lines,
    exec: Exec,
    leash: Leash,
    shown: String,
    member: Arc<Member>,
    /// Until it has ended.
    span: Option<Span>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("node", &self.member.plan.name).field("command", &self.shown).finish()
    }
}

impl Process {
    /// Writes to its standard input; returns when the guest has room for it. Not cancel-safe: a part may be written.
    ///
    /// # Errors
    /// [`Kind::Connection`] when it does not read any more.
    pub async fn write(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        let input = self.exec.input();
        self.while_read(async move { input.write(bytes.into()).await }).await
    }

    /// Closes its standard input.
    ///
    /// # Errors
    /// [`Kind::Connection`] when it has ended.
    pub async fn close_stdin(&self) -> Result<(), Error> {
        let input = self.exec.input();
        self.while_read(async move { input.close().await }).await
    }

    /// Waits for its end. Cancel-safe; may be called again.
    ///
    /// # Errors
    /// [`Kind::GuestPanic`] or [`Kind::MachineDied`] when the machine ends first, [`Kind::Connection`].
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        let ended = self.member.while_alive(self.exec.ended()).await;
        if let Some(span) = self.span.take() {
            span.end(match &ended {
                Ok(ExitStatus { code, signal }) => {
                    Outcome { code: *code, signal: signal.clone(), ..Outcome::default() }
                }
                failed => Outcome::of(failed),
            });
        }
        let status = ended?;
        self.leash.release();
        Ok(Exit { status })
    }

    /// Sends a signal, such as `TERM`, to it and everything that it started.
    ///
    /// # Errors
    /// [`Kind::Spec`] or [`Kind::Command`] for a signal that there is not, [`Kind::Connection`].
    pub async fn signal(&self, signal: &str) -> Result<(), Error> {
        self.member.while_alive(self.leash.signal(signal)).await
    }

    /// Kills it with everything that it started, and returns when all of that is gone. One that has ended is no error.
    ///
    /// # Errors
    /// [`Kind::Timeout`] for a process that hangs in the guest's kernel, [`Kind::Connection`].
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.member.while_alive(self.leash.kill(&self.exec)).await
    }

    async fn while_read(&self, work: impl Future<Output = io::Result<()>>) -> Result<(), Error> {
        let message = || format!("`{}` does not read its input any more", self.shown);
        let work = async { work.await.map_err(|why| Error::new(Kind::Connection, message()).caused_by(why)) };
        self.member.tasks.unless_over(work).await.map_err(|e| e.on_node(&self.member.plan.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.exec.stdout.discard();
        self.exec.stderr.discard();
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    status: ExitStatus,
}

impl Exit {
    /// The exit code; `None` for a process that a signal ended.
    pub fn code(&self) -> Option<i32> {
        self.status.code
    }

    /// The signal that ended it, without `SIG`.
    pub fn signal(&self) -> Option<&str> {
        self.status.signal.as_deref()
    }

    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.status.code == Some(0)
    }
}

/// What a process prints, as it comes.
pub struct Lines {
    spool: Arc<Spool>,
    /// What was read and not yet handed out.
    partial: Vec<u8>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// The next line without its end; what is not UTF-8 is replaced. `None` when nothing more will come. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::Host`] when what did not fit into memory cannot be read back.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.partial[seen..].iter().position(|&byte| byte == b'\n') {
                let rest = self.partial.split_off(seen + end + 1);
                let line = std::mem::replace(&mut self.partial, rest);
                return Ok(Some(text(&line[..line.len() - 1])));
            }
            seen = self.partial.len();
            match self.more().await? {
                Some(chunk) => self.partial.extend(chunk),
                None if self.partial.is_empty() => return Ok(None),
                None => return Ok(Some(text(&std::mem::take(&mut self.partial)))),
            }
        }
    }

    /// Bytes as they come, whether they make a line or not. `None` when nothing more will come. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::Host`] when what did not fit into memory cannot be read back.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.partial.is_empty() { self.more().await } else { Ok(Some(std::mem::take(&mut self.partial))) }
    }

    async fn more(&self) -> Result<Option<Vec<u8>>, Error> {
        let failed = |e| Error::new(Kind::Host, "cannot read back the output of a process").caused_by(e);
        self.spool.read().await.map_err(failed)
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}
