//! Clusters in the network of whoever started the test, for which another one stands here.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::{Running, StandIn, Victim, WITHOUT_RIGHTS};

/// Tests that run where the stand-in is.
mod victims {
    use std::{
        future::pending,
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        path::PathBuf,
        process::Command,
        thread,
    };

    use vmtest::{
        prelude::*,
        spec::{Fake, NetworkPlace, Reply},
    };

    fn banner(node: &Node) -> std::io::Result<[u8; 8]> {
        let mut banner = [0; 8];
        TcpStream::connect((node.ip(), 22))?.read_exact(&mut banner)?;
        Ok(banner)
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn meets([a, b]: [Node; 2], cluster: Cluster) -> Result {
        let namespace = || std::fs::read_link("/proc/thread-self/ns/net");
        assert_eq!(namespace()?, std::fs::read_link("/proc/self/ns/net")?, "the body is elsewhere");
        assert_eq!(cluster.outside(async move || namespace()).await?, namespace()?);
        assert_eq!(cluster.enter(async move || namespace()).await?, namespace()?);

        // The network of the bridges is that of the engine's threads. Nothing is forwarded there.
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", std::process::id()))?.flatten().map(|thread| thread.path());
        let is_engine = |thread: &PathBuf| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "vmtest-engine")
        };
        let engine = threads.into_iter().find(is_engine).expect("it has threads").join("ns/net");
        let forward = "cat /proc/sys/net/ipv4/ip_forward";
        let printed =
            Command::new("nsenter").arg(format!("--net={}", engine.display())).args(forward.split(' ')).output()?;
        assert_eq!(String::from_utf8_lossy(&printed.stdout), "0\n");

        // The body, a thread of it and the framework reach the machines.
        assert_eq!(&banner(&a)?, b"SSH-2.0-");
        let from_thread = b.clone();
        assert_eq!(&thread::spawn(move || banner(&from_thread)).join().expect("no panic")?, b"SSH-2.0-");
        a.sh("true").await?;
        a.sh(format!("ping -c 1 -W 5 {}", b.name())).await?;
        a.sh(format!("ping -c 1 -W 5 {}", b.ip())).await?;

        // A machine reaches what listens on the host, which is its gateway.
        let gateway = a.sh("ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").await?.stdout();
        let listener = TcpListener::bind(SocketAddr::new(gateway.parse()?, 0))?;
        let port = listener.local_addr()?.port();
        let serve = thread::spawn(move || listener.accept()?.0.write_all(b"from the host\n"));
        assert_eq!(a.sh(format!("nc {gateway} {port} </dev/null")).await?.stdout(), "from the host");
        serve.join().expect("no panic")?;

        // One that joins later, and one with replies, are in the same network.
        let late = cluster.add(NodeSpec::new("late")).await?;
        assert_eq!(&banner(&late)?, b"SSH-2.0-");
        a.sh("ping -c 1 -W 5 late").await?;
        Ok(())
    }

    #[vm_test(backend = "fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn scripted(cluster: Cluster) -> Result {
        let fake = |ip: Option<std::net::Ipv4Addr>| {
            let node = NodeSpec::new("db").fake(Fake::new().on("true", Reply::default()));
            ip.into_iter().fold(node, |node, ip| node.ip(ip))
        };
        let db = cluster.add(fake(None)).await?;
        assert_eq!(&banner(&db)?, b"SSH-2.0-");
        // Another machine under the address of one that has left.
        db.kill().await?;
        cluster.remove(&db).await?;
        let next = cluster.add(NodeSpec::new("next").ip(db.ip()).mac("02:00:00:00:00:01")).await?;
        assert_eq!(&banner(&next)?, b"SSH-2.0-");
        Ok(())
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn stays(node: Node) -> Result {
        let ip = node.ip();
        node.kill().await?;
        node.start().await?;
        assert_eq!(&banner(&node)?, b"SSH-2.0-");
        node.reboot().await?;
        assert_eq!((&banner(&node)?, node.ip()), (b"SSH-2.0-", ip));
        node.sh(format!("ip addr | grep -q 'inet {ip}/24 '")).await?;
        Ok(())
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn waits(node: Node) {
        println!("\nup at {}.", node.ip());
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn panics(_node: Node) {
        panic!("as it should");
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn panics_on_a_task(_node: Node) {
        tokio::spawn(async { panic!("on a task") });
        pending::<()>().await;
    }

    /// Pings the machine of another cluster, as it is, and with the filters of all runs gone.
    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn pings_another(node: Node) -> Result {
        let ping = format!("ping -c 1 -W 2 {}", std::env::var("OTHER")?);
        assert!(!node.sh(&ping).unchecked().await?.success(), "the host has forwarded");
        assert!(Command::new("nft").args(["flush", "ruleset"]).status()?.success());
        node.sh(&ping).await?;
        Ok(())
    }

    #[vm_test(backend = "qemu, fake", network = "host")]
    #[ignore = "run where the stand-in is"]
    async fn with_a_hint(#[node(ip = "10.78.0.50")] _node: Node) {}

    /// Many at once, in one process.
    #[test]
    #[ignore = "run where the stand-in is"]
    fn many() {
        let cluster = || {
            let node = NodeSpec::new("node").fake(Fake::new().on("true", Reply::default()));
            let cluster = Cluster::builder().backend("fake").place(NetworkPlace::Host).node(node);
            cluster.run(async |cluster| -> Result {
                let node = cluster.node("node")?;
                node.sh("true").await?;
                println!("network {:?}", &node.ip().octets()[..3]);
                assert_eq!(&banner(&node)?, b"SSH-2.0-");
                Ok(())
            })
        };
        thread::scope(|scope| {
            let runs: Vec<_> = (0..50).map(|_| scope.spawn(cluster)).collect();
            runs.into_iter().for_each(|run| run.join().expect("no panic").expect("it passes"));
        });
    }

    #[test]
    #[ignore = "run by many"]
    fn prunes() {
        let found = vmtest::harness::abandoned().expect("it can look");
        found.runs.iter().flat_map(|run| &run.outstanding).for_each(|what| println!("outstanding: {what}"));
        let left = vmtest::harness::prune().expect("it can look").left();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// The kernel destroys the network of a killed run in 75 ms; it does so one after the other, and with those of fifty clusters
/// of another test before it, on a busy host, it took more than ten seconds.
const DESTROYED_WITHIN: Duration = Duration::from_secs(120);

/// The address of the machine of a victim that waits.
fn address(waiting: &mut Running) -> String {
    let line = waiting.wait_for("up at ");
    line.trim().trim_start_matches("up at ").trim_end_matches('.').to_owned()
}

fn reaches(host: &StandIn, ip: &str) {
    assert_eq!(host.sh(&format!("bash -c 'exec 3<>/dev/tcp/{ip}/22; head -c 8 <&3'")), "SSH-2.0-");
}

fn end(waiting: Running) {
    waiting.signal(Signal::SIGTERM);
    waiting.finish().assert_nothing_left();
}

#[rstest]
#[case::all_ways("meets")]
#[case::as_it_stays("stays")]
fn a_cluster_is_in_the_network_of_its_caller(#[case] victim: &str) {
    let host = StandIn::new();
    let before = host.everything();
    host.victim(victim).run().assert_passed().assert_nothing_left();
    assert_eq!(host.everything(), before);
}

#[test]
fn a_machine_with_replies_is_there_too() {
    let host = StandIn::new();
    host.victim("scripted").run().assert_passed().assert_nothing_left();
}

#[test]
fn other_programs_reach_the_machines_of_clusters_beside_each_other() {
    let host = StandIn::new();
    let before = host.everything();
    host.sh("ip link add mine type bridge; ip link set mine up; ip addr add 10.77.1.1/24 dev mine");
    let mut running = [(); 3].map(|()| host.victim("waits").start());
    let mut addresses = running.each_mut().map(address);
    addresses.iter().for_each(|ip| reaches(&host, ip));
    addresses.sort();
    assert_eq!(addresses, ["10.77.0.11", "10.77.2.11", "10.77.3.11"]);
    running.into_iter().for_each(end);
    host.sh("ip link del mine");
    assert_eq!(host.everything(), before);
}

#[test]
fn fifty_clusters_beside_each_other_leave_nothing() {
    let host = StandIn::new();
    let before = host.everything();
    let ended = host.victim("many").run().assert_passed();
    ended.assert_nothing_left();
    let networks = ended.text().lines().filter(|line| line.contains("network [10, 77")).collect::<BTreeSet<_>>();
    println!("50 clusters in {} networks took {:?}", networks.len(), ended.took());
    assert_eq!(host.everything(), before);
}

#[rstest]
#[case::body("panics", "as it should")]
#[case::task("panics_on_a_task", "on a task")]
fn a_panic_leaves_nothing(#[case] victim: &str, #[case] said: &str) {
    let host = StandIn::new();
    let before = host.everything();
    host.victim(victim).run().assert_failed_with(&[said]).assert_nothing_left();
    assert_eq!(host.everything(), before);
}

fn await_no_links(host: &StandIn) {
    let began = Instant::now();
    while host.sh("ip -o link").contains(": vt") {
        assert!(began.elapsed() < DESTROYED_WITHIN, "{}", host.sh("ip -o link"));
    }
}

/// From the host's own network, and from another one, as somebody may do it later.
#[rstest]
#[case::there(true)]
#[case::elsewhere(false)]
fn what_a_killed_run_has_left_there_is_removed(#[case] there: bool) {
    let host = StandIn::new();
    let before = host.everything();
    let mut running = host.victim("waits").start();
    reaches(&host, &address(&mut running));
    running.signal(Signal::SIGKILL);
    let killed = running.finish();
    await_no_links(&host);
    assert!(host.sh("nft list ruleset").contains("vmtest-"), "the filters stay until somebody removes them");
    let prune = if there { host.victim("prunes") } else { Victim::new("prunes") };
    let pruned = prune.beside(killed.runs()).run().assert_passed();
    assert!(pruned.text().contains("in the host's network"), "{}", pruned.text());
    killed.assert_nothing_left();
    assert_eq!(host.everything(), before);
}

#[test]
fn a_link_of_somebody_else_that_has_our_name_stays() {
    let host = StandIn::new();
    let killed = host.victim("waits").env("VMTEST_INTERNAL_CRASH_AT", "after:intent:host_link").run();
    assert_eq!(killed.signal(), Some(Signal::SIGKILL), "{}", killed.text());
    let journal = killed.host().run_dirs()[0].join("journal.jsonl");
    let journal = std::fs::read_to_string(journal).expect("there is a journal");
    let (_, after) = journal.split_once(r#""kind":"host_link","name":""#).expect("it names the link");
    let (name, _) = after.split_once('"').expect("a name has an end");
    host.sh(&format!("ip link add {name} type bridge"));
    drop(host.victim("prunes").beside(killed.runs()).run().assert_passed());
    killed.assert_nothing_left();
    host.sh(&format!("ip link del {name}"));
}

/// As Docker sets a host up: the kernel hands what passes bridges to the filters, and those drop.
#[test]
fn the_hosts_filters_do_not_see_what_machines_say_to_each_other() {
    let host = StandIn::new();
    host.sh("echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables; echo 1 >/proc/sys/net/ipv4/ip_forward
         nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    host.victim("meets").run().assert_passed().assert_nothing_left();
}

#[test]
fn a_host_that_forwards_does_not_forward_between_clusters() {
    let host = StandIn::new();
    host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
    let mut other = host.victim("waits").start();
    let ip = address(&mut other);
    host.victim("pings_another").env("OTHER", ip).run().assert_passed().assert_nothing_left();
    end(other);
}

#[rstest]
#[case::exhausted(
    "ip link add lan type bridge; ip link set lan up; ip route add 10.64.0.0/10 dev lan",
    "waits",
    &["there is not a network free for `network = \"host\"`", "256 by the route to 10.64.0.0/10 by `lan`", "leave `network` out"]
)]
#[case::hint(
    "true",
    "with_a_hint",
    &["node `node`: `ip` 10.78.0.50 is outside of the network 10.77.0.0/24: leave it out, because with `network = \"host\"`"]
)]
fn what_cannot_be_is_said_with_its_remedy(#[case] setup: &str, #[case] victim: &str, #[case] said: &[&str]) {
    let host = StandIn::new();
    host.sh(setup);
    host.victim(victim).run().assert_failed_with(said).assert_nothing_left();
}

#[test]
fn without_nft_the_test_says_how_to_get_it() {
    let host = StandIn::new();
    let hide = "mount --bind /dev/null $(readlink -f $(command -v nft)) && exec \"$0\" \"$@\"";
    let said = ["nft is not installed: run `sudo apt-get install -y nftables`"];
    let victim = host.victim_within(&["unshare", "--mount", "sh", "-c", hide], "waits");
    victim.run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_user_without_rights_is_told_what_it_takes() {
    let host = StandIn::new();
    let said = ["`network = \"host\"` takes root in the network where the test is started: run the tests as root"];
    host.victim_within(&WITHOUT_RIGHTS, "waits").run().assert_failed_with(&said).assert_nothing_left();
}

mod real {
    use super::*;

    #[test]
    fn a_machine_is_reached_and_leaves_nothing() {
        a_cluster_is_in_the_network_of_its_caller("meets");
    }

    #[test]
    fn a_machine_stays_where_it_is() {
        a_cluster_is_in_the_network_of_its_caller("stays");
    }
}
