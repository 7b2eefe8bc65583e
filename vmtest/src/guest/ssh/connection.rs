//! One connection, which runs one command at a time.

use std::{borrow::Cow, io, net::SocketAddr, sync::Arc, time::Duration};

use russh::{
    Preferred, cipher,
    client::{self, Handle},
    compression, kex,
    keys::{Algorithm, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
    mac,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Keys,
    exec::{Exec, Pump},
};
use crate::error::{Error, Kind};

/// A key exchange and a public-key authentication take 60 ms on a host and under a second under emulation.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(20);

/// How long a server that turned us away is left alone; under emulation dropbear forgets a client in about 20 ms.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(50);

/// An authenticated connection to one guest.
pub(super) struct Connection {
    handle: Handle<PinnedHost>,
}

impl Connection {
    /// Connects, or goes on with a connection whose server has identified itself, checks the host's key against the run's,
    /// and authenticates.
    ///
    /// A server that turns us away before it has asked who we are is asked again: dropbear counts its clients that have
    /// not authenticated, and still counts those that have just left.
    ///
    /// # Errors
    /// [`Kind::Connection`], saying which of the three failed.
    pub(super) async fn open(
        mut greeted: Option<TcpStream>,
        address: SocketAddr,
        user: &str,
        keys: &Keys,
    ) -> Result<Self, Error> {
        let mut turned_away = None;
        let handshakes = async {
            loop {
                match Self::handshake(greeted.take(), address, user, keys).await {
                    Ok(connection) => return Ok(connection),
                    Err(Refused::Final(e)) => return Err(e),
                    Err(Refused::Ssh(e)) => turned_away = Some(e),
                }
                sleep(TURNED_AWAY_PAUSE).await;
            }
        };
        if let Ok(opened) = timeout(HANDSHAKE_WITHIN, handshakes).await {
            return opened;
        }
        let message = format!("the SSH server at {address} did not finish its handshake in {HANDSHAKE_WITHIN:?}");
        let error = Error::new(Kind::Connection, message);
        Err(match turned_away {
            Some(e) => error.caused_by(e),
            None => error,
        })
    }

    async fn handshake(
        greeted: Option<TcpStream>,
        address: SocketAddr,
        user: &str,
        keys: &Keys,
    ) -> Result<Self, Refused> {
        let failed = |what: &str| Error::new(Kind::Connection, format!("cannot {what} at {address} over SSH"));
        let host = PinnedHost { expected: keys.host_public(), address };
        let connect = async {
            let stream = match greeted {
                Some(stream) => stream,
                None => TcpStream::connect(address).await.map_err(russh::Error::IO)?,
            };
            stream.set_nodelay(true).map_err(russh::Error::IO)?;
            client::connect_stream(Arc::new(config()), stream, host).await
        };
        let mut handle = connect.await.map_err(|e| match e {
            Refused::Ssh(russh::Error::IO(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let message = format!("the guest's SSH server at {address} is gone; its console may say why");
                Refused::Final(Error::new(Kind::Connection, message).caused_by(e))
            }
            Refused::Ssh(e) if !turns_away(&e) => Refused::Final(failed("connect").caused_by(e)),
            e => e,
        })?;
        let key = PrivateKeyWithHashAlg::new(keys.client(), None);
        let accepted = handle.authenticate_publickey(user, key).await;
        if !accepted.map_err(|e| Refused::Final(failed("authenticate").caused_by(e)))?.success() {
            let why = format!("the guest refuses the key of this run for `{user}`");
            return Err(Refused::Final(failed("authenticate").caused_by(why)));
        }
        Ok(Self { handle })
    }

    /// Whether the other side has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Starts one command. The pump must be run until the command has ended, and nothing else be started before.
    ///
    /// # Errors
    /// When the command has certainly not begun.
    pub(super) async fn start(&self, command: Vec<u8>) -> Result<(Exec, Pump), russh::Error> {
        let (reader, writer) = self.handle.channel_open_session().await?.split();
        writer.exec(true, command).await?;
        Ok(Exec::new(reader, writer))
    }
}

/// One choice for each algorithm: AES crawls in the debug builds that users run.
fn config() -> client::Config {
    client::Config {
        nodelay: true,
        preferred: Preferred {
            kex: Cow::Borrowed(&[kex::CURVE25519, kex::CURVE25519_PRE_RFC_8731]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            cipher: Cow::Borrowed(&[cipher::CHACHA20_POLY1305]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA256]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

/// Whether the server closed the connection without a word about why.
fn turns_away(error: &russh::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        russh::Error::IO(e) => matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof),
        russh::Error::Disconnect | russh::Error::HUP => true,
        _ => false,
    }
}

struct PinnedHost {
    expected: [u8; 32],
    address: SocketAddr,
}

/// How a handshake failed.
#[derive(Debug)]
enum Refused {
    /// Another try may succeed.
    Ssh(russh::Error),
    /// No other try will.
    Final(Error),
}

impl From<russh::Error> for Refused {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for PinnedHost {
    type Error = Refused;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Refused> {
        let known = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data().ed25519(),
            PublicKeyOrCertificate::Certificate(_) => None,
        };
        if known.is_some_and(|key| key.0 == self.expected) {
            return Ok(true);
        }
        let message = format!("the SSH server at {} has another host key than this run gave it", self.address);
        Err(Refused::Final(Error::new(Kind::Connection, message)))
    }
}

#[cfg(test)]
mod tests {
    use russh::{
        keys::PrivateKey,
        server::{self, Auth, VerifiedPublicKey, run_stream},
    };
    use tokio::net::TcpListener;

    use super::*;

    /// Lets in whoever has the key of the run.
    struct Door(Keys);

    impl server::Handler for Door {
        type Error = russh::Error;

        async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
            let known = key.public_key.to_openssh().is_ok_and(|line| line == self.0.authorized_key());
            Ok(if known { Auth::Accept } else { Auth::reject() })
        }
    }

    /// Serves one connection with the keys of a run, after it has turned away some.
    async fn serve(listener: TcpListener, keys: Keys, turned_away: usize) {
        for _ in 0..turned_away {
            drop(listener.accept().await.unwrap());
        }
        let config = server::Config {
            keys: vec![PrivateKey::from(keys.host())],
            auth_rejection_time: Duration::ZERO,
            ..server::Config::default()
        };
        let (stream, _) = listener.accept().await.unwrap();
        let session = run_stream(Arc::new(config), stream, Door(keys)).await.unwrap();
        // The client may have left before the session ends.
        drop(session.await);
    }

    async fn open(server: &Keys, client: &Keys, turned_away: usize) -> Result<Connection, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, server.clone(), turned_away));
        let opened = Connection::open(None, address, "root", client).await;
        server.abort();
        opened
    }

    #[tokio::test]
    async fn a_server_that_turns_clients_away_is_asked_again() {
        let keys = Keys::generate().unwrap();
        assert!(open(&keys, &keys, 3).await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_with_a_banner_is_gone_on_with() {
        let keys = Keys::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It takes one connection and no other.
        let server = tokio::spawn(serve(listener, keys.clone(), 0));
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(stream.peek(&mut [0; 8]).await.unwrap(), 8);
        assert!(Connection::open(Some(stream), address, "root", &keys).await.is_ok());
        server.abort();
    }

    #[tokio::test]
    async fn another_host_key_is_refused() {
        let (keys, others) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let error = open(&others, &keys, 0).await.err().unwrap();
        assert!(error.to_string().contains("has another host key than this run gave it"), "{error}");
    }

    #[tokio::test]
    async fn a_refused_key_is_said() {
        let keys = Keys::generate().unwrap();
        let stranger = keys.with_client_of(&Keys::generate().unwrap());
        let error = open(&keys, &stranger, 0).await.err().unwrap();
        assert!(error.to_string().contains("the guest refuses the key of this run for `root`"), "{error}");
    }
}
