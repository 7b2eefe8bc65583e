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
    time::timeout,
};

use super::{
    Keys,
    connection::Connection,
    exec::{Exec, Pump},
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

    /// Starts a command on a connection of its own; it runs until it ends, whether anybody waits for that or not. May be
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
    }
}

impl Pool {
    async fn exec(self: Arc<Self>, command: Vec<u8>) -> Result<Exec, Error> {
        // An idle connection may have died unnoticed with a reboot; a fresh one may not.
        while let Some(connection) = self.take_idle() {
            if let Ok((exec, pump)) = connection.start(command.clone()).await {
                self.clone().drive(connection, pump);
                return Ok(exec);
            }
        }
        let permit = self.handshakes.acquire().await.expect("the semaphore is never closed");
        let connection = Connection::open(self.address, &self.user, &self.keys).await?;
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

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
