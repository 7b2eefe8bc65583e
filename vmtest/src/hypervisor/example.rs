//! A machine for tests: with two networks, a disk that is read and one that it writes.

use crate::plan::{DiskPlan, DiskRatePlan, InterfacePlan, NodePlan};

pub(super) fn node() -> NodePlan {
    let interface = |network: u8, tap: &str| InterfacePlan {
        network: format!("net{network}"),
        ip: [10, 77, network, 11].into(),
        ip6: "fd77::11".parse().unwrap(),
        mac: format!("52:54:00:4d:0{network}:0b"),
        tap: tap.into(),
        rate: None,
    };
    let disk = |path: &str, read_only| DiskPlan {
        path: path.into(),
        label: "l".into(),
        at: "/srv".into(),
        read_only,
        below: None,
        volume: None,
    };
    NodePlan {
        name: "primary".into(),
        index: 1,
        interfaces: vec![interface(1, "tap1"), interface(2, "tap1-1")],
        cpus: 2,
        max_cpus: None,
        hotplug: false,
        screen: false,
        memory: 256 << 20,
        max_memory: None,
        disk_rate: DiskRatePlan::default(),
        kernel: "/cache/vmlinuz".into(),
        foreign_kernel: false,
        modules: None,
        initramfs: "initramfs".into(),
        told: None,
        cmdline: "console=ttyS0 panic=-1".into(),
        fake: None,
        nested: false,
        snapshots: false,
        scratch: Some(1 << 30),
        root: false,
        entrypoint: None,
        cloud: None,
        image_digest: None,
        login: None,
        ready: None,
        firmware: None,
        disks: vec![disk("/cache/a.ext4", true), disk("scratch/disk.ext4", false)],
    }
}
