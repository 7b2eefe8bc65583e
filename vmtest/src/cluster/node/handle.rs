//! The handle itself.

use std::{
    ffi::OsStr,
    fmt,
    fs::OpenOptions,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
};

use super::{Sh, Spawn};
use crate::{
    cluster::{member::Member, run::Run},
    error::{Error, Kind, Phase},
    plan::ROOT,
};

/// One machine of a cluster. Clones are handles to the same machine, and work on any thread and any executor.
///
/// The machine lives as long as the test's body, whether a handle to it is left or not. A handle that outlives it is
/// harmless: each call that waits for the machine ends at once with [`Kind::TornDown`].
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

    /// The account by which it is reached.
    pub(crate) fn login(&self) -> &str {
        self.member.plan.login.as_deref().unwrap_or(ROOT)
    }

    /// The address on the first of its networks; sockets of the test's body reach it.
    pub fn ip(&self) -> Ipv4Addr {
        self.member.plan.first_interface().ip
    }

    /// The address on the network of this name, which is `default` for one that the test does not name.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a network on which it is not; the message lists those on which it is.
    pub fn ip_on(&self, network: &str) -> Result<Ipv4Addr, Error> {
        let interfaces = &self.member.plan.interfaces;
        interfaces.iter().find(|interface| interface.network == network).map(|interface| interface.ip).ok_or_else(
            || {
                let on: Vec<_> = interfaces.iter().map(|interface| format!("`{}`", interface.network)).collect();
                let message = format!("it is not on the network `{network}`, but on {}", on.join(", "));
                Error::new(Kind::Spec, message).on_node(self.name()).in_phase(Phase::Body)
            },
        )
    }

    /// The IPv6 address on the first of its networks, in `fd77::/64` if that is the default one; no name leads to it, because services that listen on IPv4
    /// alone would then seem to be down.
    pub fn ip6(&self) -> Ipv6Addr {
        self.member.plan.first_interface().ip6
    }

    /// The hardware address on the first of its networks.
    pub fn mac(&self) -> &str {
        &self.member.plan.first_interface().mac
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

    /// Starts the service of the image of a container (`image = "oci:.."`) beside the test: its entrypoint and command, in its
    /// working directory, with its environment and as its user. Await its start, as with [`spawn`](Self::spawn).
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(web: Node) -> Result {
    /// let _service = web.entrypoint()?.await?;
    /// web.wait_for_port(80).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Spec`] where the image has none.
    pub fn entrypoint(&self) -> Result<Spawn<'_>, Error> {
        let program = self.member.plan.entrypoint.as_ref().ok_or_else(|| {
            let message = "its image says of no program that it is its service: only the image of a container does, by its \
                           entrypoint or its command";
            Error::new(Kind::Spec, message).on_node(self.name()).in_phase(Phase::Body)
        })?;
        Ok(self.spawn(format!("exec {program}")))
    }

    /// A command that logs in to the machine with OpenSSH, for tools that bring their own client: rsync, ansible, a
    /// person's terminal. It works where the cluster's network is: in a child of the body, or in
    /// [`enter`](crate::Cluster::enter). Key and host key are files of the run and vanish with it.
    ///
    /// # Errors
    /// [`Kind::Host`] when the files cannot be written, [`Kind::TornDown`] when their place is gone with the cluster.
    pub fn ssh_command(&self) -> Result<std::process::Command, Error> {
        let SshFiles { key, known_hosts } = self.ssh_files()?;
        let mut command = std::process::Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display())).arg("-i").arg(key);
        command.arg(format!("{}@{}", self.login(), self.ip()));
        Ok(command)
    }

    /// Writes what OpenSSH needs.
    ///
    /// # Errors
    /// Those of [`ssh_command`](Self::ssh_command).
    pub(crate) fn ssh_files(&self) -> Result<SshFiles, Error> {
        let (key, known_hosts) = (self.member.dir.join("ssh_key"), self.member.dir.join("known_hosts"));
        let known_host = format!("{} {}\n", self.ip(), self.run.keys.known_host());
        for (path, content) in [(&key, self.run.keys.client_private()), (&known_hosts, known_host)] {
            let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
            let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
            let failed = |e| Error::new(Kind::Host, format!("cannot write {}", path.display())).caused_by(e);
            written.map_err(|e| self.member.or_torn_down(failed(e)))?;
        }
        Ok(SshFiles { key, known_hosts })
    }
}

/// What of a run OpenSSH reads.
#[derive(Debug)]
pub(crate) struct SshFiles {
    pub(crate) key: PathBuf,
    pub(crate) known_hosts: PathBuf,
}
