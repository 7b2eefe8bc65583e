//! The way out of a cluster's network: what it lets through, for whom, and what is left of it. Each test has a host and an
//! internet of its own, so that nothing leaves this one.

mod lab;

use nix::sys::signal::Signal;
use rstest::rstest;
use vmtest_tests::{Ended, Running, Victim, WITHOUT_RIGHTS, on_path};

use lab::{HOST, Lab, Way, on_a_host, run};

/// What is run on such a host.
mod victims {
    use vmtest::prelude::*;

    use std::{
        future::pending,
        net::{Ipv4Addr, TcpListener},
    };

    use super::lab::{HOST, INTERNET, NAME, PRIVATE_PORT};

    #[vm_test(backend = "qemu, fake", egress = true)]
    #[ignore = "run on a host of its own"]
    async fn reaches(node: Node, #[node(network("back"))] other: Node, cluster: Cluster) -> Result {
        println!("\nits way: {:?}", cluster.plan().egress.as_ref().map(|egress| &egress.way));
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

    /// Serves on its end of the way out, which is nobody's to reach.
    #[vm_test(backend = "qemu, fake", egress = true)]
    #[ignore = "run on a host of its own"]
    async fn waits(_node: Node, cluster: Cluster) -> Result {
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PRIVATE_PORT))?;
        println!("\nup at {}", cluster.plan().egress.as_ref().expect("it was asked for").address);
        pending().await
    }

    /// Tries to reach another cluster's end of the way out.
    #[vm_test(backend = "fake", egress = true)]
    #[ignore = "run on a host of its own"]
    async fn knocks(node: Node) -> Result {
        node.sh(format!("wget -q -O - http://{INTERNET}/")).await?;
        node.sh(format!("! timeout 3 wget -q -O - http://{}:{PRIVATE_PORT}/", std::env::var("OTHER")?)).await?;
        Ok(())
    }

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

fn reaches(victim: Victim, lab: &Lab, way: Way) {
    let ended = victim.run().assert_passed();
    ended.assert_nothing_left();
    assert!(ended.text().contains(&format!("its way: Some({way:?}")), "it has another: {}", ended.text());
    lab.assert_private();
}

#[rstest]
fn machines_reach_what_the_host_reaches(#[values(Way::Pair, Way::Pasta)] way: Way) {
    on_a_host(|lab| {
        lab.lead(way);
        reaches(victim(lab, "reaches"), lab, way);
    });
}

#[test]
fn a_host_that_could_not_be_restored_is_left_through_pasta() {
    on_a_host(|lab| {
        let set = |value| run(&format!("echo {value} >/proc/sys/net/ipv4/conf/wan0/forwarding"));
        set(1);
        reaches(victim(lab, "reaches"), lab, Way::Pasta);
        assert_eq!(forwards(), "0");
        set(0);
    });
}

#[test]
fn a_pair_takes_no_pasta() {
    on_a_host(|lab| {
        let hidden = format!("mount --bind /dev/null {} &&", on_path("pasta").display());
        let victim = victim_after(lab, &hidden, &[], "reaches").env("VMTEST_BACKEND", "fake");
        reaches(victim, lab, Way::Pair);
    });
}

#[test]
fn a_host_that_forwards_does_so_afterwards() {
    on_a_host(|lab| {
        run("echo 1 >/proc/sys/net/ipv4/ip_forward");
        reaches(victim(lab, "reaches"), lab, Way::Pair);
        assert_eq!(forwards(), "1");
        run("echo 0 >/proc/sys/net/ipv4/ip_forward");
    });
}

fn forwards() -> String {
    run("cat /proc/sys/net/ipv4/ip_forward").trim().to_owned()
}

/// The address at the cluster's end of the way out of a victim that waits.
fn address(waiting: &mut Running) -> String {
    waiting.wait_for("up at ").trim().trim_start_matches("up at ").to_owned()
}

#[rstest]
fn nobody_comes_in(#[values(Way::Pair, Way::Pasta)] way: Way, #[values(Way::Pair, Way::Pasta)] other: Way) {
    on_a_host(|lab| {
        lab.lead(way);
        let mut waiting = victim(lab, "waits").start();
        let address = address(&mut waiting);
        run(&format!("! timeout 2 bash -c '</dev/tcp/{address}/{}' 2>/dev/null", lab::PRIVATE_PORT));
        lab.lead(other);
        victim(lab, "knocks").env("OTHER", &address).run().assert_passed().assert_nothing_left();
        // As it was when it began.
        lab.lead(way);
        waiting.signal(Signal::SIGTERM);
        waiting.finish().assert_nothing_left();
    });
}

#[test]
fn a_host_that_did_not_forward_does_so_for_nobody_else() {
    on_a_host(|lab| {
        run("ip link add lan0 type veth peer name lan1; ip link set lan1 up; ip link set lan0 up");
        run("ip address add 198.51.100.1/24 dev lan0");
        run("ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev lan0");
        lab.in_the_internet(&format!("ip route add 198.51.100.0/24 via {HOST}"));
        let passed = || {
            let count = || run("grep lan0: /proc/thread-self/net/dev | tr -s ' ' | cut -d ' ' -f 12");
            let before = count();
            lab.in_the_internet("bash -c \"echo >/dev/udp/198.51.100.9/9\"");
            count() != before
        };
        let mut waiting = victim(lab, "waits").start();
        address(&mut waiting);
        assert_eq!((forwards().as_str(), passed()), ("1", false));
        waiting.signal(Signal::SIGTERM);
        waiting.finish().assert_nothing_left();
        run("echo 1 >/proc/sys/net/ipv4/ip_forward");
        assert!(passed(), "nothing would have passed in any case");
        run("echo 0 >/proc/sys/net/ipv4/ip_forward; ip link delete lan0");
    });
}

/// What becomes of one of two runs that were beside each other, the second of which found a host that forwards.
#[derive(Debug, Clone, Copy)]
enum Step {
    End(usize),
    Kill(usize),
    Prune(usize),
}
use Step::{End, Kill, Prune};

#[rstest]
#[case(&[End(0), End(1)])]
#[case(&[End(1), End(0)])]
#[case(&[Kill(0), Prune(0), End(1)])]
#[case(&[Kill(0), End(1), Prune(0)])]
#[case(&[Kill(1), Prune(1), End(0)])]
#[case(&[Kill(1), End(0), Prune(1)])]
#[case(&[Kill(0), Kill(1), Prune(0), Prune(1)])]
#[case(&[Kill(0), Kill(1), Prune(1), Prune(0)])]
fn the_host_forwards_for_as_long_as_a_run_needs_it(#[case] steps: &[Step]) {
    on_a_host(|lab| {
        let mut running = [0, 1].map(|_| {
            let mut waiting = victim(lab, "waits").start();
            address(&mut waiting);
            Some(waiting)
        });
        let mut ended: [Option<Ended>; 2] = [None, None];
        for step in steps {
            assert_eq!(forwards(), "1", "before {step:?}");
            match *step {
                End(run) | Kill(run) => {
                    let running = running[run].take().expect("it has not ended");
                    running.signal(if matches!(step, End(_)) { Signal::SIGTERM } else { Signal::SIGKILL });
                    ended[run] = Some(running.finish());
                }
                Prune(run) => {
                    let runs = ended[run].as_ref().expect("it was killed").runs();
                    drop(Victim::new("prunes").beside(runs).run().assert_passed());
                }
            }
        }
        assert_eq!(forwards(), "0");
        // The first looked at the host before the second, and the second when the first had something there.
        ended[0].as_ref().expect("it has ended").assert_nothing_left();
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
    #[case::root(&[], Way::Pair)]
    #[case::rootless(&WITHOUT_RIGHTS, Way::Pasta)]
    fn machines_reach_what_the_host_reaches(#[case] wrapper: &[&str], #[case] way: Way) {
        on_a_host(|lab| {
            let victim = victim_after(lab, "", wrapper, "reaches").env("VMTEST_BACKEND", "qemu");
            reaches(victim, lab, way);
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

#[rstest]
fn a_panic_leaves_nothing(#[values(Way::Pair, Way::Pasta)] way: Way) {
    on_a_host(|lab| {
        lab.lead(way);
        victim(lab, "panics").run().assert_failed_with(&["as it shall"]).assert_nothing_left();
    });
}

/// By a pair, `crashes.rs` does it.
#[rstest]
fn a_killed_run_leaves_nothing(
    #[values("before:intent", "after:intent", "before:done", "during:done", "after:done", "before:released")]
    step: &str,
) {
    on_a_host(|lab| {
        lab.lead(Way::Pasta);
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
        run("ip route del default");
        lab.lead(Way::Pasta);
        let victim = victim(lab, "reaches");
        let said = ["there is no way out of the cluster's network: pasta ended with", "No external routable interface"];
        victim.run().assert_failed_with(&said).assert_nothing_left();
        run(&format!("ip route add default via {}", lab::INTERNET));
    });
}
