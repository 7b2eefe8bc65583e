//! The handle itself.

use std::{
    ffi::OsStr,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{Sh, Spawn};
use crate::cluster::{member::Member, run::Run};

/// One machine of a cluster. Clones are handles to the same machine.
#[derive(Clone)]
pub struct Node {
    // Keeps the run's journal and keeper reachable for as long as anybody can talk to the machine.
    pub(in crate::cluster) run: Arc<Run>,
    pub(super) member: Arc<Member>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).field("ip", &self.ip()).finish()
    }
}

impl Node {
    pub(in crate::cluster) fn new(run: Arc<Run>, member: Arc<Member>) -> Self {
        Self { run, member }
    }

    /// The host name, known to all machines of the cluster.
    pub fn name(&self) -> &str {
        &self.member.plan.name
    }

    /// The address on the cluster's bridge; sockets of the test's body reach it.
    pub fn ip(&self) -> Ipv4Addr {
        self.member.plan.ip
    }

    /// The IPv6 address on the cluster's bridge, in `fd77::/64`; no name leads to it, because services that listen on IPv4
    /// alone would then seem to be down.
    pub fn ip6(&self) -> Ipv6Addr {
        self.member.plan.ip6
    }

    /// The hardware address.
    pub fn mac(&self) -> &str {
        &self.member.plan.mac
    }

    /// Runs a command line in the guest's shell, as root. Await the result; see [`Sh`].
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(node: Node) -> Result {
    /// let count = node.sh("wc -l").stdin("one\ntwo\n").await?.stdout();
    /// assert_eq!(count, "2");
    /// # Ok(())
    /// # }
    /// ```
    pub fn sh(&self, command: impl AsRef<OsStr>) -> Sh<'_> {
        Sh::new(self, command.as_ref())
    }

    /// Starts a command line in the guest's shell, as root, that runs beside the test. Await its start; see [`Spawn`].
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(node: Node) -> Result {
    /// let mut log = node.spawn("tail -f /var/log/messages").await?;
    /// while let Some(line) = log.stdout.next().await? {
    ///     if line.contains("ready") {
    ///         break;
    ///     }
    /// }
    /// log.kill().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn(&self, command: impl AsRef<OsStr>) -> Spawn<'_> {
        Spawn::new(self, command.as_ref())
    }
}
