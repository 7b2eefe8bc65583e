//! The connections to one guest.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    runtime::Handle,
    sync::{Semaphore, oneshot},
    task::AbortHandle,
    time::timeout,
};

use super::{
    Keys, Output,
    connection::{Broken, Connection},
};
use crate::error::{Error, Kind};

/// dropbear drops clients beyond five that have not authenticated.
const HANDSHAKES_AT_ONCE: usize = 4;
/// The identification line comes with the first packet; a server that is silent for this long has not started.
const BANNER_WITHIN: Duration = Duration::from_secs(2);

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
        let pool = Pool { address, user: user.to_owned(), keys, engine, idle: Mutex::default(), handshakes };
        Self { pool: Arc::new(pool) }
    }

    /// Reads the server's identification line over a fresh connection. Cancel-safe.
    ///
    /// # Errors
    /// When nobody listens there or what listens is no SSH server.
    pub(crate) async fn banner(&self) -> io::Result<()> {
        let read = async {
            let stream = TcpStream::connect(self.pool.address).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            if line.starts_with("SSH-2.0-") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        };
        timeout(BANNER_WITHIN, read).await?
    }

    /// Runs a command line; a non-zero exit is a result. May be awaited on any executor.
    ///
    /// Cancel-safe: a dropped future closes the command's connection.
    ///
    /// # Errors
    /// [`Kind::Connection`].
    pub(crate) async fn run(&self, command: &str, stdin: Option<Vec<u8>>) -> Result<Output, Error> {
        let (tell, answer) = oneshot::channel();
        let (pool, command) = (self.pool.clone(), command.to_owned());
        let work = async move {
            // Whoever asked may have gone.
            drop(tell.send(pool.run(&command, stdin.as_deref()).await));
        };
        let _abort = AbortOnDrop(self.pool.engine.spawn(work).abort_handle());
        answer.await.unwrap_or_else(|_| Err(Error::new(Kind::Connection, "the cluster is being torn down")))
    }

    /// Closes the idle connections.
    pub(crate) async fn close(&self) {
        self.pool.idle().clear();
    }
}

impl Pool {
    async fn run(&self, command: &str, stdin: Option<&[u8]>) -> Result<Output, Error> {
        // An idle connection may have died unnoticed with a reboot; a fresh one may not.
        while let Some(connection) = self.take_idle() {
            match connection.run(command, stdin).await {
                Err(Broken::Before(_)) => {}
                Err(Broken::During(e)) => return Err(e),
                Ok(output) => return Ok(self.give_back(connection, output)),
            }
        }
        let permit = self.handshakes.acquire().await.expect("the semaphore is never closed");
        let connection = Connection::open(self.address, &self.user, &self.keys).await?;
        drop(permit);
        match connection.run(command, stdin).await {
            Ok(output) => Ok(self.give_back(connection, output)),
            Err(Broken::During(e)) => Err(e),
            Err(Broken::Before(e)) => {
                Err(Error::new(Kind::Connection, format!("cannot begin `{command}` over SSH")).caused_by(e))
            }
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|connection| !connection.is_closed());
        idle.pop()
    }

    fn give_back(&self, connection: Connection, output: Output) -> Output {
        self.idle().push(connection);
        output
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
