//! What a machine would be asked, and what would come of it.

use std::{
    borrow::Cow,
    ffi::OsStr,
    future::Future,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use vmtest_fixtures::Fixture;

use super::node::Node;
use crate::{elsewhere::Never, error::Error};

/// A command.
#[derive(Debug, Clone)]
#[must_use = "a command runs when it is awaited"]
pub struct Sh<'a>(Never, PhantomData<&'a Node>);

impl Sh<'_> {
    /// Its standard input.
    pub fn stdin(self, _bytes: impl Into<Vec<u8>>) -> Self {
        match self.0 {}
    }

    /// A variable of its environment.
    pub fn env(self, _name: impl AsRef<OsStr>, _value: impl AsRef<OsStr>) -> Self {
        match self.0 {}
    }

    /// Who runs it.
    pub fn user(self, _name: impl Into<String>) -> Self {
        match self.0 {}
    }

    /// How long it may run.
    pub fn timeout(self, _limit: Duration) -> Self {
        match self.0 {}
    }

    /// A non-zero exit code is no error.
    pub fn unchecked(self) -> Self {
        match self.0 {}
    }
}

impl IntoFuture for Sh<'_> {
    type Output = Result<Output, Error>;
    type IntoFuture = Running<Output>;

    fn into_future(self) -> Self::IntoFuture {
        match self.0 {}
    }
}

/// Something that runs on a machine.
#[derive(Debug)]
pub struct Running<T>(Never, PhantomData<T>);

impl<T> Future for Running<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0 {}
    }
}

/// A process that is to be started.
#[derive(Debug, Clone)]
#[must_use = "a process starts when it is awaited"]
pub struct Spawn<'a>(Never, PhantomData<&'a Node>);

impl Spawn<'_> {
    /// A variable of its environment.
    pub fn env(self, _name: impl AsRef<OsStr>, _value: impl AsRef<OsStr>) -> Self {
        match self.0 {}
    }

    /// Who runs it.
    pub fn user(self, _name: impl Into<String>) -> Self {
        match self.0 {}
    }
}

impl IntoFuture for Spawn<'_> {
    type Output = Result<Process, Error>;
    type IntoFuture = Running<Process>;

    fn into_future(self) -> Self::IntoFuture {
        match self.0 {}
    }
}

/// A process that runs beside the test.
#[derive(Debug)]
pub struct Process {
    /// What it prints.
    pub stdout: Lines,
    /// What it complains of.
    pub stderr: Lines,
    never: Never,
}

impl Process {
    /// Writes to its standard input.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn write(&self, _bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        match self.never {}
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn close_stdin(&self) -> Result<(), Error> {
        match self.never {}
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        match self.never {}
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn signal(&self, _signal: &str) -> Result<(), Error> {
        match self.never {}
    }

    /// Kills it with all that it has started.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.never {}
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit(Never);

impl Exit {
    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        match self.0 {}
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<&str> {
        match self.0 {}
    }

    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        match self.0 {}
    }
}

/// One stream of a process.
#[derive(Debug)]
pub struct Lines(Never);

impl Lines {
    /// The next line.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        match self.0 {}
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.0 {}
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output(Never);

impl Output {
    /// Standard output as text.
    pub fn stdout(&self) -> String {
        match self.0 {}
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        match self.0 {}
    }

    /// Standard output, byte for byte.
    pub fn stdout_raw(&self) -> Cow<'_, [u8]> {
        match self.0 {}
    }

    /// Standard error, byte for byte.
    pub fn stderr_raw(&self) -> Cow<'_, [u8]> {
        match self.0 {}
    }

    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        match self.0 {}
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<&str> {
        match self.0 {}
    }

    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        match self.0 {}
    }

    /// How long it ran.
    pub fn elapsed(&self) -> Duration {
        match self.0 {}
    }
}

/// What a machine is waited for. It can be said anywhere.
#[derive(Debug, Clone)]
pub struct Condition(());

impl Condition {
    /// A port accepts connections.
    pub fn port(_port: u16) -> Self {
        Self(())
    }

    /// A unit of systemd is active.
    pub fn unit(_name: impl Into<String>) -> Self {
        Self(())
    }

    /// A command succeeds.
    pub fn command(_command: impl AsRef<OsStr>) -> Self {
        Self(())
    }

    /// The console has shown this.
    pub fn console(_pattern: &str) -> Self {
        Self(())
    }

    /// Both.
    #[must_use]
    pub fn and(self, _other: Self) -> Self {
        self
    }

    /// One of both.
    #[must_use]
    pub fn or(self, _other: Self) -> Self {
        self
    }
}

/// A wait.
#[derive(Debug, Clone)]
#[must_use = "a wait begins when it is awaited"]
pub struct Wait<'a>(Never, PhantomData<&'a Node>);

impl Wait<'_> {
    /// How long it may take.
    pub fn within(self, _limit: Duration) -> Self {
        match self.0 {}
    }
}

impl IntoFuture for Wait<'_> {
    type Output = Result<(), Error>;
    type IntoFuture = Running<()>;

    fn into_future(self) -> Self::IntoFuture {
        match self.0 {}
    }
}

/// A port of a machine on the loopback.
#[derive(Debug)]
pub struct Forward(Never);

impl Forward {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self.0 {}
    }
}

/// The lines of a serial console.
#[derive(Debug)]
pub struct ConsoleLines(Never);

impl ConsoleLines {
    /// The next line.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn next(&mut self) -> Result<String, Error> {
        match self.0 {}
    }
}

/// A disk that is to be plugged in. It can be said anywhere.
#[derive(Debug, Clone)]
pub struct NewDisk(());

impl NewDisk {
    /// An empty one of so many bytes.
    pub fn blank(_bytes: u64) -> Self {
        Self(())
    }
}

impl<T: Into<Fixture>> From<T> for NewDisk {
    fn from(_fixture: T) -> Self {
        Self(())
    }
}

/// A disk that is plugged in.
#[derive(Debug, Clone)]
pub struct Disk(Never);

impl Disk {
    /// Where it is mounted.
    pub fn at(&self) -> &str {
        match self.0 {}
    }

    /// Unplugs it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn detach(self) -> Result<(), Error> {
        match self.0 {}
    }
}

/// A machine as it was saved.
#[derive(Debug, Clone)]
pub struct Snapshot(Never);
