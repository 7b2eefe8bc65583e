//! The way out of a cluster's network: what it lets through, for whom, and what is left of it. Each test has a host and an
//! internet of its own, so that nothing leaves this one.

mod lab;

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::{Victim, WITHOUT_RIGHTS, on_path};

use lab::{Lab, on_a_host};

/// What is run on such a host.
mod victims {
    use vmtest::prelude::*;

    use std::net::Ipv4Addr;

    use super::lab::{HOST, INTERNET, NAME, PRIVATE_PORT};

    #[vm_test(backend = "qemu, fake", egress = true)]
    #[ignore = "run on a host of its own"]
    async fn reaches(node: Node, #[node(network("back"))] other: Node, cluster: Cluster) -> Result {
        let late = cluster.add(NodeSpec::new("late")).await?;
        for node in [&node, &other, &late] {
            for host in [INTERNET.to_string(), NAME.to_owned()] {
                let page = node.sh(format!("wget -q -O - http://{host}/")).await?;
                assert_eq!(page.stdout(), format!("hello {HOST}"), "{} {host}", node.name());
            }
        }
        let found = node.sh(format!("nslookup {NAME}")).await?;
        assert!(found.stdout().contains(&INTERNET.to_string()), "{}", found.stdout());
        node.sh("! nslookup nowhere.example.test").await?;
        node.sh("ping -c 1 late").await?;
        // From one network to another there is no way.
        node.sh(format!("! ping -c 1 -W 1 {}", other.ip())).await?;
        let plan = cluster.plan();
        let far_end = plan.egress.as_ref().expect("it was asked for").gateway;
        for address in [Ipv4Addr::LOCALHOST, plan.networks[0].gateway, far_end] {
            node.sh(format!("! timeout 3 wget -q -O - http://{address}:{PRIVATE_PORT}/")).await?;
        }
        Ok(())
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run on a host of its own"]
    async fn stays(node: Node) -> Result {
        let forward = "/proc/sys/net/ipv4/ip_forward";
        assert_eq!(std::fs::read_to_string(forward)?.trim(), "0");
        // As if that were not so.
        std::fs::write(forward, "1")?;
        for way in [
            format!("wget -q -O - http://{INTERNET}/"),
            format!("wget -q -O - http://{NAME}/"),
            format!("ping -c 1 -W 2 {INTERNET}"),
            format!("nslookup {NAME} {INTERNET}"),
            format!("nslookup {NAME}"),
        ] {
            node.sh(format!("! timeout 3 {way}")).await?;
        }
        Ok(())
    }

    /// Has an image made where it can be had.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run before others"]
    async fn prepares(_node: Node) {}

    #[vm_test(backend = "fake", egress = true)]
    #[ignore = "run on a host of its own"]
    async fn panics(_node: Node) {
        panic!("as it shall");
    }

    #[test]
    #[ignore = "run on a host of its own"]
    fn prunes() {
        let left = vmtest::harness::prune().expect("it can look").left();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// A victim that sees the host's name servers, after this was done where only it sees it, and is started by this.
fn victim_after(lab: &Lab, setup: &str, wrapper: &[&str], name: &str) -> Victim {
    let resolv_conf = lab.resolv_conf.path().display();
    let wrapper = wrapper.join(" ");
    let script = format!("{setup} mount --bind {resolv_conf} /etc/resolv.conf && exec {wrapper} \"$0\" \"$@\"");
    Victim::within(&["unshare", "--mount", "sh", "-c", &script], name)
}

fn victim(lab: &Lab, name: &str) -> Victim {
    victim_after(lab, "", &[], name).env("VMTEST_BACKEND", "fake")
}

#[test]
fn machines_reach_what_the_host_reaches() {
    on_a_host(|lab| {
        victim(lab, "reaches").run().assert_passed().assert_nothing_left();
        lab.assert_private();
    });
}

#[test]
fn without_it_nothing_leaves() {
    on_a_host(|lab| {
        let before = lab.packets();
        victim(lab, "stays").run().assert_passed().assert_nothing_left();
        assert_eq!(lab.packets(), before);
    });
}

mod qemu {
    use super::*;

    #[rstest]
    #[case::root(&[])]
    #[case::rootless(&WITHOUT_RIGHTS)]
    fn machines_reach_what_the_host_reaches(#[case] wrapper: &[&str]) {
        on_a_host(|lab| {
            let victim = victim_after(lab, "", wrapper, "reaches").env("VMTEST_BACKEND", "qemu");
            victim.run().assert_passed().assert_nothing_left();
            lab.assert_private();
        });
    }

    #[test]
    fn without_it_nothing_leaves() {
        on_a_host(|lab| {
            let before = lab.packets();
            victim(lab, "stays").env("VMTEST_BACKEND", "qemu").run().assert_passed().assert_nothing_left();
            assert_eq!(lab.packets(), before);
        });
    }
}

#[test]
fn a_panic_leaves_nothing() {
    on_a_host(|lab| {
        victim(lab, "panics").run().assert_failed_with(&["as it shall"]).assert_nothing_left();
    });
}

#[rstest]
fn a_killed_run_leaves_nothing(
    #[values("before:intent", "after:intent", "before:done", "during:done", "after:done", "before:released")]
    step: &str,
) {
    on_a_host(|lab| {
        let killed = victim(lab, "reaches").env("VMTEST_INTERNAL_CRASH_AT", format!("{step}:helper")).run();
        assert_eq!(killed.signal(), Some(Signal::SIGKILL), "{}", killed.text());
        let namespace = killed.text().split_once("in net:[").and_then(|(_, after)| after.split_once(']'));
        let namespace = namespace.and_then(|(inode, _)| inode.parse().ok());
        killed.host().await_the_kernel(namespace.expect("it says in which network it ends"));
        Victim::new("prunes").beside(killed.runs()).run().assert_passed().assert_nothing_left();
        killed.assert_nothing_left();
    });
}

#[test]
fn what_the_host_lacks_is_said_at_once() {
    let hidden = ["nft", "pasta"].map(|name| format!("mount --bind /dev/null {} &&", on_path(name).display()));
    on_a_host(|lab| {
        let said = [
            "nft is not installed: run `sudo apt-get install -y nftables`",
            "pasta is not installed: run `sudo apt-get install -y passt`",
        ];
        let victim = victim_after(lab, &hidden.join(" "), &[], "reaches").env("VMTEST_BACKEND", "fake");
        victim.run().assert_failed_with(&said).assert_nothing_left();
    });
}

#[test]
fn a_host_that_reaches_nothing_is_said_to() {
    on_a_host(|lab| {
        let setup = "ip route del default &&";
        let victim = victim_after(lab, setup, &[], "reaches").env("VMTEST_BACKEND", "fake");
        let said = ["there is no way out of the cluster's network: pasta ended with", "No external routable interface"];
        victim.run().assert_failed_with(&said).assert_nothing_left();
    });
}
