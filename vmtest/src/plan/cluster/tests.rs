use expect_test::expect;

use super::*;
use crate::{
    error::Kind,
    plan::{
        BackendFacts, BudgetFacts, FixtureFacts, HostEndPlan, HostFacts, ImageFacts, KernelFacts, MemoryLimit,
        ModulesFacts,
    },
    spec,
};

/// What is known of a host with QEMU, which emulates.
pub(in crate::plan) fn facts() -> Facts {
    let micro = ImageFacts {
        kernel: "/cache/vmlinuz".into(),
        initramfs: "/cache/initramfs.cpio".into(),
        nested: "/cache/nested.cpio".into(),
        release: "6.1.0".into(),
        root: None,
        memory: None,
        entrypoint: None,
        cloud: None,
        digest: None,
        arguments: String::new(),
        login: None,
        ready: None,
        asks_firmware: true,
    };
    Facts {
        backend: Ok(backend("qemu", true, &[Capability::OwnKernel, Capability::Nested], 100 << 20)),
        known: vec![],
        images: [("micro".into(), Ok(micro))].into(),
        kernels: BTreeMap::new(),
        firmwares: BTreeMap::new(),
        fixtures: vec![(
            schema().fixture,
            Ok(FixtureFacts { path: "/cache/fixtures/1.ext4".into(), label: "schema".into() }),
        )],
        volumes: BTreeMap::new(),
        missing: vec![],
        host: None,
        egress: None,
        budget: BudgetFacts { whole: HOST, memory_of: MemoryLimit::Host },
        timeout_scale: 1.0,
    }
}

const HOST: Resources = Resources { memory: 4 << 30, cpus: 8, disk: 20 << 30 };

/// A backend whose machines can do this.
pub(in crate::plan) fn backend(name: &str, emulated: bool, can: &[Capability], overhead: u64) -> BackendFacts {
    let can = can.iter().copied().collect();
    let capabilities = Capabilities { emulated, can, overhead, ..Capabilities::default() };
    BackendFacts { name: name.to_owned(), capabilities, lacks: BTreeMap::new() }
}

fn schema() -> FixtureSpec {
    FixtureSpec { fixture: "/src/schema".into(), at: None }
}

/// The same with a backend that lacks what is asked of devices, and others that do not.
fn facts_with_others() -> Facts {
    let can = [Capability::Resize, Capability::DiskRate];
    let known = |name: &str, can: &[Capability]| crate::plan::KnownBackend {
        name: name.into(),
        can: can.iter().copied().collect(),
        asked: false,
        passed_over: None,
    };
    Facts { known: vec![known("qemu", &[]), known("able", &can), known("ready", &can)], ..facts() }
}

#[test]
fn what_a_machine_can_be_given_must_be_possible() {
    let (small, large) = (NodeSpec::new("small").cpus(2).max_cpus(1), NodeSpec::new("large").max_memory(128 << 20));
    let slow = NodeSpec::new("slow").disk_rate(1000).disk_iops(9);
    let spec = ClusterSpec { nodes: vec![small, large, slow], ..ClusterSpec::new("t") };
    let why = plan(&spec, &facts_with_others()).expect_err("nothing of it is possible");
    assert_eq!(why.kind(), Kind::Spec);
    expect![[r#"
        `t` cannot run, for 7 reasons:
          - node `small`: `max_cpus` is 1, but it boots with `cpus = 2`
          - node `small`: `max_cpus` and `max_memory` are for backends that can do it, which `qemu` cannot: `able` and `ready` can, and `requires(resize)` takes one of them
          - node `large`: `max_memory` is 128 MiB, but it boots with 256 MiB
          - node `large`: `max_cpus` and `max_memory` are for backends that can do it, which `qemu` cannot: `able` and `ready` can, and `requires(resize)` takes one of them
          - node `slow`: a `disk_rate` of 1000 bytes a second, but it is at least 64 KiB
          - node `slow`: `disk_iops = 9`, but it is at least 10
          - node `slow`: `disk_rate` and `disk_iops` are for backends that can do it, which `qemu` cannot: `able` and `ready` can, and `requires(disk_rate)` takes one of them"#]]
    .assert_eq(&why.to_string());
}

#[test]
fn what_a_machine_can_be_given_is_claimed_from_the_start() {
    let can = [Capability::OwnKernel, Capability::Resize];
    let facts = Facts { backend: Ok(backend("qemu", false, &can, 0)), ..facts() };
    let nodes = vec![NodeSpec::new("a").max_cpus(3).max_memory((1 << 30) + 5), NodeSpec::new("b")];
    let plan = plan(&ClusterSpec { nodes, ..ClusterSpec::new("t") }, &facts).unwrap();
    assert_eq!(plan.claim, Resources { memory: (1024 + 256) << 20, cpus: 4, disk: 0 });
    assert_eq!((plan.nodes[0].memory, plan.nodes[0].max_memory), (256 << 20, Some(1 << 30)));
}

/// What is planned for these nodes.
pub(crate) fn planned(nodes: Vec<NodeSpec>) -> Vec<NodePlan> {
    plan(&ClusterSpec { nodes, ..ClusterSpec::new("t") }, &facts()).unwrap().nodes
}

#[test]
fn a_plan_decides_every_name_and_address() {
    let mut spec = ClusterSpec::new("suite::standby");
    spec.nodes = vec![NodeSpec::new("primary").cpus(2).kernel_args("quiet"), NodeSpec::new("standby")];
    spec.nodes[0].settings.fixtures.push(schema());
    spec.timeout = Some(Duration::from_secs(30));
    let plan = plan(&spec, &facts()).unwrap();
    expect![[r#"
        {
          "name": "suite::standby",
          "backend": "qemu",
          "capabilities": {
            "emulated": true,
            "can": [
              "own_kernel",
              "nested"
            ],
            "overhead": 104857600
          },
          "networks": [
            {
              "name": "default",
              "bridge": "br0",
              "mac": "52:54:00:4d:00:01",
              "gateway": "10.77.0.1",
              "prefix": 24,
              "mtu": 1500,
              "gateway6": "fd77::1",
              "prefix6": 64
            }
          ],
          "nodes": [
            {
              "name": "primary",
              "index": 0,
              "interfaces": [
                {
                  "network": "default",
                  "ip": "10.77.0.11",
                  "ip6": "fd77::11",
                  "mac": "52:54:00:4d:00:0b",
                  "tap": "tap0"
                }
              ],
              "cpus": 2,
              "memory": 268435456,
              "kernel": "/cache/vmlinuz",
              "initramfs": "initramfs",
              "cmdline": "console=ttyS0 panic=-1 reboot=t net.ifnames=0 quiet",
              "disks": [
                {
                  "path": "/cache/fixtures/1.ext4",
                  "label": "schema",
                  "at": "/fixtures/schema",
                  "read_only": true
                }
              ]
            },
            {
              "name": "standby",
              "index": 1,
              "interfaces": [
                {
                  "network": "default",
                  "ip": "10.77.0.12",
                  "ip6": "fd77::12",
                  "mac": "52:54:00:4d:00:0c",
                  "tap": "tap1"
                }
              ],
              "cpus": 1,
              "memory": 268435456,
              "kernel": "/cache/vmlinuz",
              "initramfs": "initramfs",
              "cmdline": "console=ttyS0 panic=-1 reboot=t net.ifnames=0",
              "disks": []
            }
          ],
          "base_initramfs": [
            "/cache/initramfs.cpio",
            "/cache/initramfs.cpio"
          ],
          "claim": {
            "memory": 746586112,
            "cpus": 3,
            "disk": 0
          },
          "spare": {
            "memory": 0,
            "cpus": 0,
            "disk": 0
          },
          "timeout": {
            "secs": 120,
            "nanos": 0
          },
          "boot_timeout": {
            "secs": 120,
            "nanos": 0
          },
          "timeout_scale": 4.0
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&plan).unwrap());
}

#[test]
fn all_problems_are_named_at_once() {
    let mut facts = facts();
    facts.backend = Err("no QEMU".into());
    facts.images.insert("debain".into(), Err("unknown; known are micro".into()));
    facts.missing.push("/dev/net/tun is not there".into());
    let mut spec = ClusterSpec::new("suite::broken");
    spec.nodes = vec![NodeSpec::new("a").cpus(0).memory(1), NodeSpec::new("a").image("debain"), NodeSpec::new("Über")];
    let error = plan(&spec, &facts).unwrap_err();
    assert_eq!(error.kind(), Kind::Spec);
    expect![[r#"
        `suite::broken` cannot run, for 7 reasons:
          - `Über` is no host name: it may hold a-z, 0-9 and `-`
          - two nodes are called `a`: give each its own name
          - no QEMU
          - /dev/net/tun is not there
          - image `debain`: unknown; known are micro
          - node `a`: `cpus` must be at least 1
          - node `a`: 0 MiB of memory, but the image needs at least 96 MiB"#]]
    .assert_eq(&error.to_string());
}

#[test]
fn more_nodes_than_addresses_is_refused() {
    let mut spec = ClusterSpec::new("big");
    spec.nodes = (0..245).map(|i| NodeSpec::new(format!("n{i}"))).collect();
    let error = plan(&spec, &facts()).unwrap_err().to_string();
    assert!(error.contains("245 nodes, but the network has addresses for 244"), "{error}");
}

#[test]
fn who_joins_later_is_beside_those_that_are_there() {
    let mut spec = ClusterSpec::new("t");
    spec.nodes = vec![NodeSpec::new("a"), NodeSpec::new("b").ip([10, 77, 0, 13]).mac("02:00:00:00:00:02")];
    let Plan { nodes: there, networks, .. } = plan(&spec, &facts()).unwrap();
    let late = |nodes: Vec<NodeSpec>| plan_more(&ClusterSpec { nodes, ..spec.clone() }, &facts(), &networks, &there, 2);

    // Its position's address is taken; that of `b`, which has another, is not.
    let planned = late(vec![NodeSpec::new("c"), NodeSpec::new("d").ip([10, 77, 0, 99])]).unwrap();
    let ips: Vec<_> = planned.iter().map(|(node, _)| node.interfaces[0].ip.octets()[3]).collect();
    assert_eq!(ips, [12, 99]);
    assert_eq!(planned[1].0.interfaces[0].ip6.to_string(), "fd77::99");

    let same = NodeSpec::new("c").ip([10, 77, 0, 11]).mac("02:00:00:00:00:02");
    let error = late(vec![same]).unwrap_err().to_string();
    for said in ["node `c`: `ip` 10.77.0.11 is that of `a`", "node `c`: `mac` 02:00:00:00:00:02 is that of `b`"] {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn only_who_asks_for_a_way_out_has_one() {
    let mut spec = ClusterSpec::new("t");
    spec.nodes = vec![NodeSpec::new("a")];
    assert_eq!(plan(&spec, &facts()).unwrap().egress, None);
    spec.egress = true;
    let egress = plan(&spec, &facts()).unwrap().egress;
    expect![[r#"
        {
          "way": {
            "kind": "pasta"
          },
          "uplink": "uplink",
          "address": "192.0.2.2",
          "gateway": "192.0.2.1",
          "prefix": 30,
          "mtu": 1500
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&egress).unwrap());

    let free = HostFacts { prefix: "vt0000000a".into(), numbers: vec![7] };
    let egress = plan(&spec, &Facts { egress: Some(free), ..facts() }).unwrap().egress;
    expect![[r#"
        {
          "way": {
            "kind": "pair",
            "link": "vt0000000aup",
            "mac": "52:54:00:4d:07:01"
          },
          "uplink": "uplink",
          "address": "10.77.7.2",
          "gateway": "10.77.7.1",
          "prefix": 30,
          "mtu": 1500
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&egress).unwrap());
}

#[test]
fn a_node_has_its_own_rate_or_that_of_the_test() {
    let mut spec = ClusterSpec::new("t");
    spec.mtu = Some(1400);
    spec.defaults.rate = Some(10_000_000);
    spec.nodes = vec![NodeSpec::new("a"), NodeSpec::new("b").rate(64_000)];
    let planned = plan(&spec, &facts()).unwrap();
    let rates: Vec<_> = planned.nodes.iter().map(|node| node.interfaces[0].rate.clone().unwrap()).collect();
    assert_eq!((planned.networks[0].mtu, rates[0].bits, rates[1].bits), (1400, 10_000_000, 64_000));
    assert_eq!((rates[1].burst, rates[1].ifb.as_str()), (1418, "ifb1"));
    let late = ClusterSpec { nodes: vec![NodeSpec::new("late")], ..spec.clone() };
    let (late, _) = plan_more(&late, &facts(), &planned.networks, &planned.nodes, 2).unwrap().remove(0);
    assert_eq!(late.interfaces[0].rate.clone().unwrap().ifb, "ifb2");

    let mut facts = facts();
    facts.backend = Ok(backend("fake", true, &[Capability::Faults], 100 << 20));
    spec.mtu = Some(576);
    let scripted = Fake::new().on("true", spec::Reply::default());
    spec.nodes = vec![NodeSpec::new("a").fake(scripted), NodeSpec::new("b").rate(1)];
    expect![[r#"
        `t` cannot run, for 3 reasons:
          - an `mtu` of 576 bytes: it can be 1280 to 65521
          - node `a`: `rate` limits a port of the bridge, and a machine with replies has none: leave out one of the two
          - node `b`: a `rate` of 1 bits a second: it can be 64000 to 100000000000"#]]
    .assert_eq(&plan(&spec, &facts).unwrap_err().to_string());
}

#[test]
fn two_fixtures_at_one_place_are_refused() {
    let mut spec = ClusterSpec::new("twice");
    spec.nodes = vec![NodeSpec::new("a")];
    spec.nodes[0].settings.fixtures = vec![schema(), schema()];
    let error = plan(&spec, &facts()).unwrap_err().to_string();
    assert!(error.contains("two fixtures at `/fixtures/schema`"), "{error}");
}

#[test]
fn fixtures_are_where_they_can_be() {
    let problems = |places: &[&str]| {
        let mut spec = ClusterSpec::new("t");
        spec.nodes = vec![NodeSpec::new("a").disk(1 << 30)];
        let at = |at: &&str| FixtureSpec { at: Some((*at).to_owned()), ..schema() };
        spec.nodes[0].settings.fixtures = places.iter().map(at).collect();
        plan(&spec, &facts()).map(|plan| plan.nodes[0].disks[0].at.clone()).map_err(|e| e.to_string())
    };
    assert_eq!(problems(&["//srv/./www/"]).unwrap(), "/srv/www");
    assert_eq!(problems(&["/srv", "/srv2", "/usr/share/x"]).unwrap(), "/srv");
    for (places, said) in [
        (&["srv"] as &[&str], "cannot be mounted at `srv`: give an absolute path"),
        (&["/a b"], "without spaces"),
        (&["/a/../b"], "without `..`"),
        (&["/"], "hide all files"),
        (&["/etc/"], "hide the guest's own files"),
        (&["/proc/x"], "the kernel's"),
        (&["/srv/www", "/srv"], "the fixtures at `/srv/www` and `/srv` one is inside the other"),
        (&["/srv", "/srv/"], "two fixtures at `/srv`"),
        (&["/scratch/x"], "give the fixture at `/scratch/x` another `at`"),
    ] {
        let error = problems(places).unwrap_err();
        assert!(error.contains(said), "{places:?}: {error}");
    }
}

#[test]
fn a_scratch_disk_is_the_last_and_has_its_place() {
    let mut spec = ClusterSpec::new("t");
    spec.defaults.disk = Some(1 << 30);
    spec.nodes = vec![NodeSpec::new("a"), NodeSpec::new("b").disk(32 << 20)];
    spec.nodes[0].settings.fixtures.push(schema());
    let nodes = plan(&spec, &facts()).unwrap().nodes;
    assert_eq!([nodes[0].scratch, nodes[1].scratch], [Some(1 << 30), Some(32 << 20)]);
    let last = nodes[0].disks.last().unwrap();
    assert_eq!((last.path.as_str(), last.at.as_str(), last.read_only), ("scratch/disk.ext4", "/scratch", false));

    spec.nodes[1] = NodeSpec::new("b").disk(1 << 20);
    spec.nodes[0].settings.fixtures[0].at = Some("/scratch".into());
    let error = plan(&spec, &facts()).unwrap_err().to_string();
    for said in
        ["node `a`: its `disk` is mounted at `/scratch`", "node `b`: a `disk` of 1 MiB, but it takes at least 16"]
    {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_cluster_claims_what_its_machines_take() {
    let mut spec = ClusterSpec::new("t");
    spec.nodes = vec![NodeSpec::new("a").memory(1 << 30).cpus(2), NodeSpec::new("b").disk(1 << 30)];
    let claimed = plan(&spec, &facts()).unwrap();
    let of_nodes = Resources { memory: (1 << 30) + (256 << 20) + (200 << 20), cpus: 3, disk: 1 << 30 };
    assert_eq!((claimed.claim, claimed.spare), (of_nodes, Resources::NONE));

    // Those that join later have the defaults of the test, unless it says otherwise.
    spec.defaults.memory = Some(300 << 20);
    spec.budget = spec::Budget::nodes(2).disk(3 << 20);
    let kept = Resources { memory: 800 << 20, cpus: 2, disk: 6 << 20 };
    let claimed = plan(&spec, &facts()).unwrap();
    assert_eq!((claimed.spare, claimed.claim.disk), (kept, (1 << 30) + (6 << 20)));
    spec.budget = spec::Budget::nodes(2).memory(1 << 30).cpus(2);
    assert_eq!(plan(&spec, &facts()).unwrap().spare, Resources { memory: (2 << 30) + (200 << 20), cpus: 4, disk: 0 });
}

#[test]
fn a_machine_that_is_none_takes_next_to_nothing() {
    let mut facts = facts();
    facts.backend = Ok(backend("fake", true, &[], 4 << 20));
    let mut spec = ClusterSpec::new("t");
    spec.nodes = (0..100).map(|n| NodeSpec::new(format!("n{n}")).memory(64 << 30).cpus(64).disk(1 << 40)).collect();
    assert_eq!(plan(&spec, &facts).unwrap().claim, Resources { memory: 400 << 20, cpus: 0, disk: 0 });
}

#[test]
fn a_cluster_larger_than_the_host_is_refused_with_both_numbers() {
    let mut spec = ClusterSpec::new("large");
    spec.nodes = (0..3).map(|n| NodeSpec::new(format!("n{n}")).memory(2 << 30).disk(10 << 30)).collect();
    let error = plan(&spec, &facts()).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    expect![[r#"
        `large` cannot run, for 2 reasons:
          - its machines take 6.3 GiB of memory, with what each needs beside its own, but this host has 4.0 GiB for machines: give them less `memory`, or count on guests that leave theirs untouched with VMTEST_BUDGET="memory=6444MiB"
          - its machines take 30.0 GiB of disk, but there is room for 20.0 GiB in the cache: give them a smaller `disk`, set VMTEST_CACHE to another file system, or count on disks that stay sparse with VMTEST_BUDGET="disk=30720MiB""#]]
    .assert_eq(&error.to_string());

    for (limit, said) in [
        (
            MemoryLimit::Cgroup,
            "but the cgroup of this process has 4.0 GiB for machines: give them less `memory`, or raise",
        ),
        (
            MemoryLimit::Setting,
            "but VMTEST_BUDGET has 4.0 GiB for machines: give them less `memory`, or raise it to VM",
        ),
    ] {
        let budget = BudgetFacts { memory_of: limit, ..facts().budget };
        let error = plan(&spec, &Facts { budget, ..facts() }).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }

    spec.nodes.truncate(1);
    plan(&spec, &facts()).unwrap();
    spec.budget = spec::Budget::nodes(6);
    assert!(plan(&spec, &facts()).unwrap_err().to_string().contains("take 4.2 GiB of memory"));
    spec.budget = spec::Budget::default();
    let Plan { nodes: there, networks, .. } = plan(&spec, &facts()).unwrap();
    let late = ClusterSpec { nodes: vec![NodeSpec::new("late").memory(2 << 30)], ..spec.clone() };
    assert!(
        plan_more(&late, &facts(), &networks, &there, 1).unwrap_err().to_string().contains("take 4.2 GiB of memory")
    );
    plan_more(&late, &facts(), &networks, &[], 1).unwrap();
}

#[test]
fn more_cpus_than_there_are_are_all_of_them() {
    let mut spec = ClusterSpec::new("t");
    spec.nodes = (0..3).map(|n| NodeSpec::new(format!("n{n}")).cpus(4)).collect();
    assert_eq!(plan(&spec, &facts()).unwrap().claim.cpus, HOST.cpus);
}

#[test]
fn in_the_hosts_network_a_cluster_has_what_is_free_there() {
    let host = Some(HostFacts { prefix: "vt0000000a".into(), numbers: vec![5, 9] });
    let facts = Facts { host, ..facts() };
    let mut spec = ClusterSpec::new("t");
    spec.nodes = vec![NodeSpec::new("a"), NodeSpec::new("b").network("default").network("back")];
    let planned = plan(&spec, &facts).unwrap();
    let text = |network: &NetworkPlan| {
        let NetworkPlan { bridge, mac, gateway, gateway6, host, .. } = network;
        let HostEndPlan { link, port, bridge_ip, bridge_ip6, bridge_mac } = host.as_ref().unwrap();
        format!("{bridge} {bridge_mac} {bridge_ip} {bridge_ip6} {port} - {link} {mac} {gateway} {gateway6}")
    };
    let expected = [
        "br0 52:54:00:4d:05:02 10.77.5.2 fd77:0:0:5::2 host0 - vt0000000an0 52:54:00:4d:05:01 10.77.5.1 fd77:0:0:5::1",
        "br1 52:54:00:4d:09:02 10.77.9.2 fd77:0:0:9::2 host1 - vt0000000an1 52:54:00:4d:09:01 10.77.9.1 fd77:0:0:9::1",
    ];
    assert_eq!(planned.networks.iter().map(text).collect::<Vec<_>>(), expected);
    let interfaces = planned.nodes.iter().flat_map(|node| &node.interfaces);
    let ips: Vec<_> = interfaces.map(|at| format!("{} {}", at.ip, at.ip6)).collect();
    let expected = ["10.77.5.11 fd77:0:0:5::11", "10.77.5.12 fd77:0:0:5::12", "10.77.9.12 fd77:0:0:9::12"];
    assert_eq!(ips, expected);

    (spec.place, spec.egress) = (NetworkPlace::Host, true);
    let [bridge, gateway] = ["bridge", "gateway"].map(NodeSpec::new);
    spec.nodes = vec![
        NodeSpec::new("hint").ip([10, 77, 0, 50]),
        bridge.ip([10, 77, 5, 2]).mac("52:54:00:4d:05:02"),
        gateway.ip([10, 77, 5, 1]).mac("52:54:00:4d:05:01"),
    ];
    let said = plan(&spec, &facts).unwrap_err().to_string();
    let remedy = "leave it out, because with `network = \"host\"` each run has the addresses that are free then";
    for said_of in [
        "`egress` and `network = \"host\"`: the way out leads from a network of the cluster's own".to_owned(),
        format!("node `hint`: `ip` 10.77.0.50 is outside of the network 10.77.5.0/24: {remedy}"),
        format!("node `bridge`: `ip` 10.77.5.2 is that of the bridge: {remedy}"),
        "node `bridge`: `mac` 52:54:00:4d:05:02 is that of the bridge: give it another".to_owned(),
        format!("node `gateway`: `ip` 10.77.5.1 is that of the gateway: {remedy}"),
        "node `gateway`: `mac` 52:54:00:4d:05:01 is that of the gateway: give it another".to_owned(),
    ] {
        assert!(said.contains(&said_of), "{said}");
    }
}

#[test]
fn a_kernel_takes_the_place_of_the_images_own() {
    let kernel = |path: &str, release: &str| {
        (path.into(), Ok(KernelFacts { path: path.into(), release: release.into(), modules: None }))
    };
    let mut facts = facts();
    facts.kernels = [kernel("/same", "6.1.0"), kernel("/next", "6.12.0")].into();
    let mut spec = ClusterSpec::new("t");
    spec.defaults.kernel = Some("/same".into());
    spec.nodes = vec![NodeSpec::new("a"), NodeSpec::new("b").kernel("/next")];
    let nodes = plan(&spec, &facts).unwrap().nodes;
    let planned: Vec<_> = nodes.iter().map(|node| (node.kernel.as_str(), node.foreign_kernel)).collect();
    assert_eq!(planned, [("/same", false), ("/next", true)]);
}

#[test]
fn a_kernel_by_name_brings_its_modules() {
    let mut facts = facts();
    let modules = ModulesFacts { usual: "/cache/usual.cpio".into(), nested: "/cache/nested.cpio".into() };
    let kernel = KernelFacts { path: "/cache/small".into(), release: "6.1.5-vmtest".into(), modules: Some(modules) };
    facts.kernels = [("small".into(), Ok(kernel))].into();
    facts.backend = Ok(backend("qemu", true, &[Capability::OwnKernel, Capability::Nested], 0));
    let nodes = vec![NodeSpec::new("a").kernel("small"), NodeSpec::new("b").kernel("small").nested(true)];
    let nodes = plan(&ClusterSpec { nodes, ..ClusterSpec::new("t") }, &facts).unwrap().nodes;
    let planned: Vec<_> = nodes.iter().map(|node| (node.modules.as_deref(), node.foreign_kernel)).collect();
    assert_eq!(planned, [(Some("/cache/usual.cpio"), false), (Some("/cache/nested.cpio"), false)]);
}

#[test]
fn a_kernel_that_cannot_be_is_refused() {
    let mut facts = facts();
    facts.kernels = [
        ("k/none".into(), Err("it is no bzImage".into())),
        ("/next".into(), Ok(KernelFacts { path: "/next".into(), release: "6.12.0".into(), modules: None })),
    ]
    .into();
    let nodes = vec![NodeSpec::new("a").kernel("k/none"), NodeSpec::new("b").kernel("/next").nested(true)];
    let spec = ClusterSpec { nodes, ..ClusterSpec::new("t") };
    let error = plan(&spec, &facts).unwrap_err();
    assert_eq!(error.kind(), Kind::Spec);
    expect![[r#"
        `t` cannot run, for 2 reasons:
          - kernel `k/none`: it is no bzImage
          - node `b`: `nested` takes modules of the image, which go with its own kernel, 6.1.0, and with no other: leave `kernel` out"#]]
    .assert_eq(&error.to_string());

    facts.backend = Ok(backend("fake", false, &[Capability::Faults], 0));
    let spec = ClusterSpec { nodes: vec![NodeSpec::new("a").kernel("/next")], ..ClusterSpec::new("t") };
    facts.kernels.remove(std::path::Path::new("k/none"));
    let error = plan(&spec, &facts).unwrap_err().to_string();
    let said = "`t` cannot run: node `a`: `kernel` is for a kernel of its own, which a machine of `fake` does not have";
    assert_eq!(error, said);
}
