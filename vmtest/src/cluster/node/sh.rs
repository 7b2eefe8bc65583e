//! Running a command to its end.

use std::{
    ffi::OsStr,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::Node;
use crate::{
    cluster::member::Member,
    error::{Error, Kind, Phase},
    evidence::{Outcome, Recorder, Work},
    guest::{
        Command, Leash,
        ssh::{Exec, ExitStatus, Output},
    },
};

/// A command for a guest, not yet run. Awaited, it runs to its end and gives its [`Output`].
///
/// # Errors
/// [`Kind::Command`] for a non-zero exit unless [`unchecked`](Self::unchecked), [`Kind::Timeout`] after
/// [`timeout`](Self::timeout), [`Kind::GuestPanic`] or [`Kind::MachineDied`] at once when the machine ends,
/// [`Kind::Connection`] when the connection breaks, [`Kind::Spec`] for a command that no shell could run.
///
/// # Cancel safety
/// A command that is dropped before its end is killed in the guest with everything that it started.
#[derive(Debug, Clone)]
#[must_use = "a command runs when it is awaited"]
pub struct Sh<'a> {
    node: &'a Node,
    command: Command,
    stdin: Vec<u8>,
    limit: Option<Duration>,
    checked: bool,
}

impl<'a> Sh<'a> {
    pub(super) fn new(node: &'a Node, command: &OsStr) -> Self {
        Self { node, command: Command::new(command), stdin: Vec::new(), limit: None, checked: true }
    }

    /// What the command reads; without it, nothing.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
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

    /// Kills the command, with everything that it started, when it has not ended after this. Scaled like all timeouts:
    /// four times as long under emulation.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// A non-zero exit is a result, no error.
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }
}

impl<'a> IntoFuture for Sh<'a> {
    type Output = Result<Output, Error>;
    type IntoFuture = Running<Output>;

    fn into_future(self) -> Self::IntoFuture {
        let member = self.node.member.clone();
        let limit = self.limit.map(|limit| self.node.run.plan.scaled(limit));
        let (command, stdin, checked) = (self.command, self.stdin, self.checked);
        Running::on(self.node, async move {
            let span = member.recorder.work(Some(&member.plan.name), Work::Command, command.shown());
            let output = member.while_alive(run(&member, &command, stdin, limit)).await;
            let outcome = outcome(&member.recorder, span.id(), &output);
            span.end(outcome);
            let output = output.map_err(|e| e.in_phase(Phase::Body))?;
            if checked && !output.success() {
                return Err(failed(&command.shown(), &output).on_node(&member.plan.name).in_phase(Phase::Body));
            }
            Ok(output)
        })
    }
}

fn outcome(recorder: &Recorder, id: u64, output: &Result<Output, Error>) -> Outcome {
    let Ok(output) = output else { return Outcome::of(output) };
    let printed = |stream, (head, bytes): (&[u8], u64)| recorder.printed(id, stream, head, bytes);
    Outcome {
        code: output.code(),
        signal: output.signal().map(str::to_owned),
        stdout: printed("stdout", output.stdout_head()),
        stderr: printed("stderr", output.stderr_head()),
        ..Outcome::default()
    }
}

async fn run(member: &Member, command: &Command, stdin: Vec<u8>, limit: Option<Duration>) -> Result<Output, Error> {
    let (line, mark) = command.line()?;
    let mut leash = Leash::new(&member.ssh, mark);
    let began = Instant::now();
    let Some(limit) = limit else {
        let exec = member.ssh.exec(line).await.inspect_err(|_| leash.release())?;
        feed(&exec, stdin);
        return finish(&mut leash, &exec, exec.ended().await);
    };
    let timed_out = |how: String| {
        let message = format!("`{}` did not end within {:.1} s {how}", command.shown(), limit.as_secs_f64());
        Error::new(Kind::Timeout, message).after(began.elapsed())
    };
    // A server that hangs takes a command and never says that it has. What it may do later is the leash's.
    let begun = timeout_at(began + limit, member.ssh.exec(line)).await;
    let silent = "and has not begun: the guest does not answer over SSH";
    let exec = begun.map_err(|_| timed_out(silent.to_owned()))?.inspect_err(|_| leash.release())?;
    feed(&exec, stdin);
    match timeout_at(began + limit, exec.ended()).await {
        Ok(ended) => finish(&mut leash, &exec, ended),
        Err(_) => {
            // A guest that does not answer any more cannot be told, which is not what the test waited for.
            let killed = match leash.kill(&exec).await {
                Ok(()) => "and was killed".to_owned(),
                Err(e) => format!("and could not be killed: {e}"),
            };
            Err(timed_out(killed + &printed(&exec.output(ExitStatus::default()))))
        }
    }
}

fn finish(leash: &mut Leash, exec: &Exec, ended: Result<ExitStatus, Error>) -> Result<Output, Error> {
    let status = ended?;
    leash.release();
    Ok(exec.output(status))
}

/// Writes the input in the background, because a command may print before it has read all of it.
fn feed(exec: &Exec, stdin: Vec<u8>) {
    let input = exec.input();
    tokio::spawn(async move {
        // A command that ends before it has read its input is no error of ours.
        if !stdin.is_empty() && input.write(stdin).await.is_err() {
            return;
        }
        drop(input.close().await);
    });
}

fn failed(command: &str, output: &Output) -> Error {
    let how = match (output.code(), output.signal()) {
        (Some(127), _) => "exit code 127: there is no such command in this image".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    Error::new(Kind::Command, format!("`{command}` ended with {how}{}", printed(output))).after(output.elapsed())
}

/// What the command printed, indented for an error.
fn printed(output: &Output) -> String {
    let streams = [("stdout", output.stdout()), ("stderr", output.stderr())].into_iter();
    let shown = streams.filter(|(_, text)| !text.is_empty());
    shown.map(|(name, text)| format!("\n  {name}: {}", shortened(&text).replace('\n', "\n          "))).collect()
}

/// The end of a long text: what went wrong stands there.
fn shortened(text: &str) -> String {
    /// About two screens.
    const SHOWN: usize = 8 << 10;
    match text.char_indices().rev().nth(SHOWN) {
        Some((cut, _)) => format!("[{} bytes before]\n{}", cut, &text[cut..]),
        None => text.to_owned(),
    }
}

/// Something that the engine does; dropped, it is given up.
#[derive(Debug)]
pub struct Running<T> {
    answer: oneshot::Receiver<Result<T, Error>>,
    task: Option<AbortHandle>,
    member: Arc<Member>,
}

impl<T: Send + 'static> Running<T> {
    pub(super) fn on(node: &Node, work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        let (tell, answer) = oneshot::channel();
        // Whoever asked may have gone.
        let task = node.run.tasks.spawn(async move { drop(tell.send(work.await)) });
        Self { answer, task, member: node.member.clone() }
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|done| {
            done.unwrap_or_else(|_| {
                let (tasks, name) = (&self.member.tasks, &self.member.plan.name);
                Err(tasks.unanswered().on_node(name).in_phase(Phase::Body))
            })
        })
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
