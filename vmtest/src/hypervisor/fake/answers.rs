//! The SSH server of a scripted machine.

use std::{collections::BTreeMap, fmt, fs::File, io::Write, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelId,
    keys::{PrivateKey, PublicKey, ssh_key::private::Ed25519Keypair},
    server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey, run_stream},
};
use rustix::process::Signal;
use tokio::{net::TcpStream, spawn, time::sleep};
use vmtest_images::GuestConfig;

use super::machine::signal;
use crate::{
    error::Error,
    host::ProcessId,
    spec::{Fake, Fault, Reply, Rung},
};

/// What a kernel prints that has panicked.
const PANIC: &str = "Kernel panic - not syncing: injected by the test";
/// What a shell says of a command that it does not find.
const NOT_FOUND: u8 = 127;
/// The kind of extended data that is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// Stands in every command of a test's author, which the framework marks; its own commands do not have it.
const MARK: &str = "VMTEST_COMMAND=";

/// What a scripted machine knows.
pub(super) struct Script {
    host_key: Ed25519Keypair,
    authorized_key: String,
    replies: BTreeMap<String, Reply>,
    faults: Vec<Fault>,
    vmm: ProcessId,
    console: File,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("replies", &self.replies).finish_non_exhaustive()
    }
}

/// What comes of a command.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Reply(Reply),
    /// The machine goes down: the signal by which its process ends.
    Ends(Signal),
    /// The kernel panics.
    Panics,
    /// Nothing, ever.
    Nothing,
}

impl Script {
    pub(super) fn new(config: &GuestConfig, fake: Fake, vmm: ProcessId, console: File) -> Self {
        let Fake { faults, replies } = fake;
        Self {
            host_key: Ed25519Keypair::from_seed(&config.host_key.private),
            authorized_key: config.authorized_key.clone(),
            replies: replies.into_iter().collect(),
            faults,
            vmm,
            console,
        }
    }

    pub(super) fn print(&self, line: &str) {
        if let Err(e) = writeln!(&self.console, "{line}") {
            tracing::warn!("cannot write a console: {e}");
        }
    }

    /// The machine ends as one whose kernel has panicked.
    ///
    /// # Errors
    /// When its process cannot be reached.
    pub(super) fn panic(&self) -> Result<(), Error> {
        self.print(PANIC);
        signal(&self.vmm, Signal::HUP)
    }

    fn lets_in(&self, key: &PublicKey) -> bool {
        !self.faults.contains(&Fault::RefusesKey) && key.to_openssh().is_ok_and(|line| line == self.authorized_key)
    }

    /// The framework's own commands succeed and do nothing, but for those that end a machine.
    fn outcome(&self, line: &str) -> Outcome {
        if !line.contains(MARK) {
            return self.own_outcome(line);
        }
        // The author's command is the last word, behind the variables that it was given; some are set in it, a line each.
        let words = shlex::split(line).unwrap_or_default();
        let command = words.last().map_or(line, String::as_str);
        let known = |asked: &str| command == asked || command.ends_with(&format!("\n{asked}"));
        let found = self.replies.iter().find(|(asked, _)| known(asked));
        Outcome::Reply(found.map(|(_, reply)| reply.clone()).unwrap_or_else(|| {
            let answers: Vec<_> = self.replies.keys().map(|command| format!("`{command}`")).collect();
            let known = answers.join(", ");
            let why = format!("this machine is scripted and has no reply to `{command}`: it knows {known}\n");
            Reply::code(NOT_FOUND).with_stderr(why)
        }))
    }

    fn own_outcome(&self, line: &str) -> Outcome {
        let deaf = self.faults.contains(&Fault::IgnoresShutdown);
        match line {
            line if line.contains("; poweroff)") && !deaf => Outcome::Ends(Signal::INT),
            line if line.contains("; reboot)") && !deaf => Outcome::Ends(Signal::HUP),
            "true" if self.faults.contains(&Fault::Stops(Rung::SshAuthenticated)) => Outcome::Nothing,
            "true" if self.faults.contains(&Fault::Dies(Rung::SshAuthenticated)) => Outcome::Ends(Signal::KILL),
            "true" if self.faults.contains(&Fault::Panics(Rung::SshAuthenticated)) => Outcome::Panics,
            _ => Outcome::Reply(Reply::default()),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(script: Arc<Script>, stream: TcpStream) {
    let config = Config {
        keys: vec![PrivateKey::from(script.host_key.clone())],
        // Nobody guesses keys on a network of one's own.
        auth_rejection_time: Duration::ZERO,
        nodelay: true,
        ..Config::default()
    };
    if let Ok(session) = run_stream(Arc::new(config), stream, Server { script }).await {
        // A client that leaves in the middle is no error of the machine's.
        drop(session.await);
    }
}

struct Server {
    script: Arc<Script>,
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(if self.script.lets_in(key.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        let (handle, script) = (session.handle(), self.script.clone());
        let line = String::from_utf8_lossy(line).into_owned();
        // Beside the session, which has to take what comes meanwhile.
        spawn(async move { answer(&handle, id, &script, &line).await });
        Ok(())
    }
}

async fn answer(handle: &Handle, id: ChannelId, script: &Script, line: &str) {
    let ended = match script.outcome(line) {
        Outcome::Reply(reply) => return send(handle, id, reply).await,
        Outcome::Ends(how) => signal(&script.vmm, how),
        Outcome::Panics => script.panic(),
        Outcome::Nothing => Ok(()),
    };
    // A machine that goes down does not say so.
    if let Err(e) = ended {
        tracing::warn!("{e}");
    }
}

async fn send(handle: &Handle, id: ChannelId, reply: Reply) {
    sleep(reply.after).await;
    // A client that has gone wants no answer.
    _ = handle.data(id, reply.stdout).await;
    _ = handle.extended_data(id, STDERR, reply.stderr).await;
    _ = handle.exit_status_request(id, reply.code.into()).await;
    _ = handle.eof(id).await;
    _ = handle.close(id).await;
}
