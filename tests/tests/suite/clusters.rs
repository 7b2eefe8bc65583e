//! Clusters as a test's author meets them: real machines, on whichever backend this host has.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rstest::rstest;
use tokio::{io::AsyncReadExt, net::TcpStream};
use vmtest::{prelude::*, spec::Capability};

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tree");

#[vm_test(backend = "qemu, fake")]
async fn one_machine_answers(node: Node) -> Result {
    assert_eq!(node.sh("uname -s").await?.stdout(), "Linux");
    assert_eq!(node.sh("hostname").await?.stdout(), "node");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn three_machines_reach_each_other_by_name([a, b, c]: [Node; 3], cluster: Cluster) -> Result {
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for from in [&a, &b, &c] {
        assert_eq!(from.sh("hostname").await?.stdout(), from.name());
        for to in &names {
            from.sh(format!("ping -c 1 -W 5 {to}")).await?;
        }
    }
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn the_bodys_own_sockets_reach_the_nodes(node: Node) -> Result {
    let mut banner = [0; 8];
    TcpStream::connect((node.ip(), 22)).await?.read_exact(&mut banner).await?;
    assert_eq!(&banner, b"SSH-2.0-");

    let address = (node.ip(), 22);
    let read = move || -> std::io::Result<[u8; 8]> {
        let mut banner = [0; 8];
        std::net::TcpStream::connect(address)?.read_exact(&mut banner)?;
        Ok(banner)
    };
    assert_eq!(tokio::task::spawn_blocking(read).await??, banner);
    assert_eq!(std::thread::spawn(read).join().expect("it does not panic")?, banner);
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn streams_and_exit_codes_are_apart(node: Node) -> Result {
    let output = node.sh("echo out; echo err >&2; exit 3").unchecked().await?;
    assert_eq!((output.stdout(), output.stderr(), output.code()), ("out".into(), "err".into(), Some(3)));
    let killed = node.sh("kill -KILL $$").unchecked().await?;
    assert_eq!((killed.code(), killed.signal()), (None, Some("KILL")));

    let error = node.sh("echo seen; echo why >&2; exit 4").await.expect_err("it fails");
    assert_eq!(error.kind(), vmtest::Kind::Command);
    assert_eq!(error.node(), Some("node"));
    for part in ["`echo seen;", "exit code 4", "stdout: seen", "stderr: why"] {
        assert!(error.to_string().contains(part), "{error}");
    }

    let big = node.sh("dd if=/dev/zero bs=1024 count=3072 2>/dev/null | tr '\\0' x").await?;
    assert_eq!(big.stdout_raw().len(), 3 << 20);
    assert!(big.stdout_raw().iter().all(|&byte| byte == b'x'));
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn commands_run_beside_each_other(node: Node) -> Result {
    let numbers = (0..12).map(|n| {
        let node = node.clone();
        tokio::spawn(async move { node.sh(format!("sleep 1; echo {n}")).await.map(|output| output.stdout()) })
    });
    for (n, task) in numbers.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(task.await??, n.to_string());
    }
    Ok(())
}

#[vm_test(backend = "qemu, fake", fixture("tests/data/tree", at = "/srv/tree"))]
async fn a_fixture_equals_its_source_and_cannot_be_written(node: Node, cluster: Cluster) -> Result {
    let mut compared = 0;
    for path in walk(Path::new(TREE)) {
        let guest = format!("/srv/tree/{}", path.strip_prefix(TREE)?.display());
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_symlink() {
            let target = node.sh(format!("readlink {guest}")).await?.stdout();
            assert_eq!(target, fs::read_link(&path)?.display().to_string());
        } else {
            let mode = node.sh(format!("stat -c %a:%u:%g {guest}")).await?.stdout();
            assert_eq!(mode, format!("{:o}:0:0", meta.permissions().mode() & 0o7777), "{guest}");
        }
        if meta.is_file() {
            assert_eq!(*node.sh(format!("cat {guest}")).await?.stdout_raw(), *fs::read(&path)?, "{guest}");
            compared += 1;
        }
    }
    assert!(compared >= 3);
    assert_eq!(node.sh("/srv/tree/sub/run.sh").await?.stdout(), "it runs");
    for attempt in ["touch /srv/tree/new", "mount -o remount,rw /srv/tree", "echo x >/srv/tree/hello.txt"] {
        assert!(!node.sh(attempt).unchecked().await?.success(), "{attempt}");
    }
    let disk = "dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync";
    if cluster.plan().capabilities.has(Capability::OwnKernel) {
        assert!(!node.sh(disk).unchecked().await?.success(), "the disk itself can be written");
    }
    Ok(())
}

/// Everything below a directory, directories too.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        let below = if path.is_dir() && !path.is_symlink() { walk(&path) } else { Vec::new() };
        found.push(path);
        found.extend(below);
    }
    found
}

#[vm_test(backend = "qemu, fake")]
async fn a_machine_has_the_addresses_that_it_asks_for(
    first: Node,
    #[node(ip = "10.77.0.50", mac = "02:00:00:00:0A:50")] legacy: Node,
    #[node(ip = "10.77.0.11")] taker: Node,
    cluster: Cluster,
) -> Result {
    let octets = [&first, &legacy, &taker].map(|node| node.ip().octets()[3]);
    assert_eq!((octets, legacy.mac()), ([12, 50, 11], "02:00:00:00:0a:50"));
    let has_them = async || -> Result {
        let shown = legacy.sh("ip address show eth0").await?.stdout();
        for address in ["10.77.0.50/24", "fd77::50/64", "02:00:00:00:0a:50"] {
            assert!(shown.contains(address), "{address} is not in {shown}");
        }
        first.sh("ping -c 1 -W 5 legacy && ping -c 1 -W 5 taker").await?;
        Ok(())
    };
    has_them().await?;
    // They are the same in every boot.
    legacy.kill().await?;
    legacy.start().await?;
    has_them().await?;
    legacy.reboot().await?;
    has_them().await?;

    let error = cluster.add(NodeSpec::new("late").ip(legacy.ip())).await.expect_err("it is taken");
    assert!(error.to_string().contains("node `late`: `ip` 10.77.0.50 is that of `legacy`"), "{error}");
    // Once it is free, another machine can have it, also with another hardware address.
    legacy.kill().await?;
    cluster.remove(&legacy).await?;
    let heir = cluster.add(NodeSpec::new("heir").ip([10, 77, 0, 50])).await?;
    assert_ne!(heir.mac(), legacy.mac());
    assert_eq!(heir.sh("hostname").await?.stdout(), "heir");
    first.sh("ping -c 1 -W 5 heir").await?;
    Ok(())
}

/// At 1 Mbit/s they take 1.6 s.
const SLOW_BYTES: usize = 200_000;
/// What they take at least, with any burst and anything that was counted otherwise.
const SLOW_FOR: Duration = Duration::from_secs(1);

#[vm_test(backend = "qemu, fake")]
async fn a_rate_holds_in_both_directions_and_in_every_boot(
    #[node(rate = "1Mbit")] slow: Node,
    cluster: Cluster,
) -> Result {
    let is_slow = async |node: &Node| -> Result {
        let began = Instant::now();
        node.write("/tmp/file", vec![7; SLOW_BYTES]).await?;
        assert!(began.elapsed() >= SLOW_FOR, "to {} in {:?}", node.name(), began.elapsed());
        let began = Instant::now();
        assert_eq!(node.read("/tmp/file").await?.len(), SLOW_BYTES);
        assert!(began.elapsed() >= SLOW_FOR, "from {} in {:?}", node.name(), began.elapsed());
        Ok(())
    };
    is_slow(&slow).await?;
    slow.kill().await?;
    slow.start().await?;
    is_slow(&slow).await?;

    let late = cluster.add(NodeSpec::new("late").rate(1_000_000)).await?;
    is_slow(&late).await?;
    let links = || fs::read_to_string("/proc/thread-self/net/dev");
    assert!(links()?.contains("ifb1:") && links()?.contains("tap1:"), "{}", links()?);
    late.kill().await?;
    cluster.remove(&late).await?;
    assert!(!links()?.contains("ifb1:") && !links()?.contains("tap1:"), "{}", links()?);
    Ok(())
}

#[vm_test(backend = "qemu, fake", mtu = 1400)]
async fn bridge_ports_and_machines_have_a_small_mtu([a, b]: [Node; 2], cluster: Cluster) -> Result {
    have_mtu(1400, [a, b], cluster).await
}

#[vm_test(backend = "qemu, fake", mtu = 9000)]
async fn bridge_ports_and_machines_have_a_large_mtu([a, b]: [Node; 2], cluster: Cluster) -> Result {
    have_mtu(9000, [a, b], cluster).await
}

async fn have_mtu(mtu: u32, nodes: [Node; 2], cluster: Cluster) -> Result {
    let late = cluster.add(NodeSpec::new("late")).await?;
    for node in [&nodes[0], &nodes[1], &late] {
        let shown = node.sh("ip link show eth0").await?.stdout();
        assert!(shown.contains(&format!(" mtu {mtu} ")), "{}: {shown}", node.name());
    }
    for link in ["br0", "tap0", "tap1", "tap2"] {
        let of_link = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/mtu"))?;
        assert_eq!(of_link.trim(), mtu.to_string(), "{link}");
    }
    // A whole packet: with 20 bytes of IPv4 and 8 of ICMP.
    nodes[0].sh(format!("ping -c 1 -W 5 -s {} late", mtu - 28)).await?;
    Ok(())
}

#[rstest]
#[case(1)]
#[case(2)]
#[vmtest::test(backend = "qemu, fake")]
async fn cases_each_get_a_cluster(#[case] n: u64, #[ignore] node: Node) -> Result {
    assert_eq!(node.sh(format!("echo $(({n} * 2))")).await?.stdout(), (n * 2).to_string());
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "as it should")]
async fn a_panic_is_the_tests_own(node: Node) {
    panic!("{} panics as it should", node.name());
}

#[test]
fn a_cluster_can_be_asked_for_in_code() {
    let spec = NodeSpec::new("built").fixture(TREE, "/srv/tree");
    let result = Cluster::builder()
        .backend("qemu")
        .backend("fake")
        .name("in code")
        .node(spec)
        .timeout(Duration::from_secs(60))
        .run(async |cluster| {
            let text = cluster.node("built")?.sh("cat /srv/tree/hello.txt").await?.stdout();
            assert_eq!(text, "hello from the host");
            let error = cluster.node("other").expect_err("there is none");
            assert!(error.to_string().contains("the cluster has built"), "{error}");
            Ok::<_, Failure>(())
        });
    result.expect("it passes");
}

/// What only a machine with a kernel of its own can show.
mod real {
    use super::*;

    #[vm_test(kernel_args = "vmtest.all")]
    async fn settings_reach_their_nodes(
        #[node(cpus = 2, memory = "320MiB", kernel_args = "vmtest.own")] large_one: Node,
        smalls: [Node; 2],
    ) -> Result {
        assert_eq!(large_one.name(), "large-one");
        assert_eq!(large_one.sh("nproc").await?.stdout(), "2");
        let memory: u64 = large_one.sh("awk '/MemTotal/ { print $2 }' /proc/meminfo").await?.stdout().parse()?;
        assert!((250_000..320 * 1024).contains(&memory), "{memory} KiB");
        assert!(large_one.sh("cat /proc/cmdline").await?.stdout().ends_with("vmtest.all vmtest.own"));
        for (node, name) in smalls.iter().zip(["small1", "small2"]) {
            assert_eq!(node.sh("hostname").await?.stdout(), name);
            assert_eq!(node.sh("nproc").await?.stdout(), "1");
            assert!(node.sh("cat /proc/cmdline").await?.stdout().ends_with("vmtest.all"));
        }
        Ok(())
    }
}
