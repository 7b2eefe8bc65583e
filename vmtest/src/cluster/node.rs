//! The handle to one machine.

use std::{fmt, future::IntoFuture, net::Ipv4Addr, sync::Arc};

use futures_util::future::BoxFuture;

use super::{member::Member, run::Run};
use crate::error::{Error, Kind, Phase};
pub use crate::guest::ssh::Output;

/// One machine of a cluster. Clones are handles to the same machine.
#[derive(Clone)]
pub struct Node {
    // Keeps the run's journal and keeper reachable for as long as anybody can talk to the machine.
    _run: Arc<Run>,
    member: Arc<Member>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).field("ip", &self.ip()).finish()
    }
}

impl Node {
    pub(super) fn new(run: Arc<Run>, member: Arc<Member>) -> Self {
        Self { _run: run, member }
    }

    /// The host name, known to all machines of the cluster.
    pub fn name(&self) -> &str {
        &self.member.plan.name
    }

    /// The address on the cluster's bridge; sockets of the test's body reach it.
    pub fn ip(&self) -> Ipv4Addr {
        self.member.plan.ip
    }

    /// The hardware address.
    pub fn mac(&self) -> &str {
        &self.member.plan.mac
    }

    /// The last lines of the serial console, at most 200.
    pub fn console(&self) -> Vec<String> {
        self.member.console.tail(usize::MAX)
    }

    /// Runs a command line in the guest's shell, as root. Await the result; see [`Sh`].
    pub fn sh(&self, command: impl Into<String>) -> Sh<'_> {
        Sh { node: self, command: command.into(), checked: true }
    }
}

/// A command for a guest, not yet run. Awaited, it runs and gives its [`Output`].
///
/// # Errors
/// [`Kind::Command`] for a non-zero exit unless [`unchecked`](Self::unchecked), [`Kind::GuestPanic`] or
/// [`Kind::MachineDied`] at once when the machine ends, [`Kind::Connection`] when the connection breaks.
///
/// # Cancel safety
/// A dropped future closes the command's connection; its process receives a hang-up.
#[derive(Debug, Clone)]
#[must_use = "a command runs when it is awaited"]
pub struct Sh<'a> {
    node: &'a Node,
    command: String,
    checked: bool,
}

impl Sh<'_> {
    /// A non-zero exit is a result, no error.
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }

    async fn run(self) -> Result<Output, Error> {
        let member = &self.node.member;
        let output = tokio::select! {
            biased;
            error = member.died() => Err(error),
            output = member.ssh.run(&self.command, None) => output,
        };
        let output = output.map_err(|e| e.on_node(self.node.name()).in_phase(Phase::Body))?;
        if self.checked && !output.success() {
            return Err(failed(&self.command, &output).on_node(self.node.name()).in_phase(Phase::Body));
        }
        Ok(output)
    }
}

impl<'a> IntoFuture for Sh<'a> {
    type Output = Result<Output, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

fn failed(command: &str, output: &Output) -> Error {
    let how = match (output.code(), output.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    let mut message = format!("`{command}` ended with {how}");
    for (name, text) in [("stdout", output.stdout()), ("stderr", output.stderr())] {
        if !text.is_empty() {
            message += &format!("\n  {name}: {}", text.replace('\n', "\n          "));
        }
    }
    Error::new(Kind::Command, message).after(output.elapsed())
}
