//! One connection, which runs one command at a time.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russh::{
    ChannelMsg, Preferred, cipher,
    client::{self, Handle},
    compression, kex,
    keys::{Algorithm, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
    mac,
};

use super::{Keys, Output, output::Captured};
use crate::error::{Error, Kind};

/// Extended data of this kind is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// A key exchange and a public-key authentication take 60 ms on a host and under a second under emulation.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(20);

/// An authenticated connection to one guest.
pub(super) struct Connection {
    handle: Handle<PinnedHost>,
}

impl Connection {
    /// Connects, checks the host's key against the run's, and authenticates.
    ///
    /// # Errors
    /// [`Kind::Connection`], saying which of the three failed.
    pub(super) async fn open(address: SocketAddr, user: &str, keys: &Keys) -> Result<Self, Error> {
        let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, Self::handshake(address, user, keys));
        handshake.await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Connection,
                format!("the SSH server at {address} did not finish its handshake in {HANDSHAKE_WITHIN:?}"),
            ))
        })
    }

    async fn handshake(address: SocketAddr, user: &str, keys: &Keys) -> Result<Self, Error> {
        let failed = |what: &str| Error::new(Kind::Connection, format!("cannot {what} at {address} over SSH"));
        let host = PinnedHost { expected: keys.host_public() };
        let mut handle = client::connect(Arc::new(config()), address, host).await.map_err(|e| match e {
            Refused::WrongHost => Error::new(
                Kind::Connection,
                format!("the SSH server at {address} has another host key than this run gave it"),
            ),
            Refused::Ssh(e) => failed("connect").caused_by(e),
        })?;
        let key = PrivateKeyWithHashAlg::new(keys.client(), None);
        let accepted =
            handle.authenticate_publickey(user, key).await.map_err(|e| failed("authenticate").caused_by(e))?;
        if !accepted.success() {
            return Err(failed("authenticate").caused_by(format!("the guest refuses the key of this run for `{user}`")));
        }
        Ok(Self { handle })
    }

    /// Whether the other side has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Runs one command to its end.
    ///
    /// # Errors
    /// `Before` when the command has certainly not begun, `During` when it may have.
    pub(super) async fn run(&self, command: &str, stdin: Option<&[u8]>) -> Result<Output, Broken> {
        let began = Instant::now();
        let mut channel = self.handle.channel_open_session().await.map_err(Broken::Before)?;
        channel.exec(true, command).await.map_err(Broken::Before)?;
        let lost = |why: String| {
            let seconds = began.elapsed().as_secs_f64();
            Broken::During(Error::new(
                Kind::Connection,
                format!("the connection broke after {seconds:.1} s of `{command}`: {why}"),
            ))
        };
        let writer = channel.make_writer();
        let feed = async {
            if let Some(stdin) = stdin {
                let mut writer = writer;
                // A command that ends before it has read its input is no error of ours.
                drop(tokio::io::AsyncWriteExt::write_all(&mut writer, stdin).await);
                drop(tokio::io::AsyncWriteExt::shutdown(&mut writer).await);
            }
            std::future::pending::<()>().await;
        };
        let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
        let (mut code, mut signal) = (None, None);
        let pump = async {
            while let Some(message) = channel.wait().await {
                let kept = match message {
                    ChannelMsg::Data { data } => stdout.push(&data),
                    ChannelMsg::ExtendedData { data, ext: STDERR } => stderr.push(&data),
                    ChannelMsg::ExitStatus { exit_status } => {
                        code = Some(exit_status.cast_signed());
                        Ok(())
                    }
                    ChannelMsg::ExitSignal { signal_name, .. } => {
                        signal = Some(signal_of(&signal_name));
                        Ok(())
                    }
                    ChannelMsg::Failure => return Err("the server refused to run it".to_owned()),
                    // The exit status may come after the end of the output, so only the close ends the command.
                    ChannelMsg::Close => break,
                    _ => Ok(()),
                };
                kept.map_err(|e| format!("cannot keep its output: {e}"))?;
            }
            Ok(())
        };
        tokio::select! {
            pumped = pump => pumped.map_err(lost)?,
            () = feed => {}
        }
        if code.is_none() && signal.is_none() {
            return Err(lost("it ended without an exit status".to_owned()));
        }
        Ok(Output { stdout, stderr, code, signal, elapsed: began.elapsed() })
    }
}

/// How a command could not be run to its end.
pub(super) enum Broken {
    Before(russh::Error),
    During(Error),
}

fn signal_of(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
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

struct PinnedHost {
    expected: [u8; 32],
}

#[derive(Debug)]
enum Refused {
    WrongHost,
    Ssh(russh::Error),
}

impl From<russh::Error> for Refused {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for PinnedHost {
    type Error = Refused;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Refused> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Err(Refused::WrongHost) };
        match key.key_data().ed25519() {
            Some(key) if key.0 == self.expected => Ok(true),
            _ => Err(Refused::WrongHost),
        }
    }
}
