//! The side of the process that owns a run.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::net::UnixListener as StdListener},
    path::Path,
    sync::Arc,
    time::UNIX_EPOCH,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional, join},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::protocol::{
    Answer, Description, Greeting, Interface, MAX_LINE, Machine, Request, RunState, SshAccess, VERSION, since_epoch,
};
use crate::{
    cluster::{CONTROL, Cluster, Hold, Member, Node, Run, State},
    error::Error,
    harness::session::BLOCKED_AFTER,
    hypervisor::{CONSOLE, VMM_LOG},
    plan::SSH_PORT,
};

/// What ends a run whose body is not over, for the verdict.
pub(in crate::harness) const DOWN: &str = "`cargo vmtest down`";

/// Resolves when the run was ended and its body has not been dropped by now, because it blocks its thread.
pub(in crate::harness) async fn down_and_blocked(hold: &Hold) {
    hold.ended().await;
    tokio::time::sleep(BLOCKED_AFTER).await;
}

/// Answers whoever connects, until the run is torn down. Without its socket a run is as good as with it, but for those who
/// want to look into it: that it cannot be made is a warning.
pub(in crate::harness) fn serve(run: &Arc<Run>) {
    match listen(run.dir.path()) {
        Ok(listener) => run.spawn(accept(run.clone(), listener)),
        Err(e) => tracing::warn!("run {} has no control socket: {e}", run.dir.id()),
    }
}

fn listen(dir: &Path) -> io::Result<StdListener> {
    // By its descriptor, because the address of a socket has room for 107 bytes, and a directory may be deep.
    let dir = File::open(dir)?;
    let listener = StdListener::bind(format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(run: Arc<Run>, listener: StdListener) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(attend(run.clone(), stream))),
                Err(e) => {
                    tracing::warn!("run {} answers nobody any more: {e}", run.dir.id());
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One client, to its end. One that goes is none of our business.
async fn attend(run: Arc<Run>, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let mut client = Connection { read: BufReader::new(read), write };
    if let Err(e) = client.serve(&run).await {
        tracing::debug!("a client of run {}: {e}", run.dir.id());
    }
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    async fn serve(&mut self, run: &Arc<Run>) -> io::Result<()> {
        self.say(&Greeting { control: VERSION, run: run.dir.id().to_owned() }).await?;
        while let Some(line) = self.line().await? {
            let request = match serde_json::from_str(&line) {
                Ok(request) => request,
                Err(e) => {
                    let why = format!("version {VERSION} of the control protocol knows no such request: {e}");
                    self.say(&Answer::Failed { why }).await?;
                    continue;
                }
            };
            match request {
                Request::Connect { node, port } => match connect(run, &node, port).await {
                    Ok(mut far) => {
                        self.say(&Answer::Connected).await?;
                        copy_bidirectional(&mut join(&mut self.read, &mut self.write), &mut far).await?;
                        return Ok(());
                    }
                    Err(e) => self.say(&failed(&e)).await?,
                },
                Request::Console { node } => {
                    let ended = self.console(run, &node).await?;
                    self.say(&failed(&ended)).await?;
                }
                request => {
                    let answer = answer(run, request).await.unwrap_or_else(|e| failed(&e));
                    self.say(&answer).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends lines until there is none any more, for the reason that is the result.
    async fn console(&mut self, run: &Arc<Run>, node: &str) -> io::Result<Error> {
        let mut lines = match machine(run, node).and_then(|node| node.console_lines()) {
            Ok(lines) => lines,
            Err(e) => return Ok(e),
        };
        loop {
            let next = tokio::select! {
                next = lines.next() => next,
                // A client that has gone says so by the end of its side.
                line = self.read.fill_buf() => match line {
                    Ok(bytes) if !bytes.is_empty() => return Err(io::ErrorKind::InvalidData.into()),
                    _ => return Err(io::ErrorKind::ConnectionAborted.into()),
                },
            };
            match next {
                Ok(line) => self.say(&Answer::Line { line }).await?,
                Err(e) => return Ok(e),
            }
        }
    }

    async fn say(&mut self, what: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.write.write_all(&line).await
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        (&mut self.read).take(MAX_LINE).read_line(&mut line).await?;
        match line.strip_suffix('\n') {
            Some(whole) => Ok(Some(whole.to_owned())),
            None if line.is_empty() => Ok(None),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn machine(run: &Arc<Run>, name: &str) -> Result<Node, Error> {
    Cluster::new(run.clone()).node(name)
}

async fn connect(run: &Arc<Run>, node: &str, port: u16) -> Result<tokio::net::TcpStream, Error> {
    machine(run, node)?.connect(port).await
}

async fn answer(run: &Arc<Run>, request: Request) -> Result<Answer, Error> {
    match request {
        Request::Describe => return Ok(Answer::Run(Box::new(describe(run)))),
        Request::Hold => run.hold.ask(),
        Request::Resume if run.hold.release() => {}
        Request::Resume => return Ok(Answer::Failed { why: "it is not held".into() }),
        Request::Down => run.hold.end(),
        Request::Ssh { node } => {
            let node = machine(run, &node)?;
            let files = node.ssh_files()?;
            let (key, known_hosts) = (files.key, files.known_hosts);
            let user = node.login().to_owned();
            let access = SshAccess { user, address: node.ip(), port: SSH_PORT, key, known_hosts };
            return Ok(Answer::Ssh(access));
        }
        Request::Upload { node, from, to } => machine(run, &node)?.upload(from, to).await?,
        Request::Download { node, from, to } => machine(run, &node)?.download(from, to).await?,
        Request::Connect { .. } | Request::Console { .. } => unreachable!("they are more than an answer"),
    }
    Ok(Answer::Done)
}

fn failed(why: &Error) -> Answer {
    Answer::Failed { why: why.to_string() }
}

fn describe(run: &Run) -> Description {
    let (held, members) = (run.hold.held(), run.members());
    let booting = |member: &Arc<Member>| member.state() == State::Booting;
    let state = match &held {
        _ if run.tasks.are_over() || run.hold.has_ended() => RunState::Ending,
        Some(_) => RunState::Held,
        None if members.iter().any(booting) => RunState::Booting,
        None => RunState::Running,
    };
    Description {
        run: run.dir.id().to_owned(),
        dir: run.dir.path().to_owned(),
        test: run.plan.name.clone(),
        backend: run.plan.backend.clone(),
        pid: std::process::id(),
        since: run.journal.begin().map_or(since_epoch(UNIX_EPOCH), |begin| begin.at),
        state,
        held_since: held.as_ref().map(|held| since_epoch(held.since)),
        held: held.map(|held| held.why),
        hold_asked: run.hold.is_asked(),
        nodes: members.iter().map(|member| describe_machine(member)).collect(),
    }
}

fn describe_machine(member: &Member) -> Machine {
    let state = member.state();
    let interfaces = member.plan.interfaces.iter().map(|interface| Interface {
        network: interface.network.clone(),
        ip: interface.ip,
        ip6: interface.ip6,
        mac: interface.mac.clone(),
    });
    Machine {
        name: member.plan.name.clone(),
        state: state.to_string(),
        waits_for: (state == State::Booting).then(|| member.waits_for()).flatten().map(|rung| rung.to_string()),
        interfaces: interfaces.collect(),
        vmm: (state != State::Off).then(|| member.process_id()).flatten().map(|id| id.pid),
        console: member.dir.join(CONSOLE),
        log: member.dir.join(VMM_LOG),
    }
}
