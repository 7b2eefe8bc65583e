//! Waiting for something to be true of a machine.

use std::{
    ffi::OsStr,
    future::IntoFuture,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, select_ok, try_join_all};
use regex::Regex;
use tokio::{net::TcpStream, time::sleep};

use super::{ConsoleLines, Node, sh::Running};
use crate::{
    cluster::member::Member,
    error::{Error, Kind, Phase},
    evidence::Work,
    guest::{Command, Leash},
};

/// Long enough for services that start in seconds; scaled, like all timeouts.
const DEFAULT_WITHIN: Duration = Duration::from_secs(30);
/// A refused connect says nothing about when it would succeed; one costs a fraction of a millisecond.
const KNOCK_EVERY: Duration = Duration::from_millis(20);
/// A command costs a few milliseconds of the guest's time, 20 under emulation.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How many lines of its log are shown of a unit that failed.
const UNIT_LOG_LINES: u32 = 20;

/// Something that can become true of a machine.
///
/// ```no_run
/// # use vmtest::{prelude::*, Condition};
/// # async fn body(node: Node) -> Result {
/// let up = Condition::port(5432).and(Condition::command("pg_isready"));
/// node.wait_for(up).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Condition(Is);

#[derive(Debug, Clone)]
enum Is {
    Port(u16),
    Unit(String),
    Command(Command),
    Console(Result<Regex, String>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Condition {
    /// Somebody accepts connections on this TCP port of the machine's address.
    pub fn port(port: u16) -> Self {
        Self(Is::Port(port))
    }

    /// This systemd unit is active. One that has failed ends the wait, with its log.
    pub fn unit(name: impl Into<String>) -> Self {
        Self(Is::Unit(name.into()))
    }

    /// This command ends with exit code 0.
    pub fn command(command: impl AsRef<OsStr>) -> Self {
        Self(Is::Command(Command::new(command)))
    }

    /// A line of the serial console matches this regular expression, from its first line on.
    pub fn console(pattern: &str) -> Self {
        Self(Is::Console(Regex::new(pattern).map_err(|e| e.to_string())))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(Is::All(vec![self, other]))
    }

    /// Either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(Is::Any(vec![self, other]))
    }

    fn shown(&self) -> String {
        let list =
            |conditions: &[Self], between: &str| conditions.iter().map(Self::shown).collect::<Vec<_>>().join(between);
        match &self.0 {
            Is::Port(port) => format!("somebody listens on port {port}"),
            Is::Unit(name) => format!("the unit `{name}` is active"),
            Is::Command(command) => format!("`{}` succeeds", command.shown()),
            Is::Console(Ok(pattern)) => format!("the console shows `{pattern}`"),
            Is::Console(Err(_)) => "the console shows something".to_owned(),
            Is::All(all) => list(all, " and "),
            Is::Any(any) => list(any, " or "),
        }
    }

    fn hold<'a>(&'a self, watched: &'a Watched) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match &self.0 {
                Is::Port(port) => watched.port(*port).await,
                Is::Unit(name) => watched.unit(name).await,
                Is::Command(command) => watched.command(command).await,
                Is::Console(Ok(pattern)) => watched.console(pattern).await,
                Is::Console(Err(why)) => Err(Error::new(Kind::Spec, format!("this is no regular expression: {why}"))),
                Is::All(all) => try_join_all(all.iter().map(|one| one.hold(watched))).await.map(drop),
                Is::Any(any) => select_ok(any.iter().map(|one| one.hold(watched))).await.map(drop),
            }
        })
    }
}

/// Waits. Each ends at once, with the reason, when the machine dies or when what is waited for cannot come any more.
impl Node {
    /// Waits until this is true of the machine.
    pub fn wait_for(&self, condition: Condition) -> Wait<'_> {
        Wait { node: self, condition, within: DEFAULT_WITHIN }
    }

    /// Waits until somebody listens on this TCP port.
    pub fn wait_for_port(&self, port: u16) -> Wait<'_> {
        self.wait_for(Condition::port(port))
    }

    /// Waits until this systemd unit is active.
    pub fn wait_for_unit(&self, name: impl Into<String>) -> Wait<'_> {
        self.wait_for(Condition::unit(name))
    }

    /// Waits until this command succeeds.
    pub fn wait_until(&self, command: impl AsRef<OsStr>) -> Wait<'_> {
        self.wait_for(Condition::command(command))
    }

    /// Waits until a line of the serial console matches this regular expression.
    pub fn wait_for_console(&self, pattern: &str) -> Wait<'_> {
        self.wait_for(Condition::console(pattern))
    }
}

/// A wait that has not begun; await it. Cancel-safe.
///
/// # Errors
/// [`Kind::Timeout`] with what was seen last, [`Kind::GuestPanic`] or [`Kind::MachineDied`] when the machine ends,
/// [`Kind::Command`] for a unit that has failed, [`Kind::Spec`] for a wrong pattern.
#[derive(Debug, Clone)]
#[must_use = "a wait begins when it is awaited"]
pub struct Wait<'a> {
    node: &'a Node,
    condition: Condition,
    within: Duration,
}

impl Wait<'_> {
    /// For how long; 30 s otherwise. Scaled like all timeouts: four times as long under emulation.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl IntoFuture for Wait<'_> {
    type Output = Result<(), Error>;
    type IntoFuture = Running<()>;

    fn into_future(self) -> Self::IntoFuture {
        let within = self.node.run.plan.scaled(self.within);
        let (watched, condition) = (Watched::new(self.node), self.condition);
        let member = self.node.member.clone();
        Running::on(self.node, async move {
            let span = member.recorder.work(Some(&member.plan.name), Work::Wait, condition.shown());
            let holds = tokio::time::timeout(within, member.while_alive(condition.hold(&watched)));
            let held = holds.await.unwrap_or_else(|_| {
                let (seconds, what, last) = (within.as_secs_f64(), condition.shown(), watched.last());
                let message = format!("waited {seconds:.1} s in vain until {what}; last: {last}");
                Err(Error::new(Kind::Timeout, message).on_node(&member.plan.name).after(within))
            });
            span.result(held).map_err(|e| e.in_phase(Phase::Body))
        })
    }
}

/// The machine that is waited for, and what was seen last.
struct Watched {
    node: Node,
    last: Mutex<String>,
}

impl Watched {
    fn new(node: &Node) -> Self {
        Self { node: node.clone(), last: Mutex::new("nothing yet".to_owned()) }
    }

    fn member(&self) -> &Arc<Member> {
        &self.node.member
    }

    fn saw(&self, what: impl Into<String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn port(&self, port: u16) -> Result<(), Error> {
        while let Err(e) = TcpStream::connect((self.node.ip(), port)).await {
            self.saw(e.to_string());
            sleep(KNOCK_EVERY).await;
        }
        Ok(())
    }

    async fn command(&self, command: &Command) -> Result<(), Error> {
        loop {
            let (code, said) = self.run(command).await?;
            if code == Some(0) {
                return Ok(());
            }
            self.saw(code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code} {said}")));
            sleep(ASK_EVERY).await;
        }
    }

    async fn unit(&self, name: &str) -> Result<(), Error> {
        let ask = |what: &str| {
            let mut command = Command::new(what);
            command.env("UNIT", name);
            command
        };
        let state = ask("systemctl show --property ActiveState --value -- \"$UNIT\"");
        loop {
            let (code, said) = self.run(&state).await?;
            match (code, said.as_str()) {
                (Some(0), "active") => return Ok(()),
                (Some(0), "failed") => {
                    let log = ask(&format!("journalctl --no-pager -o cat -n {UNIT_LOG_LINES} -u \"$UNIT\""));
                    let (_, log) = self.run(&log).await?;
                    let message =
                        format!("the unit `{name}` has failed; its log ends with:\n  {}", log.replace('\n', "\n  "));
                    return Err(Error::new(Kind::Command, message));
                }
                (Some(127), _) => {
                    let message = format!("there is no unit `{name}`: this image has no systemd");
                    return Err(Error::new(Kind::Command, message));
                }
                (_, state) => self.saw(format!("it is `{state}`")),
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn console(&self, pattern: &Regex) -> Result<(), Error> {
        let mut lines = ConsoleLines::open(&self.node)?;
        loop {
            let line = lines.next().await?;
            if pattern.is_match(&line) {
                return Ok(());
            }
            self.saw(line);
        }
    }

    /// The exit code, and what was printed.
    async fn run(&self, command: &Command) -> Result<(Option<i32>, String), Error> {
        let (line, mark) = command.line()?;
        let mut leash = Leash::new(&self.member().ssh, mark);
        let exec = self.member().ssh.exec(line).await.inspect_err(|_| leash.release())?;
        // Whether it reads or not, there is nothing for it.
        drop(exec.input().close().await);
        let status = exec.ended().await?;
        leash.release();
        let code = status.code;
        let output = exec.output(status);
        let said = [output.stdout(), output.stderr()].join("\n").trim().to_owned();
        Ok((code, said))
    }
}
