//! Several networks in a cluster, and many clusters beside each other.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
};

use vmtest::{Kind, prelude::*, spec};

/// How long a packet may take; one that goes nowhere takes all of it.
const PING: &str = "ping -c 1 -W 3";

#[vm_test(backend = "qemu, fake")]
async fn networks_meet_only_where_a_machine_forwards(
    #[node(network("front"))] client: Node,
    #[node(network("front"), network("back"))] router: Node,
    #[node(network("back", ip = "10.77.2.50", mac = "52:54:00:00:00:50"))] server: Node,
    cluster: Cluster,
) -> Result {
    let addresses = [client.ip(), router.ip(), router.ip_on("back")?, server.ip()].map(|ip| ip.to_string());
    assert_eq!(addresses, ["10.77.1.11", "10.77.1.12", "10.77.2.12", "10.77.2.50"]);
    let error = client.ip_on("back").expect_err("it is not there");
    assert_eq!((error.kind(), error.node()), (Kind::Spec, Some("client")));
    assert!(error.to_string().contains("not on the network `back`, but on `front`"), "{error}");

    // A name leads to where both are.
    let asked = async |node: &Node, name: &str| -> Result<String> {
        let answer = node.sh(format!("{PING} {name}")).unchecked().await?.stdout();
        Ok(answer.split(['(', ')']).nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!(asked(&client, "router").await?, "10.77.1.12");
    assert_eq!(asked(&server, "router").await?, "10.77.2.12");
    assert_eq!(asked(&server, "router.front").await?, "10.77.1.12");
    assert_eq!(asked(&router, "server").await?, "10.77.2.50");
    for node in [&client, &server] {
        node.sh(format!("{PING} router")).await?;
    }

    let route_and_back = async || -> Result {
        router.sh("echo 1 >/proc/sys/net/ipv4/ip_forward").await?;
        client.sh(format!("ip route add 10.77.2.0/24 via {}", router.ip_on("front")?)).await?;
        server.sh(format!("ip route add 10.77.1.0/24 via {}", router.ip_on("back")?)).await?;
        client.sh(format!("{PING} server")).await?;
        Ok(())
    };
    let nowhere = client.sh(format!("{PING} server")).unchecked().await?;
    assert!(!nowhere.success(), "the host forwards between networks: {}", nowhere.stdout());
    route_and_back().await?;

    // The same in every boot, on both networks.
    for node in [&client, &router, &server] {
        node.kill().await?;
        node.start().await?;
    }
    assert!(!client.sh(format!("{PING} server")).unchecked().await?.success());
    route_and_back().await?;

    // The test itself is on both.
    drop(TcpStream::connect_timeout(&SocketAddr::from((server.ip(), 22)), Duration::from_secs(3))?);
    let late = cluster.add(NodeSpec::new("late").network("back").network("front")).await?;
    assert_eq!((late.ip().to_string(), late.ip_on("front")?.to_string()), ("10.77.2.14".into(), "10.77.1.14".into()));
    assert_eq!(asked(&client, "late").await?, "10.77.1.14");
    assert_eq!(asked(&server, "late").await?, "10.77.2.14");
    late.sh(format!("{PING} client && {PING} server")).await?;
    late.kill().await?;
    cluster.remove(&late).await?;
    for node in [&client, &server] {
        assert_eq!(node.sh("grep -c late /etc/hosts").unchecked().await?.stdout(), "0");
    }

    let error = cluster.add(NodeSpec::new("lost").network("middle")).await.expect_err("nobody made it");
    assert!(error.to_string().contains("there is no network `middle`"), "{error}");
    Ok(())
}

#[vm_test(backend = "qemu, fake", network("later"))]
async fn a_network_can_wait_for_its_machines(default: Node, cluster: Cluster) -> Result {
    let late = cluster.add(NodeSpec::new("late").network("default").network("later")).await?;
    assert_eq!((late.ip().to_string(), late.ip_on("later")?.to_string()), ("10.77.0.12".into(), "10.77.1.12".into()));
    default.sh(format!("{PING} late")).await?;
    let has_two = "ip -o address show eth0 | grep -q 10.77.0.12/24 && ip -o address show eth1 | grep -q 10.77.1.12/24";
    late.sh(has_two).await?;
    Ok(())
}

#[vm_test(backend = "fake")]
async fn a_scripted_machine_answers_on_all_its_networks(cluster: Cluster) -> Result {
    // The networks of late machines must be there.
    let error = cluster.add(NodeSpec::new("late").network("front")).await.expect_err("nobody made it");
    assert!(error.to_string().contains("which has `default`: name it for the test, too"), "{error}");

    let on_both = NodeSpec::new("on-both").network("front").network("back");
    let scripted = on_both.fake(spec::Fake::new().on("true", spec::Reply::default()));
    let other = Cluster::builder().backend("fake").node(scripted).start().await?;
    let node = other.node("on-both")?;
    let both = [node.ip_on("front")?, node.ip_on("back")?];
    let reached = async || {
        let reach = |ip| TcpStream::connect_timeout(&SocketAddr::from((ip, 22)), Duration::from_millis(500)).is_ok();
        other.enter(async move || both.map(reach)).await
    };
    assert_eq!(reached().await, [true, true]);
    node.pause().await?;
    assert_eq!(reached().await, [false, false]);
    node.resume().await?;
    assert_eq!(reached().await, [true, true]);
    other.teardown().await?;
    Ok(())
}

/// How many clusters are there at once, with the same addresses in each.
const CLUSTERS: usize = 50;

#[test]
fn clusters_do_not_see_each_other() {
    let clusters: Vec<_> = (0..CLUSTERS)
        .map(|number| {
            thread::spawn(move || {
                let nodes = ["a", "b"].map(|name| NodeSpec::new(name).network("front").network("back"));
                let builder = nodes.into_iter().fold(Cluster::builder().backend("fake"), |all, node| all.node(node));
                builder.name(format!("cluster{number}")).run(async move |cluster| -> Result {
                    let (a, b) = (cluster.node("a")?, cluster.node("b")?);
                    b.sh(format!("echo {number} >/tmp/number; nc -ll -p 7000 -e cat /tmp/number >/dev/null 2>&1 &"))
                        .await?;
                    b.wait_for_port(7000).await?;
                    for network in ["front", "back"] {
                        let seen = a.sh(format!("nc b.{network} 7000 </dev/null")).await?;
                        assert_eq!(seen.stdout(), number.to_string());
                    }
                    Ok(())
                })
            })
        })
        .collect();
    for cluster in clusters {
        cluster.join().expect("it does not panic").expect("it passes");
    }
}
