use expect_test::expect;

use super::*;
use crate::plan::{BackendFacts, FixtureFacts, ImageFacts};

fn facts() -> Facts {
    let micro = ImageFacts { kernel: "/cache/vmlinuz".into(), initramfs: "/cache/initramfs.cpio".into() };
    Facts {
        backend: Ok(BackendFacts { name: "qemu".into(), capabilities: QEMU }),
        images: [("micro".to_owned(), Ok(micro))].into(),
        fixtures: vec![(
            schema().fixture,
            Ok(FixtureFacts { path: "/cache/fixtures/1.ext4".into(), label: "schema".into() }),
        )],
        missing: vec![],
        timeout_scale: 1.0,
    }
}

const QEMU: Capabilities = Capabilities { emulated: true, own_kernel: true, faults: false };

fn schema() -> FixtureSpec {
    FixtureSpec { fixture: "/src/schema".into(), at: None }
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
            "own_kernel": true,
            "faults": false
          },
          "network": {
            "bridge": "br0",
            "mac": "52:54:00:4d:00:01",
            "gateway": "10.77.0.1",
            "prefix": 24,
            "gateway6": "fd77::1",
            "prefix6": 64
          },
          "nodes": [
            {
              "name": "primary",
              "index": 0,
              "ip": "10.77.0.11",
              "ip6": "fd77::11",
              "mac": "52:54:00:4d:00:0b",
              "tap": "tap0",
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
              "ip": "10.77.0.12",
              "ip6": "fd77::12",
              "mac": "52:54:00:4d:00:0c",
              "tap": "tap1",
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
    assert_eq!(error, "`big` cannot run: 245 nodes, but the network has addresses for 244");
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
