//! Reaching what listens on a machine.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use super::{Node, sh::Running};
use crate::{
    cluster::{member::Member, run::Run},
    error::{Error, Kind, Phase},
};

/// Ports.
impl Node {
    /// Connects to a TCP port of the machine, from anywhere: from the body, from another thread, from outside of the
    /// cluster's network. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::Connection`] when nobody listens there; [`wait_for_port`](Self::wait_for_port) waits for somebody.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, Error> {
        let member = self.member.clone();
        Running::on(self, async move { member.while_alive(connect(&member, port)).await }).await
    }

    /// Makes a TCP port of the machine reachable at a local address of the host, outside of the cluster's network, for
    /// as long as the result lives: for a browser, a debugger, a client that is not part of the test.
    ///
    /// Whether anybody listens on the machine is found out by each connection; one that finds nobody is closed.
    ///
    /// # Errors
    /// [`Kind::Host`] when no local port is free.
    pub async fn forward(&self, port: u16) -> Result<Forward, Error> {
        let (run, member) = (self.run.clone(), self.member.clone());
        let work = async move {
            let failed = |e| Error::new(Kind::Host, format!("cannot forward port {port}")).caused_by(e);
            // On a thread of the original network, where the listener belongs.
            let listening = run.outside.spawn(TcpListener::bind(("127.0.0.1", 0))).await;
            let listener = listening.map_err(io::Error::other).flatten().map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let serving = run.outside.spawn(serve(listener, run.clone(), member, port)).abort_handle();
            Ok(Forward { address, serving })
        };
        Running::on(self, work).await
    }
}

/// A port of a machine at a local address. Dropped, it closes with all connections through it.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Forward {
    /// Where it is, on the host's loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, run: Arc<Run>, member: Arc<Member>, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut near, _)) = listener.accept().await else { return };
        let (engine, member) = (run.engine.clone(), member.clone());
        connections.spawn(async move {
            // On a thread of the cluster's network.
            let far = engine.spawn(async move { connect(&member, port).await }).await;
            if let Ok(Ok(mut far)) = far {
                // Either side may end it in any way; the other one sees how.
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(member: &Member, port: u16) -> Result<TcpStream, Error> {
    TcpStream::connect((member.plan.first_interface().ip, port)).await.map_err(|e| {
        let why = match e.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("nobody listens on port {port}; `wait_for_port` waits for a service to start")
            }
            _ => format!("cannot connect to port {port}"),
        };
        Error::new(Kind::Connection, why).caused_by(e).on_node(&member.plan.name).in_phase(Phase::Body)
    })
}
