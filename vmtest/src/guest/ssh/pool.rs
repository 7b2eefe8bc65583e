//! The connections to one guest.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::{
    Keys,
    connection::Connection,
    exec::{Exec, Pump},
};
use crate::{
    error::{Error, Kind},
    plan::ROOT,
};

/// dropbear drops clients beyond five that have not authenticated.
const HANDSHAKES_AT_ONCE: usize = 4;
/// How a server begins that speaks the one version of the protocol that is in use (RFC 4253, 4.2).
const SSH_2: &[u8] = b"SSH-2.0-";

/// A way to run commands in one guest. Clones share their connections; idle ones are reused, and a new one is opened
/// when all are busy, because older dropbears lose channels that share a connection.
#[derive(Clone)]
pub(crate) struct Ssh {
    pool: Arc<Pool>,
}

struct Pool {
    address: SocketAddr,
    user: String,
    keys: Arc<Keys>,
    engine: Handle,
    idle: Mutex<Vec<Connection>>,
    /// A connection whose server has identified itself, and that nobody has answered yet: for the first command.
    greeted: Mutex<Option<TcpStream>>,
    handshakes: Semaphore,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh").field("address", &self.pool.address).finish_non_exhaustive()
    }
}

impl Ssh {
    /// A pool without connections; nothing is opened before it is needed. All work happens on `engine`.
    pub(crate) fn new(address: SocketAddr, user: &str, keys: Arc<Keys>, engine: Handle) -> Self {
        let handshakes = Semaphore::new(HANDSHAKES_AT_ONCE);
        let pool = Pool {
            address,
            user: user.to_owned(),
            keys,
            engine,
            idle: Mutex::default(),
            greeted: Mutex::default(),
            handshakes,
        };
        Self { pool: Arc::new(pool) }
    }

    /// Waits so long for the server's identification over a fresh connection, which the next command then goes on with: a
    /// server begins a process for each. Cancel-safe.
    ///
    /// # Errors
    /// When nobody listens there, or what listens is silent or no SSH server.
    pub(crate) async fn banner(&self, within: Duration) -> io::Result<()> {
        let greeted = async {
            let stream = TcpStream::connect(self.pool.address).await?;
            let mut seen = [0; SSH_2.len()];
            // Looked at and not taken. A server sends its line at once, so it does not come in pieces.
            let length = stream.peek(&mut seen).await?;
            if seen[..length] == *SSH_2 { Ok(stream) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
        };
        let stream = timeout(within, greeted).await??;
        *self.pool.greeted() = Some(stream);
        Ok(())
    }

    /// Starts a command on a connection of its own, as root; it runs until it ends, whether anybody waits for that or not. May be
    /// awaited on any executor.
    ///
    /// Not cancel-safe: a dropped future may leave the command running; [`crate::guest::Leash`] is for that.
    ///
    /// # Errors
    /// [`Kind::Connection`] when it has certainly not begun.
    pub(crate) async fn exec(&self, command: Vec<u8>) -> Result<Exec, Error> {
        let (tell, answer) = oneshot::channel();
        let pool = self.pool.clone();
        self.engine().spawn(async move {
            // Whoever asked may have gone.
            drop(tell.send(pool.exec(command).await));
        });
        answer.await.unwrap_or_else(|_| Err(Error::torn_down()))
    }

    /// The runtime on which all work happens.
    pub(crate) fn engine(&self) -> &Handle {
        &self.pool.engine
    }

    /// Closes the idle connections.
    pub(crate) fn close(&self) {
        self.pool.idle().clear();
        self.pool.greeted().take();
    }
}

impl Pool {
    async fn exec(self: Arc<Self>, command: Vec<u8>) -> Result<Exec, Error> {
        let command = if self.user == ROOT { command } else { as_root(&command) };
        // An idle connection may have died unnoticed with a reboot; a fresh one may not.
        while let Some(connection) = self.take_idle() {
            if let Ok((exec, pump)) = connection.start(command.clone()).await {
                self.clone().drive(connection, pump);
                return Ok(exec);
            }
        }
        let permit = self.handshakes.acquire().await.expect("the semaphore is never closed");
        let greeted = self.greeted().take();
        let connection = Connection::open(greeted, self.address, &self.user, &self.keys).await?;
        drop(permit);
        let failed = |e| Error::new(Kind::Connection, "cannot begin a command over SSH").caused_by(e);
        let (exec, pump) = connection.start(command).await.map_err(failed)?;
        self.drive(connection, pump);
        Ok(exec)
    }

    /// Takes what a command prints, and the connection back when it has ended.
    fn drive(self: Arc<Self>, connection: Connection, pump: Pump) {
        self.engine.clone().spawn(async move {
            if pump.run().await {
                self.idle().push(connection);
            }
        });
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|connection| !connection.is_closed());
        idle.pop()
    }

    fn greeted(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What another account is told to do as root. `sudo` asks nobody: where it would have to, it fails.
fn as_root(command: &[u8]) -> Vec<u8> {
    // A command has no NUL byte, which alone cannot be quoted.
    let quoted = shlex::bytes::try_quote(command).unwrap_or_default();
    [b"exec sudo -n -H -- sh -c ", &*quoted].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_given_the_command_as_it_is() {
        let command = b"export A='it''s'; exec \"$@\" sh -c 'exit 3'";
        let line = String::from_utf8(as_root(command)).expect("it is text");
        let words = shlex::split(&line).expect("it is a command line");
        let (last, before) = words.split_last().expect("there are some");
        assert_eq!((last.as_bytes(), before.join(" ").as_str()), (&command[..], "exec sudo -n -H -- sh -c"));
    }
}
