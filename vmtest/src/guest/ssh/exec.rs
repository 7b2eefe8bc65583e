//! A command that runs on a connection of its own.

use std::{io, sync::Arc, time::Instant};

use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::sync::watch;

use super::{Output, spool::Spool};
use crate::error::{Error, Kind};

/// Extended data of this kind is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// A running command. Its output is taken from the connection as it comes, read or not.
pub(crate) struct Exec {
    pub(crate) stdout: Arc<Spool>,
    pub(crate) stderr: Arc<Spool>,
    input: Arc<ChannelWriteHalf<Msg>>,
    end: watch::Receiver<Option<Result<ExitStatus, String>>>,
    began: Instant,
}

/// The standard input of a running command.
#[derive(Clone)]
pub(crate) struct Input {
    channel: Arc<ChannelWriteHalf<Msg>>,
    end: watch::Receiver<Option<Result<ExitStatus, String>>>,
}

impl Input {
    /// Writes; resolves when the guest has room for it. Not cancel-safe: a part may be written.
    ///
    /// # Errors
    /// When the command has ended, or its connection has.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut end = self.end.clone();
        tokio::select! {
            // A channel that is closed never gets room again.
            _ = end.wait_for(Option::is_some) => Err(io::ErrorKind::BrokenPipe.into()),
            written = self.channel.data_bytes(bytes) => written.map_err(io::Error::other),
        }
    }

    /// Nothing more will be written.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.channel.eof().await.map_err(io::Error::other)
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExitStatus {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<String>,
}

/// The half of a running command that the engine drives.
pub(super) struct Pump {
    channel: ChannelReadHalf,
    stdout: Arc<Spool>,
    stderr: Arc<Spool>,
    end: watch::Sender<Option<Result<ExitStatus, String>>>,
}

impl Exec {
    pub(super) fn new(channel: ChannelReadHalf, input: ChannelWriteHalf<Msg>) -> (Self, Pump) {
        let (stdout, stderr) = (Arc::new(Spool::default()), Arc::new(Spool::default()));
        let (tell, end) = watch::channel(None);
        let pump = Pump { channel, stdout: stdout.clone(), stderr: stderr.clone(), end: tell };
        (Self { stdout, stderr, input: Arc::new(input), end, began: Instant::now() }, pump)
    }

    /// Where its standard input is written; may be kept beyond the command.
    pub(crate) fn input(&self) -> Input {
        Input { channel: self.input.clone(), end: self.end.clone() }
    }

    /// Waits for its end. Cancel-safe; may be called again.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the connection broke before.
    pub(crate) async fn ended(&self) -> Result<ExitStatus, Error> {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        let end = end.unwrap_or_else(|| Err("the cluster is being torn down".to_owned()));
        end.map_err(|why| {
            let after = self.began.elapsed();
            let seconds = after.as_secs_f64();
            Error::new(
                Kind::Connection,
                format!("the connection broke {seconds:.1} s after the start of the command: {why}"),
            )
        })
    }

    /// What it printed and was not read, with how it ended.
    pub(crate) fn output(&self, status: ExitStatus) -> Output {
        let ExitStatus { code, signal } = status;
        let (stdout, stderr) = (self.stdout.take_captured(), self.stderr.take_captured());
        Output { stdout, stderr, code, signal, elapsed: self.began.elapsed() }
    }
}

impl Pump {
    /// Takes everything that the command prints, until it has ended. Whether its connection can be used again.
    pub(super) async fn run(mut self) -> bool {
        let mut status = ExitStatus::default();
        let pumped = self.drain(&mut status).await;
        // Before its end is told, so that whoever waits for that finds all of its output.
        self.stdout.close();
        self.stderr.close();
        let end = match pumped {
            Ok(()) if status == ExitStatus::default() => Err("it ended without an exit status".to_owned()),
            Ok(()) => Ok(status),
            Err(why) => Err(why),
        };
        let usable = end.is_ok();
        self.end.send_replace(Some(end));
        usable
    }

    async fn drain(&mut self, status: &mut ExitStatus) -> Result<(), String> {
        while let Some(message) = self.channel.wait().await {
            let kept = match message {
                ChannelMsg::Data { data } => self.stdout.push(&data),
                ChannelMsg::ExtendedData { data, ext: STDERR } => self.stderr.push(&data),
                ChannelMsg::ExitStatus { exit_status } => {
                    status.code = Some(exit_status.cast_signed());
                    Ok(())
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    status.signal = Some(name_of(&signal_name));
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
    }
}

impl Drop for Pump {
    /// One that is dropped with its runtime will bring nothing more either.
    fn drop(&mut self) {
        self.stdout.close();
        self.stderr.close();
    }
}

fn name_of(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
