//! Reaching what runs on the machines: ports, forwards, and both networks.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmtest::{Kind, prelude::*};

/// A service of three lines: what it is sent comes back in capitals.
const SHOUT: &str = "nc -ll -p 7000 -e tr a-z A-Z";

fn shout_at(address: SocketAddr, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[vm_test(backend = "qemu, fake")]
async fn ports_are_reached_from_inside_and_outside(node: Node, cluster: Cluster) -> Result {
    let error = node.connect(7000).await.expect_err("nobody listens");
    assert_eq!((error.kind(), error.node()), (Kind::Connection, Some("node")));
    assert!(error.to_string().contains("nobody listens on port 7000; `wait_for_port` waits"), "{error}");

    let _service = node.spawn(SHOUT).await?;
    node.wait_for_port(7000).await?;

    let mut stream = node.connect(7000).await?;
    stream.write_all(b"inside").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, "INSIDE");

    let (direct, forward) = (SocketAddr::from((node.ip(), 7000)), node.forward(7000).await?);
    let forwarded = forward.address();
    assert!(forwarded.ip().is_loopback());
    assert_eq!(shout_at(direct, "body")?, "BODY");
    assert!(TcpStream::connect(forwarded).is_err(), "the body is in another network");
    assert_eq!(cluster.outside(async move || shout_at(forwarded, "forwarded")).await?, "FORWARDED");
    assert_eq!(cluster.enter(async move || shout_at(direct, "entered")).await?, "ENTERED");
    drop(forward);
    assert!(cluster.outside(async move || shout_at(forwarded, "closed")).await.is_err());
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn the_body_reaches_the_host_through_outside(_node: Node, cluster: Cluster) -> Result {
    let (address, service) = cluster
        .outside(async || {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            let service =
                std::thread::spawn(move || listener.accept().map(|(mut stream, _)| stream.write_all(b"host")));
            std::io::Result::Ok((address, service))
        })
        .await?;
    let answer = cluster.outside(async move || {
        let mut answer = String::new();
        TcpStream::connect(address)?.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    assert_eq!(answer.await?, "host");
    service.join().expect("it does not panic")??;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn udp_travels_both_ways(node: Node, cluster: Cluster) -> Result {
    // A TFTP server for a file of one block: a request, the block, and its acknowledgement.
    let server = UdpSocket::bind("0.0.0.0:6969")?;
    let serve = cluster.enter(async move || {
        let mut packet = [0; 512];
        let (length, client) = server.recv_from(&mut packet)?;
        server.send_to(b"\0\x03\0\x01over udp", client)?;
        let acknowledged = server.recv_from(&mut packet[length..])?;
        std::io::Result::Ok((packet[..length].to_vec(), acknowledged.0))
    });
    let get = node.sh("tftp -g -r name -l - 10.77.0.1 6969").into_future();
    let (served, got) = tokio::join!(serve, get);
    let (request, acknowledged) = served?;
    assert!(request.starts_with(b"\0\x01name\0octet\0"), "{request:?}");
    assert_eq!((got?.stdout().as_str(), acknowledged), ("over udp", 4));
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn openssh_is_let_in(node: Node) -> Result {
    let mut command = node.ssh_command()?;
    match command.arg("hostname").output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "node\n", "{output:?}"),
        Err(e) => eprintln!("not run: no OpenSSH on this host: {e}"),
    }
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn ipv6_reaches_everybody(a: Node, b: Node) -> Result {
    assert_eq!((a.ip6().to_string(), b.ip6().to_string()), ("fd77::11".to_owned(), "fd77::12".to_owned()));
    a.sh(format!("ping6 -c 1 -W 5 {}", b.ip6())).await?;
    a.sh("ping6 -c 1 -W 5 fd77::1").await?;
    let _service = b.spawn(SHOUT).await?;
    b.wait_for_port(7000).await?;
    assert_eq!(shout_at((b.ip6(), 7000).into(), "six")?, "SIX");
    Ok(())
}

#[test]
fn a_cluster_is_started_from_code_and_used_from_outside() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let result: Result = runtime.block_on(async {
        let cluster = Cluster::builder()
            .backend("qemu")
            .backend("fake")
            .name("started")
            .node(NodeSpec::new("web"))
            .start()
            .await?;
        let web = cluster.node("web")?;
        assert_eq!(web.sh("hostname").await?.stdout(), "web");
        web.write("/srv/index.html", "page").await?;
        web.sh("httpd -p 80 -h /srv").await?;
        let forward = web.forward(80).await?;
        let mut stream = TcpStream::connect(forward.address())?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.ends_with("page"), "{answer}");
        let inside = SocketAddr::from((web.ip(), 80));
        assert!(cluster.enter(async move || TcpStream::connect(inside).is_ok()).await);
        cluster.teardown().await?;
        let error = web.sh("true").await.expect_err("it is gone");
        assert_eq!(error.node(), Some("web"), "{error}");
        Ok(())
    });
    result.expect("it works");
}

#[test]
fn a_cluster_that_cannot_start_says_why() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started =
        runtime.block_on(Cluster::builder().backend("qemu").backend("fake").node(NodeSpec::new("no name")).start());
    assert!(started.expect_err("it cannot").to_string().contains("`no name` is no host name"));
}
