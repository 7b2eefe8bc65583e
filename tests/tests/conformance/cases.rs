//! The cases that every backend can show.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use regex::Regex;
use vmtest::{
    Kind, State,
    evidence::{Event, Rung},
    plan::Capabilities,
    prelude::*,
    spec::Capability,
};
use vmtest_tests::{run_dir, vmm_of};

use crate::Case;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
/// How soon a crash is known.
const CRASH_SEEN_WITHIN: Duration = Duration::from_millis(100);
/// Of so many crashes the one that was seen soonest counts: a host with much to do says nothing about a backend.
const CRASHES: usize = 5;
/// More than any buffer between a guest and its console's file holds.
const CONSOLE_LINES: usize = 2000;
const TREE: &str = "tests/data/tree";

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_machine_boots", needs: all, run: |on| run(on, &["node"], boots) },
    Case { name: "the_ladder_is_climbed_rung_by_rung", needs: all, run: climbs },
    Case { name: "commands_have_streams_and_exit_codes", needs: all, run: |on| run(on, &["node"], commands) },
    Case { name: "files_travel_unchanged", needs: all, run: |on| run(on, &["node"], files) },
    Case { name: "machines_reach_each_other", needs: all, run: |on| run(on, &["a", "b"], network) },
    Case { name: "what_is_off_or_on_cannot_be_it_twice", needs: all, run: |on| run(on, &["node"], twice) },
    Case { name: "a_pause_is_silence", needs: all, run: |on| run(on, &["node", "peer"], pauses) },
    Case { name: "a_reboot_is_a_new_boot", needs: all, run: |on| run(on, &["node"], reboots) },
    Case { name: "a_guest_switches_itself_off", needs: all, run: |on| run(on, &["node"], powers_off) },
    Case { name: "a_restart_keeps_what_is_planned", needs: all, run: |on| run(on, &["node", "peer"], restarts) },
    Case { name: "a_scratch_disk_outlives_a_power_cut", needs: all, run: scratch },
    Case { name: "a_machine_goes_back_to_where_it_was_saved", needs: snapshot, run: goes_back },
    Case { name: "a_crash_is_seen_at_once", needs: all, run: |on| run(on, &["node"], crashes) },
    Case { name: "a_console_is_complete", needs: all, run: |on| run(on, &["node"], console) },
    Case { name: "a_disk_cannot_be_written", needs: all, run: disks },
    Case { name: "a_machine_joins_and_leaves", needs: all, run: |on| run(on, &["first"], joins) },
    Case { name: "a_kernel_panic_fails_the_test", needs: own_kernel, run: panics },
    Case { name: "nothing_is_left", needs: all, run: leaves },
];

fn all(_: &Capabilities) -> bool {
    true
}

fn own_kernel(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::OwnKernel)
}

fn snapshot(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Snapshot)
}

fn run<F: Future<Output = Result>>(
    backend: &str,
    nodes: &[&str],
    body: impl FnOnce(Cluster) -> F + Send + 'static,
) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(60));
    let builder = nodes.iter().fold(builder, |builder, node| builder.node(NodeSpec::new(*node)));
    builder.run(async move |cluster| body(cluster).await)
}

async fn boots(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    assert_eq!(node.sh("hostname").await?.stdout(), "node");
    let addresses = node.sh("ip address").await?.stdout();
    for address in [node.ip().to_string(), node.ip6().to_string(), node.mac().to_owned()] {
        assert!(addresses.contains(&address), "{address} is not in {addresses}");
    }
    assert_eq!(node.state(), State::Running);
    let refused = node.screenshot().await.expect_err("the test does not say that it looks at screens");
    assert_eq!(
        (refused.kind(), refused.to_string().contains("`requires(screenshot)`")),
        (Kind::Spec, true),
        "{refused}"
    );
    assert!(node.console().iter().any(|line| line.contains("vmtest: ready")));
    Ok(())
}

fn climbs(backend: &str) -> Result {
    let reached = Arc::new(Mutex::new(Vec::new()));
    let seen = reached.clone();
    let builder = Cluster::builder().backend(backend).node(NodeSpec::new("node")).observe(move |event| {
        if let Event::Reached { rung, after, .. } = event {
            crate::lock(&seen).push((*rung, *after));
        }
    });
    builder.run(async |_| ())?;
    let reached = crate::lock(&reached);
    assert!(reached.iter().map(|(rung, _)| *rung).eq(Rung::ALL), "{reached:?}");
    assert!(reached.is_sorted_by_key(|(_, after)| *after), "{reached:?}");
    Ok(())
}

async fn commands(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let output = node.sh("cat; echo err >&2; exit 3").stdin("in").unchecked().await?;
    assert_eq!((output.stdout(), output.stderr(), output.code()), ("in".into(), "err".into(), Some(3)));
    assert_eq!(node.sh("kill -KILL $$").unchecked().await?.signal(), Some("KILL"));
    let error = node.sh("sleep 1000").timeout(Duration::from_millis(300)).await.expect_err("it takes too long");
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(!node.sh("pidof sleep").unchecked().await?.success());
    Ok(())
}

async fn files(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    node.write("/deep/er/file", bytes.clone()).await?;
    assert!(node.read("/deep/er/file").await? == bytes);
    let back = tempfile::tempdir()?;
    node.upload(TREE, "/tree").await?;
    node.download("/tree", back.path().join("tree")).await?;
    assert_eq!(contents(&back.path().join("tree")), contents(Path::new(TREE)));
    Ok(())
}

async fn network(cluster: Cluster) -> Result {
    let (a, b) = (cluster.node("a")?, cluster.node("b")?);
    a.sh("ping -c 1 b").await?;
    a.sh(format!("ping -6 -c 1 {}", b.ip6())).await?;
    let server = b.spawn("nc -ll -p 7000 -e hostname").await?;
    b.wait_for_port(7000).await?;
    assert_eq!(a.sh("nc b 7000 </dev/null").await?.stdout(), "b");
    assert!(b.connect(7001).await.is_err(), "nobody listens there");
    drop(server);
    Ok(())
}

async fn twice(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    assert_eq!(node.start().await.expect_err("it runs").kind(), Kind::Spec);
    node.shutdown().await?;
    assert_eq!(node.state(), State::Off);
    for refused in [node.shutdown().await, node.kill().await, node.pause().await, node.reboot().await] {
        assert_eq!(refused.expect_err("it is off").kind(), Kind::Spec);
    }
    node.start().await?;
    assert_eq!(node.start().await.expect_err("it runs").kind(), Kind::Spec);
    node.kill().await?;
    assert_eq!(node.kill().await.expect_err("it is off").kind(), Kind::Spec);
    node.start().await?;
    node.sh("true").await?;
    Ok(())
}

async fn pauses(cluster: Cluster) -> Result {
    let (node, peer) = (cluster.node("node")?, cluster.node("peer")?);
    let count = node.spawn("while :; do echo; sleep 0.05; done").await?;
    peer.sh("ping -c 1 -W 5 node").await?;
    node.pause().await?;
    assert_eq!(node.state(), State::Paused);
    assert_eq!(node.pause().await.expect_err("it is paused").kind(), Kind::Spec);
    assert!(!peer.sh("ping -c 1 -W 1 node").unchecked().await?.success());
    node.resume().await?;
    assert_eq!(node.resume().await.expect_err("it runs").kind(), Kind::Spec);
    peer.sh("ping -c 1 -W 5 node").await?;
    node.sh("true").await?;
    drop(count);
    Ok(())
}

async fn reboots(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let first = node.sh(BOOT_ID).await?.stdout();
    node.reboot().await?;
    let second = node.sh(BOOT_ID).await?.stdout();
    // By itself: whoever talks to it meanwhile is told, and the next call waits until it is there again.
    node.sh("reboot; sleep 1000").await.expect_err("it reboots");
    let third = node.sh(BOOT_ID).await?.stdout();
    assert!(first != second && second != third, "{first} {second} {third}");
    Ok(())
}

async fn powers_off(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let error = node.sh("poweroff; sleep 1000").await.expect_err("the machine goes off");
    assert_eq!(error.kind(), Kind::MachineDied, "{error}");
    assert_eq!(node.state(), State::Off);
    node.start().await?;
    node.sh("true").await?;
    Ok(())
}

async fn restarts(cluster: Cluster) -> Result {
    let (node, peer) = (cluster.node("node")?, cluster.node("peer")?);
    let identity = "hostname; cat /etc/hosts; ip -4 address show eth0 | grep inet; cat /sys/class/net/eth0/address";
    let before = node.sh(identity).await?.stdout();
    node.write("/in-memory", "gone with the power").await?;
    node.kill().await?;
    assert!(!peer.sh("ping -c 1 -W 1 node").unchecked().await?.success());
    node.start().await?;
    assert_eq!(node.sh(identity).await?.stdout(), before);
    assert!(!node.sh("test -e /in-memory").unchecked().await?.success());
    peer.sh("ping -c 1 -W 5 node").await?;
    Ok(())
}

fn scratch(backend: &str) -> Result {
    let nodes = ["node", "peer"].map(|name| NodeSpec::new(name).disk(64 << 20));
    let builder = nodes.into_iter().fold(Cluster::builder().backend(backend), |builder, node| builder.node(node));
    let place = Arc::new(Mutex::new(PathBuf::new()));
    let told = place.clone();
    builder.run(async move |cluster: Cluster| {
        let (node, peer) = (cluster.node("node")?, cluster.node("peer")?);
        let scratch = fs::canonicalize(run_dir(cluster.id()).join("node/scratch"))?;
        assert_eq!(fs::metadata(scratch.parent().expect("the run's"))?.mode() & 0o077, 0, "others can see it");
        *crate::lock(&told) = scratch;
        assert_eq!(node.sh("ls -A /scratch | grep -v lost+found").unchecked().await?.stdout(), "");
        node.sh("echo kept >/scratch/file; sync").await?;
        node.kill().await?;
        node.start().await?;
        assert_eq!(node.sh("cat /scratch/file").await?.stdout(), "kept");
        node.reboot().await?;
        node.sh("echo more >>/scratch/file").await?;
        assert_eq!(node.sh("cat /scratch/file").await?.stdout(), "kept\nmore");
        assert!(!peer.sh("test -e /scratch/file").unchecked().await?.success(), "each has its own");
        // Another machine of the same name has another disk.
        node.shutdown().await?;
        cluster.remove(&node).await?;
        let again = cluster.add(NodeSpec::new("node").disk(64 << 20)).await?;
        assert!(!again.sh("test -e /scratch/file").unchecked().await?.success());
        Ok::<_, Failure>(())
    })?;
    let place = crate::lock(&place);
    assert!(place.parent().is_some_and(|run| run.is_absolute() && !run.exists()), "{} is left", place.display());
    Ok(())
}

fn goes_back(backend: &str) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(90)).requires(Capability::Snapshot);
    let builder = builder.node(NodeSpec::new("node").disk(32 << 20)).node(NodeSpec::new("peer"));
    builder.run(async |cluster| {
        let (node, peer) = (cluster.node("node")?, cluster.node("peer")?);
        let write = async |what| node.sh(format!("echo {what} | tee /tmp/memory /scratch/disk; sync")).await;
        let found = async || node.sh("cat /tmp/memory /scratch/disk; date +%s").await;
        let boot = node.sh(BOOT_ID).await?.stdout();
        write("before").await?;
        let first = node.snapshot().await?;
        assert_eq!(node.state(), State::Running);
        // What was saved stays as it was saved; what goes on is saved as well as what has booted.
        for (state, snapshot) in
            [("on", &first), ("paused", &first), ("off", &first.clone()), ("on", &node.snapshot().await?)]
        {
            write("after").await?;
            match state {
                "off" => node.kill().await?,
                "paused" => node.pause().await?,
                _ => {}
            }
            node.restore(snapshot).await?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
            let found = found().await?.stdout();
            let words: Vec<_> = found.split_whitespace().collect();
            assert_eq!(words[..2], ["before", "before"], "{state}");
            assert!(words[2].parse::<u64>()?.abs_diff(now) < 30, "its clock says {} at {now}", words[2]);
            assert_eq!(node.sh(BOOT_ID).await?.stdout(), boot);
            peer.sh("ping -c 1 -W 5 node").await?;
        }
        let again = node.snapshot().await?;
        write("after").await?;
        node.restore(&again).await?;
        assert!(found().await?.stdout().starts_with("before\nbefore"));
        node.reboot().await?;
        assert_ne!(node.sh(BOOT_ID).await?.stdout(), boot);
        assert_eq!(node.sh("cat /scratch/disk").await?.stdout(), "before");
        Ok::<_, Failure>(())
    })
}

async fn crashes(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let mut soonest = Duration::MAX;
    for _ in 0..CRASHES {
        let (vmm, waiting) = (vmm_of(cluster.id(), node.name()), node.clone());
        let waiting = tokio::spawn(async move { (waiting.sh("sleep 1000").await, Instant::now()) });
        node.sh("while ! pidof sleep; do :; done").await?;
        let crashed = Instant::now();
        kill(Pid::from_raw(vmm), Signal::SIGKILL)?;
        let (ended, seen) = waiting.await?;
        assert_eq!(ended.expect_err("it has crashed").kind(), Kind::MachineDied);
        soonest = soonest.min(seen - crashed);
        if soonest <= CRASH_SEEN_WITHIN {
            return Ok(());
        }
        node.start().await?;
    }
    Err(Failure::msg(format!("a crash was seen after {soonest:?}")))
}

async fn console(cluster: Cluster) -> Result {
    let node = cluster.node("node")?;
    let mut lines = node.console_lines()?;
    let print = format!("n=0; while [ $n -lt {CONSOLE_LINES} ]; do echo \"line $n of many\"; n=$((n + 1)); done");
    // The kernel has its own words too, as late as its network has come up.
    node.sh(format!("dmesg -n 1; ({print}) >/dev/console")).await?;
    node.wait_for_console(&format!("line {} of many", CONSOLE_LINES - 1)).await?;
    node.kill().await?;
    let mut text = String::new();
    while let Ok(line) = lines.next().await {
        text += &(line + "\n");
    }
    // The SSH server has its own words in between, in the middle of a line too.
    let text = Regex::new(r"\[\d+\] \w{3} \d\d [\d:]{8} [^\n]*\n")?.replace_all(&text, "");
    let mut rest = &*text;
    for n in 0..CONSOLE_LINES {
        let expected = format!("line {n} of many\n");
        let found = rest.find(&expected).ok_or_else(|| Failure::msg(format!("line {n} is missing: {rest:.200}")))?;
        rest = &rest[found + expected.len()..];
    }
    Ok(())
}

fn disks(backend: &str) -> Result {
    let node = NodeSpec::new("node").fixture(TREE, "/srv/tree");
    Cluster::builder().backend(backend).node(node).run(async |cluster: Cluster| {
        let node = cluster.node("node")?;
        let disk = PathBuf::from(&cluster.plan().nodes[0].disks[0].path);
        let before = fs::read(&disk)?;
        assert_eq!(node.sh("cat /srv/tree/hello.txt").await?.stdout(), "hello from the host");
        for attempt in [
            "touch /srv/tree/new",
            "echo x >/srv/tree/hello.txt",
            "rm -rf /srv/tree/sub",
            "mount -o remount,rw /srv/tree",
            "mount -o remount,bind,rw /srv/tree && touch /srv/tree/new",
            "umount /srv/tree && touch /srv/tree/new && mount /srv/tree",
        ] {
            assert!(!node.sh(attempt).unchecked().await?.success(), "{attempt}");
        }
        assert!(fs::read(&disk)? == before, "the disk has changed");
        Ok::<_, Failure>(())
    })
}

async fn joins(cluster: Cluster) -> Result {
    let first = cluster.node("first")?;
    let late = cluster.add(NodeSpec::new("late")).await?;
    first.sh("ping -c 1 -W 5 late").await?;
    late.sh("ping -c 1 -W 5 first").await?;
    late.shutdown().await?;
    cluster.remove(&late).await?;
    assert!(!first.sh("grep late /etc/hosts").unchecked().await?.success());
    let error = late.sh("true").await.expect_err("it is removed");
    assert!(error.to_string().contains("was removed from the cluster"), "{error}");
    Ok(())
}

fn panics(backend: &str) -> Result {
    let failure = run(backend, &["node"], |cluster: Cluster| async move {
        cluster.node("node")?.sh("echo c >/proc/sysrq-trigger; sleep 1000").await?;
        Ok(())
    });
    let failure = failure.expect_err("its kernel has panicked").to_string();
    assert!(failure.contains("the guest's kernel panicked") && failure.contains("sysrq"), "{failure}");
    Ok(())
}

fn leaves(backend: &str) -> Result {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    run(backend, &["a", "b"], |cluster: Cluster| async move {
        crate::lock(&told).extend(["a", "b"].map(|node| vmm_of(cluster.id(), node)));
        Ok(())
    })?;
    for vmm in crate::lock(&seen).iter() {
        assert!(!Path::new(&format!("/proc/{vmm}")).exists(), "the process {vmm} is left");
    }
    assert_eq!(crate::lock(&seen).len(), 2);
    Ok(())
}

/// Names and contents of all files below a directory.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("it can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match entry.file_type().expect("it is known") {
            kind if kind.is_dir() => {
                found.extend(contents(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
            }
            kind if kind.is_file() => found.push((name, fs::read(&path).expect("it can be read"))),
            _ => found.push((name, fs::read_link(&path).expect("it is a link").into_os_string().into_encoded_bytes())),
        }
    }
    found.sort();
    found
}
