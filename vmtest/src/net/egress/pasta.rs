//! The way out without privilege: `pasta`, which has an interface in the cluster's network and opens for each connection
//! through it one of its own in the network where it runs.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::SocketAddr,
};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    error::{Error, Kind},
    host::{SpawnRequest, find_program, timeout},
    net::bridge::failed,
    plan::EgressPlan,
};

const PROGRAM: &str = "pasta";
const INSTALL: &str = "pasta is not installed: run `sudo apt-get install -y passt`";
/// The network in which this thread is, for a child that is not in it.
const NETWORK: &str = "/proc/thread-self/ns/net";
/// It is ready in 10 ms; on a host that is busy with other tests, in some hundred.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// What it says where nothing takes it.
const NOISE: &str = "to syslog";

/// What this host lacks for it, with the remedy.
pub(super) fn missing() -> Option<String> {
    find_program(PROGRAM).is_none().then(|| INSTALL.to_owned())
}

/// What starts it, for a thread that is in the network to which the way leads; the calling one is in the cluster's. What
/// it says is in the second.
///
/// # Errors
/// [`Kind::Missing`] without `pasta`, [`Kind::Host`] when a file cannot be had.
pub(crate) fn pasta(plan: &EgressPlan, dir: &Path) -> Result<(SpawnRequest, Output), Error> {
    let program = find_program(PROGRAM).ok_or_else(|| Error::new(Kind::Missing, INSTALL))?;
    let cannot = |e: io::Error| Error::new(Kind::Host, "cannot start pasta").caused_by(e);
    let network = File::open(NETWORK).map_err(cannot)?;
    // Without a name, because no folder of the run is its own.
    let log = File::from(memfd_create("vmtest-pasta.log", MemfdFlags::CLOEXEC).map_err(|e| cannot(e.into()))?);
    let output = Output(log.try_clone().map_err(cannot)?);
    let request = SpawnRequest {
        program: program.display().to_string(),
        args: args(plan),
        dir: dir.to_owned(),
        stdout: None,
        log,
        // As its standard input, the one descriptor that all versions keep; the path of a thread of ours would lead it
        // nowhere, because it has given up the right to look at processes by then.
        fds: vec![(network.into(), 0)],
        one_cpu: false,
    };
    Ok((request, output))
}

fn args(plan: &EgressPlan) -> Vec<String> {
    let (address, gateway) = (plan.address.to_string(), plan.gateway.to_string());
    let (prefix, mtu) = (plan.prefix.to_string(), plan.mtu.to_string());
    let all: &[&[&str]] = &[
        &["--foreground", "--quiet", "--ipv4-only"],
        // In no direction is anything let through that was not asked for from inside.
        &["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"],
        // We say ourselves what it has to say.
        &["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"],
        &["--config-net", "--ns-ifname", &plan.uplink, "--mtu", &mtu],
        &["--address", &address, "--netmask", &prefix, "--gateway", &gateway],
        // Whoever may make clusters is root, of the host or of a namespace in which there may be nobody else.
        &["--runas", "0", "--netns-only", "--netns", "/proc/self/fd/0"],
    ];
    all.concat().into_iter().map(str::to_owned).collect()
}

/// What it has said.
#[derive(Debug)]
pub(crate) struct Output(File);

impl Output {
    /// All of it, for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let read = self.0.try_clone().and_then(|mut file| {
            file.rewind()?;
            file.read_to_string(&mut text)
        });
        // It is for a message about something else.
        drop(read);
        text.lines().filter(|line| !line.trim().is_empty() && !line.contains(NOISE)).collect::<Vec<_>>().join("; ")
    }
}

/// The interface of the cluster's network through which everything leaves, before it is there.
pub(crate) struct Uplink<S> {
    changes: S,
}

type Change = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

impl Uplink<()> {
    /// Listens from now on, in the network namespace of the calling thread, on the current runtime.
    ///
    /// # Errors
    /// [`Kind::Host`] when the kernel does not tell.
    pub(crate) fn awaited() -> Result<Uplink<impl Stream<Item = Change> + Unpin + Send>, Error> {
        let opened = new_multicast_connection(&[MulticastGroup::Ipv4Route]);
        let (connection, _, changes) = opened.map_err(|e| failed("watch the routes", e))?;
        tokio::spawn(connection);
        Ok(Uplink { changes })
    }
}

impl<S: Stream<Item = Change> + Unpin> Uplink<S> {
    /// Resolves when there is a way to everywhere, the last that is made.
    ///
    /// # Errors
    /// [`Kind::Timeout`] when it does not come.
    pub(crate) async fn up(mut self) -> Result<(), Error> {
        let wait = async {
            while let Some((message, _)) = self.changes.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = message.payload
                    && route.header.address_family == AddressFamily::Inet
                    && route.header.destination_prefix_length == 0
                {
                    return Ok(());
                }
            }
            Err(Error::new(Kind::Host, "the kernel does not tell of routes any more"))
        };
        let late = |_| {
            let message = format!("pasta has made no way out within {} s", READY_WITHIN.as_secs());
            Err(Error::new(Kind::Timeout, message).after(READY_WITHIN))
        };
        timeout(READY_WITHIN, wait).await.unwrap_or_else(late)
    }
}
