//! Power: machines that are switched off and on, that do it themselves, that join and leave.

use vmtest::{Kind, State, prelude::*};
use vmtest_tests::run_dir;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

#[vm_test(backend = "qemu, fake", timeout = "3m")]
async fn a_machine_is_killed_and_started(node: Node, peer: Node) -> Result {
    node.write("/in-memory", "gone with the power").await?;
    let before = node.sh(BOOT_ID).await?.stdout();
    let mut process = node.spawn("sleep 1000").await?;
    node.kill().await?;
    assert_eq!(node.state(), State::Off);
    assert!(!peer.sh("ping -c 1 -W 1 node").unchecked().await?.success());
    for error in [process.wait().await.err(), node.sh("true").await.err(), node.read("/x").await.err()] {
        let error = error.expect("it is off");
        assert_eq!((error.kind(), error.node()), (Kind::MachineDied, Some("node")));
        assert!(error.to_string().contains("the machine was killed by the test"), "{error}");
    }
    for (error, said) in [
        (node.kill().await.err(), "cannot kill a machine that is off: it is off: `start` it first"),
        (node.pause().await.err(), "cannot pause a machine that is off"),
    ] {
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), Kind::Spec);
        assert!(error.to_string().contains(said), "{error}");
    }
    node.start().await?;
    assert_eq!(node.state(), State::Running);
    assert_ne!(node.sh(BOOT_ID).await?.stdout(), before);
    assert!(!node.sh("test -e /in-memory").unchecked().await?.success());
    peer.sh("ping -c 1 -W 5 node").await?;
    assert!(node.start().await.expect_err("it runs").to_string().contains("it runs already"));
    Ok(())
}

#[vm_test(backend = "qemu, fake", timeout = "3m")]
async fn a_machine_shuts_down_and_reboots(node: Node) -> Result {
    let first = node.sh(BOOT_ID).await?.stdout();
    node.reboot().await?;
    let second = node.sh(BOOT_ID).await?.stdout();
    assert_ne!(first, second);

    // By itself: whoever talks to it meanwhile is told, and the next call waits until it is there again.
    let told = node.sh("reboot; sleep 1000").await.expect_err("it reboots");
    assert!(told.to_string().contains("rebooted meanwhile"), "{told}");
    let third = node.sh(BOOT_ID).await?.stdout();
    assert_ne!(second, third);
    assert_eq!(node.state(), State::Running);

    node.shutdown().await?;
    assert_eq!(node.state(), State::Off);
    let error = node.sh("true").await.expect_err("it is off");
    assert!(error.to_string().contains("was shut down by the test, by the guest itself"), "{error}");
    node.start().await?;
    assert_ne!(node.sh(BOOT_ID).await?.stdout(), third);
    Ok(())
}

#[vm_test(backend = "qemu, fake", timeout = "3m")]
async fn a_guest_that_ignores_everything_is_ended(node: Node) -> Result {
    // No server, no init that listens: what is left is the VMM.
    node.sh("mv /usr/sbin/dropbear /gone; (sleep 1; killall dropbear) >/dev/null 2>&1 &").await?;
    node.wait_until("false").within(Duration::from_secs(2)).await.expect_err("the server is gone");
    node.shutdown().await?;
    assert_eq!(node.state(), State::Off);
    assert!(!node.console().iter().any(|line| line.contains("reboot: Power down")));
    node.start().await?;
    node.sh("true").await?;
    Ok(())
}

#[vm_test(backend = "qemu, fake", timeout = "3m")]
async fn a_paused_machine_is_silent_until_it_resumes(node: Node, peer: Node) -> Result {
    let mut ticks = node.spawn("while :; do echo tick; sleep 0.2; done").await?;
    ticks.stdout.next().await?;
    node.pause().await?;
    assert_eq!(node.state(), State::Paused);
    assert!(!peer.sh("ping -c 1 -W 1 node").unchecked().await?.success());
    for (error, said) in [
        (node.pause().await.err(), "it is paused already"),
        (node.reboot().await.err(), "`resume` it first"),
        (node.shutdown().await.err(), "`resume` it first"),
    ] {
        let error = error.expect("it is refused");
        assert!(error.to_string().contains(said), "{error}");
    }
    node.resume().await?;
    assert_eq!(node.state(), State::Running);
    peer.sh("ping -c 1 -W 5 node").await?;
    ticks.stdout.next().await?;
    assert!(node.resume().await.expect_err("it runs").to_string().contains("it is not paused"));
    node.pause().await?;
    node.kill().await?;
    assert_eq!(node.state(), State::Off);
    Ok(())
}

#[vm_test(backend = "qemu, fake", timeout = "4m")]
async fn machines_join_and_leave(first: Node, cluster: Cluster) -> Result {
    let late = cluster.add_all(["late1", "late2"].map(NodeSpec::new)).await?;
    let all: Vec<_> = cluster.nodes();
    assert_eq!(all.iter().map(|node| node.name().to_owned()).collect::<Vec<_>>(), ["first", "late1", "late2"]);
    for from in &all {
        for to in &all {
            from.sh(format!("ping -c 1 -W 5 {}", to.name())).await?;
        }
    }

    for (error, said) in [
        (cluster.add(NodeSpec::new("first")).await.err(), "two nodes are called `first`"),
        (cluster.add(NodeSpec::new("Late")).await.err(), "`Late` is no host name"),
        (cluster.remove(&late[0]).await.err(), "its VMM runs: `shutdown` or `kill` it first"),
    ] {
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), Kind::Spec);
        assert!(error.to_string().contains(said), "{error}");
    }

    late[0].shutdown().await?;
    cluster.remove(&late[0]).await?;
    assert_eq!(late[0].state(), State::Removed);
    assert!(late[0].sh("true").await.expect_err("it is gone").to_string().contains("was removed from the cluster"));
    assert!(late[0].start().await.expect_err("it is gone").to_string().contains("it was removed from the cluster"));
    assert!(first.sh("grep late1 /etc/hosts").unchecked().await?.stdout().is_empty());
    assert!(cluster.node("late1").expect_err("it is gone").to_string().contains("the cluster has first, late2"));

    // Its name is free again, and one that boots again knows who is there now.
    let again = cluster.add(NodeSpec::new("late1")).await?;
    assert_ne!(again.ip(), late[0].ip());
    first.reboot().await?;
    first.sh("ping -c 1 -W 5 late1").await?;
    again.sh("ping -c 1 -W 5 first").await?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_machine_of_another_cluster_is_refused(cluster: Cluster, _node: Node) -> Result {
    let other = Cluster::builder()
        .backend("qemu")
        .backend("fake")
        .name("other")
        .node(NodeSpec::new("stranger"))
        .start()
        .await?;
    let error = cluster.remove(&other.node("stranger")?).await.expect_err("it is refused");
    assert!(error.to_string().contains("`stranger` is a machine of another cluster"), "{error}");
    other.teardown().await
}

/// What only a machine with a kernel of its own can show.
mod real {
    use super::*;

    #[vm_test(timeout = "3m")]
    async fn a_machine_that_cannot_be_started_stays_off(node: Node, cluster: Cluster) -> Result {
        node.kill().await?;
        // What a full disk would do: the guest's facts cannot be written.
        let dir = run_dir(cluster.id()).join("node");
        let facts = ["facts.cpio", "initramfs"].map(|name| dir.join(name)).into_iter().find(|file| file.exists());
        let facts = facts.expect("one of both tells the guest what it is");
        std::fs::remove_file(&facts)?;
        std::fs::create_dir(&facts)?;
        let error = node.start().await.expect_err("it cannot be started");
        assert_eq!((error.kind(), error.node()), (Kind::Host, Some("node")));
        assert!(error.to_string().contains("cannot write to"), "{error}");
        assert_eq!(node.state(), State::Off);
        let error = node.sh("true").await.expect_err("it is off");
        assert!(error.to_string().contains("could not be booted"), "{error}");

        std::fs::remove_dir(&facts)?;
        node.start().await?;
        node.sh("true").await?;
        Ok(())
    }
}
