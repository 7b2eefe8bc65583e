//! The name server of the machines: what it is asked, it asks the host's, in the host's network.

use std::{
    fs,
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Handle,
    task::JoinSet,
    time::timeout,
};

use crate::error::{Error, Kind};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// How many of them are asked, as everywhere (`resolv.conf(5)`).
const SERVERS: usize = 3;
/// How long one may take: whoever asks gives up, or asks once more, after 5 s (`resolv.conf(5)`), and two fit into that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// How long a connection may last: transfers of zones are not for us.
const CONNECTION_WITHIN: Duration = Duration::from_secs(10);
/// Questions and connections at a time; what comes then is dropped, and asked again by whoever asks.
const AT_ONCE: usize = 64;
/// The largest datagram.
const DATAGRAM: usize = 65_535;
/// The header of a message (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// A name server that listens.
#[derive(Debug)]
pub(crate) struct Relay {
    datagrams: Arc<UdpSocket>,
    connections: TcpListener,
    upstream: Upstream,
}

/// The servers that it asks, and the runtime in whose network they are.
#[derive(Debug, Clone)]
struct Upstream {
    servers: Arc<[SocketAddr]>,
    outside: Handle,
}

impl Relay {
    /// Listens on this address, in the network namespace of the calling thread, for what the name servers of this host
    /// shall be asked, in the network of the other runtime.
    ///
    /// # Errors
    /// [`Kind::Host`] when it cannot listen.
    pub(crate) async fn bind(address: Ipv4Addr, outside: Handle) -> Result<Self, Error> {
        Self::bind_to((address, PORT).into(), servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default()), outside)
            .await
            .map_err(|e| Error::new(Kind::Host, format!("cannot serve names on {address}")).caused_by(e))
    }

    async fn bind_to(address: SocketAddr, servers: Vec<SocketAddr>, outside: Handle) -> io::Result<Self> {
        let connections = TcpListener::bind(address).await?;
        let datagrams = Arc::new(UdpSocket::bind(connections.local_addr()?).await?);
        Ok(Self { datagrams, connections, upstream: Upstream { servers: servers.into(), outside } })
    }

    /// Answers for ever; dropped, everything that it does ends.
    pub(crate) async fn serve(self) {
        let mut work = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let busy = work.len() >= AT_ONCE;
            tokio::select! {
                // What was asked for is done; nobody waits for its result here.
                _ = work.join_next(), if !work.is_empty() => {}
                received = self.datagrams.recv_from(&mut datagram) => match received {
                    Ok((length, from)) if !busy => {
                        let (query, to, upstream) = (datagram[..length].to_vec(), self.datagrams.clone(), self.upstream.clone());
                        work.spawn(async move {
                            let Some(answer) = upstream.answer(&query).await else { return };
                            // Whoever asked may be gone.
                            _ = to.send_to(&answer, from).await;
                        });
                    }
                    Ok(_) => {}
                    Err(e) => tracing::debug!("a question for a name was lost: {e}"),
                },
                accepted = self.connections.accept(), if !busy => match accepted {
                    Ok((connection, _)) => {
                        let upstream = self.upstream.clone();
                        work.spawn(async move { drop(timeout(CONNECTION_WITHIN, upstream.connect(connection)).await) });
                    }
                    Err(e) => {
                        tracing::warn!("the machines' name server takes no connections any more: {e}");
                        return pending().await;
                    }
                },
            }
        }
    }
}

impl Upstream {
    /// The first answer of one of the servers, or that there is none; `None` for what is no question.
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let failure = server_failure(query)?;
        for &server in self.servers.iter() {
            match timeout(ANSWERED_WITHIN, self.ask(server, query)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(e)) => tracing::debug!("the name server {server} does not answer: {e}"),
                Err(_) => tracing::debug!("the name server {server} does not answer"),
            }
        }
        Some(failure)
    }

    async fn ask(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        // A socket is in the network of the thread that makes it, and can be used from everywhere.
        let made = self.outside.spawn(async move {
            let socket = UdpSocket::bind(unspecified(server)).await?;
            socket.connect(server).await.map(|()| socket)
        });
        let socket = made.await.map_err(io::Error::other)??;
        socket.send(query).await?;
        let mut answer = vec![0; DATAGRAM];
        loop {
            let length = socket.recv(&mut answer).await?;
            // Not one to a question that was given up.
            if length >= HEADER && answer[..2] == query[..2] {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }

    async fn connect(&self, mut asking: TcpStream) -> io::Result<()> {
        for &server in self.servers.iter() {
            let connected = self.outside.spawn(timeout(ANSWERED_WITHIN, TcpStream::connect(server)));
            if let Ok(Ok(Ok(mut answering))) = connected.await {
                return copy_bidirectional(&mut asking, &mut answering).await.map(drop);
            }
        }
        Ok(())
    }
}

/// The servers that a host's configuration names; without any, the host's own (`resolv.conf(5)`).
fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    let named: Vec<_> = named.take(SERVERS).map(|ip| (ip, PORT).into()).collect();
    if named.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { named }
}

fn unspecified(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The answer that there is none (RFC 1035, 4.1.1); `None` for what is no question.
fn server_failure(query: &[u8]) -> Option<Vec<u8>> {
    let mut answer = query.to_vec();
    let [_, _, flags, more, ..] = answer.as_mut_slice() else { return None };
    if query.len() < HEADER || *flags & 0x80 != 0 {
        return None;
    }
    // An answer to the same kind of question, which wanted recursion or not; recursion is available, and it has failed.
    *flags = *flags & 0x79 | 0x80;
    *more = 0x82;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const QUERY: &[u8] = &[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];

    #[test]
    fn the_servers_of_a_host_are_asked_in_its_order() {
        let conf = "# nameserver 10.0.0.9\nsearch lan\nnameserver 127.0.0.53\n nameserver  fd00::1 \nnameserver fe80::1%eth0\nnameserver\n";
        assert_eq!(
            servers(conf).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.53:53", "[fd00::1]:53"]
        );
        assert_eq!(servers("options edns0")[0].to_string(), "127.0.0.1:53");
        assert_eq!(servers(&"nameserver 10.0.0.1\n".repeat(9)).len(), SERVERS);
    }

    /// A relay on loopback that asks these servers, for whoever is connected to it.
    async fn relay(servers: Vec<SocketAddr>) -> (UdpSocket, SocketAddr, JoinSet<()>) {
        let relay = Relay::bind_to((Ipv4Addr::LOCALHOST, 0).into(), servers, Handle::current()).await.unwrap();
        let address = relay.connections.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.connect(address).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(relay.serve());
        (client, address, tasks)
    }

    async fn asked(client: &UdpSocket) -> Vec<u8> {
        let mut answer = vec![0; 100];
        client.send(QUERY).await.unwrap();
        let length = client.recv(&mut answer).await.unwrap();
        answer.truncate(length);
        answer
    }

    #[tokio::test]
    async fn the_first_server_that_answers_is_believed() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpListener::bind(server.local_addr().unwrap()).await.unwrap();
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (client, address, _tasks) = relay(vec![nobody, server.local_addr().unwrap()]).await;
        let answers = async {
            let mut query = vec![0; 100];
            let (length, from) = server.recv_from(&mut query).await.unwrap();
            assert_eq!(&query[..length], QUERY);
            server.send_to(b"not to this question", from).await.unwrap();
            server.send_to(&[&QUERY[..HEADER], b"answer"].concat(), from).await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked(&client), answers);
        assert_eq!(&answer[HEADER..], b"answer");

        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"question").await.unwrap();
        let (mut answering, _) = stream.accept().await.unwrap();
        let mut question = [0; 8];
        answering.read_exact(&mut question).await.unwrap();
        answering.write_all(b"answer").await.unwrap();
        drop(answering);
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.unwrap();
        assert_eq!((&question, answer.as_str()), (b"question", "answer"));
    }

    #[tokio::test]
    async fn without_a_server_there_is_an_answer_all_the_same() {
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (client, _, _tasks) = relay(vec![nobody]).await;
        let answer = asked(&client).await;
        assert_eq!(answer[..4], [7, 8, 0x81, 0x82]);
        assert_eq!(answer[4..], QUERY[4..]);
        assert_eq!((server_failure(&QUERY[..5]), server_failure(&answer)), (None, None));
    }
}
