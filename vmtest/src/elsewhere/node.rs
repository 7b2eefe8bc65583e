//! What would be asked of a machine, with the signatures of the handle that Linux has.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use tokio::net::TcpStream;

use super::{
    asked::{Condition, ConsoleLines, Disk, Forward, NewDisk, Sh, Snapshot, Spawn, Wait},
    power::{Liveness, State},
};
use crate::{elsewhere::Never, error::Error};

/// A machine.
#[derive(Debug, Clone)]
pub struct Node(Never);

impl Node {
    /// Its host name.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// Its address on the first of its networks.
    pub fn ip(&self) -> Ipv4Addr {
        match self.0 {}
    }

    /// Its address on one of its networks.
    ///
    /// # Errors
    /// When it is not on it.
    pub fn ip_on(&self, _network: &str) -> Result<Ipv4Addr, Error> {
        match self.0 {}
    }

    /// Its IPv6 address on the first of its networks.
    pub fn ip6(&self) -> Ipv6Addr {
        match self.0 {}
    }

    /// Its hardware address there.
    pub fn mac(&self) -> &str {
        match self.0 {}
    }

    /// A command, to be awaited.
    pub fn sh(&self, _command: impl AsRef<OsStr>) -> Sh<'_> {
        match self.0 {}
    }

    /// A process that runs beside the test, to be awaited.
    pub fn spawn(&self, _command: impl AsRef<OsStr>) -> Spawn<'_> {
        match self.0 {}
    }

    /// The service of its image, to be awaited.
    ///
    /// # Errors
    /// Where the image has none.
    pub fn entrypoint(&self) -> Result<Spawn<'_>, Error> {
        match self.0 {}
    }

    /// What its screen shows.
    ///
    /// # Errors
    /// Where it has none.
    pub async fn screenshot(&self) -> Result<Vec<u8>, Error> {
        match self.0 {}
    }

    /// The command line of OpenSSH that logs in.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub fn ssh_command(&self) -> Result<std::process::Command, Error> {
        match self.0 {}
    }

    /// What its serial console has shown.
    pub fn console(&self) -> Vec<String> {
        match self.0 {}
    }

    /// The lines of the serial console, from the first.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub fn console_lines(&self) -> Result<ConsoleLines, Error> {
        match self.0 {}
    }

    /// Connects to a TCP port of it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn connect(&self, _port: u16) -> Result<TcpStream, Error> {
        match self.0 {}
    }

    /// Listens on the loopback for a port of it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn forward(&self, _port: u16) -> Result<Forward, Error> {
        match self.0 {}
    }

    /// Gives it so much memory, in bytes.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn set_memory(&self, _bytes: u64) -> Result<(), Error> {
        match self.0 {}
    }

    /// Gives it so many CPUs.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn set_cpus(&self, _count: u32) -> Result<(), Error> {
        match self.0 {}
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        match self.0 {}
    }

    /// What is known of its life, now.
    pub async fn liveness(&self) -> Liveness {
        match self.0 {}
    }

    /// Cuts its power.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn kill(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Asks it to shut down.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn shutdown(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn start(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Reboots it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn reboot(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Stops its CPUs.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn pause(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn resume(&self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Saves it while it runs.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        match self.0 {}
    }

    /// Goes back to what was saved.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn restore(&self, _to: &Snapshot) -> Result<(), Error> {
        match self.0 {}
    }

    /// Plugs a disk in.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn attach(&self, _disk: impl Into<NewDisk>, _at: impl Into<String>) -> Result<Disk, Error> {
        match self.0 {}
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn read(&self, _path: impl AsRef<OsStr>) -> Result<Vec<u8>, Error> {
        match self.0 {}
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn write(&self, _path: impl AsRef<OsStr>, _content: impl Into<Vec<u8>>) -> Result<(), Error> {
        match self.0 {}
    }

    /// Copies a file or a tree to it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn upload(&self, _from: impl AsRef<Path>, _to: impl AsRef<OsStr>) -> Result<(), Error> {
        match self.0 {}
    }

    /// Copies a file or a tree from it.
    ///
    /// # Errors
    /// When it ends, or is not in a state for this.
    pub async fn download(&self, _from: impl AsRef<OsStr>, _to: impl AsRef<Path>) -> Result<(), Error> {
        match self.0 {}
    }

    /// Waits for a condition.
    pub fn wait_for(&self, _condition: Condition) -> Wait<'_> {
        match self.0 {}
    }

    /// Waits until a port accepts connections.
    pub fn wait_for_port(&self, _port: u16) -> Wait<'_> {
        match self.0 {}
    }

    /// Waits until a unit of systemd is active.
    pub fn wait_for_unit(&self, _name: impl Into<String>) -> Wait<'_> {
        match self.0 {}
    }

    /// Waits until a command succeeds.
    pub fn wait_until(&self, _command: impl AsRef<OsStr>) -> Wait<'_> {
        match self.0 {}
    }

    /// Waits for a line of the console.
    pub fn wait_for_console(&self, _pattern: &str) -> Wait<'_> {
        match self.0 {}
    }
}
