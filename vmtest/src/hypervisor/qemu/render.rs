//! From a node's plan to QEMU's arguments. Pure.

use serde_json::{Map, Value, json};
use vmtest_images::FIRMWARE_FILE;

use super::{
    Accelerator,
    saving::{MEMORY, STATE, capabilities},
};
use crate::{
    hypervisor::{ApiCall, CONSOLE, LaunchPlan, ListeningSocket, OpenFile, Saved, VMM_LOG},
    plan::{BIOS, DiskPlan, DiskRatePlan, HOTPLUG_PLACES, InterfacePlan, NodePlan},
};

/// The control socket's name in the node's folder.
pub(super) const QMP_SOCKET: &str = "qmp.sock";
/// The first descriptor after stdin, stdout and stderr.
const QMP_FD: i32 = 3;
/// The next one, of what was saved.
const STATE_FD: i32 = 4;

/// The processor that is emulated: all that QEMU can, but that it claims to be fast at moving bytes one by one. A real one is; here
/// each of them is a round of a loop, and kernels move eight at a time where they are not told so: Debian's takes 0.95 of the
/// time to its first process.
const EMULATED: &str = "max,-erms,-fsrm";
/// The same for a machine that runs machines.
const EMULATED_NESTED: &str = "max,+svm,-erms,-fsrm";

/// What an emulated machine is told before its own arguments: to try no ciphers while it boots, which takes 0.26 s of it, and not to
/// wait and see whether its clock ticks, without which Debian's kernel takes 0.95 of the time to its first process.
const EMULATED_ARGUMENTS: &str = "cryptomgr.notests no_timer_check";
/// One that has one processor, and gets no further ones, and runs no machines itself, is also told to take the clock of the machine,
/// which needs no calibration, and to leave the locks in its code as they are. The clock of the processor takes 0.11 s of each boot,
/// in which the guest waits; the locks cost nothing here, and to take them out of Debian's kernel 0.2 s.
const ALONE_ARGUMENTS: &str = "nolapic_timer noreplace-smp";

/// What starting this node with QEMU takes, from where it was saved if it shall go on there.
///
/// `-no-reboot` turns every guest reset, a panic's included, into an exit; whoever launched it decides what follows.
pub(super) fn render(node: &NodePlan, from: Option<&Saved>, program: &str, accelerator: Accelerator) -> LaunchPlan {
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // With a thread for each virtual CPU, guests of the guest die of triple faults at random points of their boot.
        Accelerator::Tcg if node.nested => ("tcg,thread=single", EMULATED_NESTED),
        Accelerator::Tcg => ("tcg,thread=multi", EMULATED),
    };
    let mut args = Arguments::default();
    args.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
    // A guest that panics tells first, and then what is left of its console: QEMU would end between the two.
    args.pair("-action", "panic=none");
    args.pair("-name", escape(&node.name));
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    let memory = memory(node, from);
    let machine = if memory.is_some() { "q35,memory-backend=memory" } else { "q35" };
    args.pair("-display", "none").pair("-machine", machine).pair("-accel", accel).pair("-cpu", cpu);
    let cpus = node.max_cpus.map(|max| format!("{},maxcpus={max}", node.cpus));
    args.pair("-smp", cpus.unwrap_or_else(|| node.cpus.to_string()))
        .pair("-m", format!("{}M", whole_memory(node) >> 20));
    if let Some(memory) = &memory {
        args.pair("-object", memory);
    }
    if from.is_some() {
        args.pair("-incoming", "defer");
    }
    match node.firmware.as_deref() {
        None => {
            let one = node.cpus == 1 && node.max_cpus.is_none() && !node.nested;
            let cmdline = match accelerator {
                Accelerator::Kvm => node.cmdline.clone(),
                Accelerator::Tcg if one => format!("{EMULATED_ARGUMENTS} {ALONE_ARGUMENTS} {}", node.cmdline),
                Accelerator::Tcg => format!("{EMULATED_ARGUMENTS} {}", node.cmdline),
            };
            args.pair("-kernel", &node.kernel).pair("-initrd", &node.initramfs).pair("-append", cmdline);
        }
        Some(BIOS) => {}
        Some(file) => {
            args.pair("-bios", file);
        }
    }
    if let Some(told) = &node.told {
        args.pair("-fw_cfg", format!("name={FIRMWARE_FILE},file={told}"));
    }
    args.pair("-chardev", format!("file,id=console,path={CONSOLE},append=on")).pair("-serial", "chardev:console");
    args.pair("-chardev", format!("socket,id=qmp,fd={QMP_FD},server=on,wait=off"));
    args.pair("-mon", "chardev=qmp,mode=control");
    for (index, disk) in node.disks.iter().enumerate() {
        if !node.disk_rate.is_none() {
            args.pair("-object", throttle_group(index, node.disk_rate));
        }
        args.pair("-blockdev", blockdev(index, disk, node.disk_rate));
        let first = if node.firmware.is_some() && index == 0 { ",bootindex=0" } else { "" };
        args.pair("-device", format!("virtio-blk-pci,drive=disk{index}{first}"));
    }
    for (index, InterfacePlan { tap, mac, .. }) in node.interfaces.iter().enumerate() {
        args.pair("-netdev", format!("tap,id=net{index},ifname={tap},script=no,downscript=no,vhost=off"));
        args.pair("-device", format!("virtio-net-pci,netdev=net{index},mac={mac},romfile="));
    }
    args.pair("-device", "virtio-rng-pci").pair("-device", "pvpanic-pci");
    // The bus of the machine itself takes nothing while it runs.
    for place in 0..if node.hotplug { HOTPLUG_PLACES } else { 0 } {
        args.pair("-device", format!("pcie-root-port,id={},chassis={}", port(place), place + 1));
    }
    if node.max_memory.is_some() {
        args.pair("-device", "virtio-balloon-pci");
    }
    if node.screen {
        args.pair("-device", "VGA");
    }
    LaunchPlan {
        program: program.to_owned(),
        args: args.0,
        sockets: vec![ListeningSocket { path: QMP_SOCKET.into(), fd: QMP_FD }],
        files: from
            .map(|saved| OpenFile { path: format!("{}/{STATE}", saved.dir), fd: STATE_FD })
            .into_iter()
            .collect(),
        api: from.map_or_else(|| first_size(node), incoming),
        own_sockets: vec![],
        own_files: vec![],
        console: CONSOLE.into(),
        console_is_stdout: false,
        log: VMM_LOG.into(),
        goes_on: from.is_some(),
        // QEMU enters and leaves a guest's guest without its lock, and an interrupt that another thread raises in that moment
        // is lost: a timer that was set for once is never heard of again, and everything stands still. Seen with 7.2 within
        // two minutes of such guests, three times of three; on one CPU not in eight minutes.
        one_cpu: node.nested && accelerator == Accelerator::Tcg,
        root: None,
    }
}

/// Where the guest's memory is. Of a machine that can be saved, it is shared with whoever opens it, which costs huge pages;
/// of one that was saved so, the file that was made then, of which what the guest writes is its own.
fn memory(node: &NodePlan, from: Option<&Saved>) -> Option<String> {
    let size = whole_memory(node) >> 20;
    match from {
        Some(saved) if saved.mappable => {
            let path = escape(&format!("{}/{MEMORY}", saved.dir));
            Some(format!("memory-backend-file,id=memory,size={size}M,mem-path={path},share=off"))
        }
        _ => node.snapshots.then(|| format!("memory-backend-memfd,id=memory,size={size}M,share=on")),
    }
}

/// What lets a machine in that was saved.
fn incoming(saved: &Saved) -> Vec<ApiCall> {
    vec![
        call("migrate-set-capabilities", json!({ "capabilities": capabilities(saved.mappable) })),
        call("migrate-incoming", json!({ "uri": format!("fd:{STATE_FD}") })),
    ]
}

/// What takes from a machine that boots what it is only given later.
fn first_size(node: &NodePlan) -> Vec<ApiCall> {
    let balloon = node.max_memory.map(|_| call("balloon", json!({ "value": node.memory })));
    balloon.into_iter().collect()
}

fn call(name: &str, arguments: Value) -> ApiCall {
    ApiCall { method: "execute".into(), path: name.into(), body: Some(arguments) }
}

/// In bytes, with what is in its balloon.
fn whole_memory(node: &NodePlan) -> u64 {
    node.max_memory.unwrap_or(node.memory)
}

/// What the disk at this place is plugged into.
pub(super) fn port(place: usize) -> String {
    format!("port{place}")
}

/// What a disk can do, of which a tenth of a second's worth may pass at once.
fn throttle_group(index: usize, rate: DiskRatePlan) -> String {
    rate_object(&format!("rate{index}"), rate).to_string()
}

/// The same as an object of the protocol.
pub(super) fn rate_object(id: &str, rate: DiskRatePlan) -> Value {
    let limits = [("bps-total", rate.bytes), ("iops-total", rate.operations.map(u64::from))];
    let limits: Map<_, _> = limits.into_iter().filter_map(|(name, limit)| Some((name.into(), limit?.into()))).collect();
    json!({ "qom-type": "throttle-group", "id": id, "limits": limits })
}

fn blockdev(index: usize, disk: &DiskPlan, rate: DiskRatePlan) -> String {
    let access = if disk.read_only { "on" } else { "off" };
    let format = if disk.below.is_some() { "qcow2" } else { "raw" };
    let (filter, raw) = if rate.is_none() {
        (format!("driver={format},node-name=disk{index},read-only={access}"), "")
    } else {
        let filter = format!("driver=throttle,node-name=disk{index},throttle-group=rate{index},read-only={access}");
        (format!("{filter},file.driver={format}"), "file.")
    };
    let file =
        |of: &str, path: &str| format!("{of}file.driver=file,{of}file.filename={},{of}file.locking=off", escape(path));
    let below = disk.below.as_ref().map(|below| {
        format!(",{raw}backing.driver=raw,{raw}backing.read-only=on,{}", file(&format!("{raw}backing."), below))
    });
    format!("{filter},{}{}", file(raw, &disk.path), below.unwrap_or_default())
}

/// A comma ends a value in QEMU's option lists unless it is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn pair(&mut self, flag: &str, value: impl AsRef<str>) -> &mut Self {
        self.flag(flag).flag(value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn interface(network: u8, tap: &str) -> InterfacePlan {
        InterfacePlan {
            network: format!("net{network}"),
            ip: [10, 77, network, 11].into(),
            ip6: "fd77::11".parse().unwrap(),
            mac: format!("52:54:00:4d:0{network}:0b"),
            tap: tap.into(),
            rate: None,
        }
    }

    fn node() -> NodePlan {
        NodePlan {
            name: "primary".into(),
            index: 0,
            interfaces: vec![interface(1, "tap0"), interface(2, "tap0-1")],
            nested: false,
            snapshots: false,
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
            scratch: None,
            root: false,
            entrypoint: None,
            cloud: None,
            image_digest: None,
            login: None,
            ready: None,
            firmware: None,
            disks: vec![DiskPlan {
                path: "/a,b.ext4".into(),
                label: "l".into(),
                at: "/srv".into(),
                read_only: true,
                below: None,
                volume: None,
            }],
        }
    }

    fn lines(node: &NodePlan, from: Option<&Saved>, accelerator: Accelerator) -> String {
        let plan = render(node, from, "/usr/bin/qemu-system-x86_64", accelerator);
        plan.args.join("\n").replace("\n-", "\n~-").replace('\n', " ").replace(" ~", "\n")
    }

    /// The lines of the second that are not in the first.
    fn new(plain: &str, other: &str) -> String {
        other.lines().filter(|line| plain.lines().all(|known| known != *line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_it_can_be_given_and_slow_disks_become_arguments() {
        let usual = lines(&node(), None, Accelerator::Tcg);
        let disk_rate = DiskRatePlan { bytes: Some(10 << 20), operations: Some(500) };
        let node = NodePlan { max_cpus: Some(4), max_memory: Some(1 << 30), disk_rate, hotplug: true, ..node() };
        expect![[r#"
            -smp 2,maxcpus=4
            -m 1024M
            -object {"id":"rate0","limits":{"bps-total":10485760,"iops-total":500},"qom-type":"throttle-group"}
            -blockdev driver=throttle,node-name=disk0,throttle-group=rate0,read-only=on,file.driver=raw,file.file.driver=file,file.file.filename=/a,,b.ext4,file.file.locking=off
            -device pcie-root-port,id=port0,chassis=1
            -device pcie-root-port,id=port1,chassis=2
            -device pcie-root-port,id=port2,chassis=3
            -device pcie-root-port,id=port3,chassis=4
            -device virtio-balloon-pci"#]]
        .assert_eq(&new(&usual, &lines(&node, None, Accelerator::Tcg)));
        let plan = render(&node, None, "qemu", Accelerator::Tcg);
        expect![[r#"[{"method":"execute","path":"balloon","body":{"value":268435456}}]"#]]
            .assert_eq(&serde_json::to_string(&plan.api).unwrap());
    }

    #[test]
    fn a_node_becomes_arguments() {
        expect![[r#"
            -nodefaults
            -no-user-config
            -no-reboot
            -action panic=none
            -name primary
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -display none
            -machine q35
            -accel tcg,thread=multi
            -cpu max,-erms,-fsrm
            -smp 2
            -m 256M
            -kernel /cache/vmlinuz
            -initrd initramfs
            -append cryptomgr.notests no_timer_check console=ttyS0 panic=-1
            -chardev file,id=console,path=console.log,append=on
            -serial chardev:console
            -chardev socket,id=qmp,fd=3,server=on,wait=off
            -mon chardev=qmp,mode=control
            -blockdev driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=/a,,b.ext4,file.locking=off
            -device virtio-blk-pci,drive=disk0
            -netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off
            -device virtio-net-pci,netdev=net0,mac=52:54:00:4d:01:0b,romfile=
            -netdev tap,id=net1,ifname=tap0-1,script=no,downscript=no,vhost=off
            -device virtio-net-pci,netdev=net1,mac=52:54:00:4d:02:0b,romfile=
            -device virtio-rng-pci
            -device pvpanic-pci"#]]
        .assert_eq(&lines(&node(), None, Accelerator::Tcg));
    }

    #[test]
    fn an_emulated_machine_with_one_processor_does_at_boot_what_it_must() {
        let told = |node: &NodePlan, accelerator| lines(node, None, accelerator).contains(ALONE_ARGUMENTS);
        let one = NodePlan { cpus: 1, ..node() };
        assert!(told(&one, Accelerator::Tcg) && !told(&one, Accelerator::Kvm) && !told(&node(), Accelerator::Tcg));
        for other in [NodePlan { max_cpus: Some(2), ..one.clone() }, NodePlan { nested: true, ..one.clone() }] {
            assert!(!told(&other, Accelerator::Tcg));
        }
    }

    #[test]
    fn a_disk_can_be_a_layer_over_another() {
        let below = Some("/cache/a,b.raw".to_owned());
        let disk = DiskPlan {
            path: "scratch/disk.qcow2".into(),
            label: "".into(),
            at: "/".into(),
            read_only: false,
            below,
            volume: None,
        };
        let disk_rate = DiskRatePlan { bytes: Some(10 << 20), operations: None };
        let node = NodePlan { disks: vec![disk], ..node() };
        let usual = lines(&self::node(), None, Accelerator::Tcg);
        expect!["-blockdev driver=qcow2,node-name=disk0,read-only=off,file.driver=file,file.filename=scratch/disk.qcow2,file.locking=off,backing.driver=raw,backing.read-only=on,backing.file.driver=file,backing.file.filename=/cache/a,,b.raw,backing.file.locking=off"].assert_eq(&new(&usual, &lines(&node, None, Accelerator::Tcg)));
        let slow = lines(&NodePlan { disk_rate, ..node }, None, Accelerator::Tcg);
        expect!["-blockdev driver=throttle,node-name=disk0,throttle-group=rate0,read-only=off,file.driver=qcow2,file.file.driver=file,file.file.filename=scratch/disk.qcow2,file.file.locking=off,file.backing.driver=raw,file.backing.read-only=on,file.backing.file.driver=file,file.backing.file.filename=/cache/a,,b.raw,file.backing.file.locking=off"].assert_eq(slow.lines().find(|line| line.starts_with("-blockdev")).unwrap());
    }

    #[test]
    fn firmware_starts_the_first_disk_and_no_kernel() {
        let started = |firmware: &str| {
            let node = NodePlan { firmware: Some(firmware.into()), ..node() };
            new(&lines(&self::node(), None, Accelerator::Tcg), &lines(&node, None, Accelerator::Tcg))
        };
        assert_eq!(started("bios"), "-device virtio-blk-pci,drive=disk0,bootindex=0");
        expect![[r#"
            -bios /usr/share/ovmf/OVMF.fd
            -device virtio-blk-pci,drive=disk0,bootindex=0"#]]
        .assert_eq(&started("/usr/share/ovmf/OVMF.fd"));
        let node = NodePlan { firmware: Some("bios".into()), ..node() };
        let all = lines(&node, None, Accelerator::Tcg);
        assert!(!["-kernel", "-initrd", "-append"].iter().any(|word| all.contains(word)), "{all}");
    }

    #[test]
    fn the_firmware_hands_over_what_is_not_behind_the_initramfs() {
        let told = NodePlan { initramfs: "/cache/initramfs.cpio".into(), told: Some("facts.cpio".into()), ..node() };
        expect![[r#"
            -initrd /cache/initramfs.cpio
            -fw_cfg name=opt/vmtest/facts,file=facts.cpio"#]]
        .assert_eq(&new(&lines(&node(), None, Accelerator::Tcg), &lines(&told, None, Accelerator::Tcg)));
    }

    #[test]
    fn a_machine_has_a_screen_where_it_is_looked_at() {
        let screen = NodePlan { screen: true, ..node() };
        let added = new(&lines(&node(), None, Accelerator::Tcg), &lines(&screen, None, Accelerator::Tcg));
        assert_eq!(added, "-device VGA");
    }

    #[test]
    fn a_machine_that_runs_machines_is_emulated_otherwise() {
        let nested = NodePlan { nested: true, ..node() };
        expect![[r#"
            -accel tcg,thread=single
            -cpu max,+svm,-erms,-fsrm"#]]
        .assert_eq(&new(&lines(&node(), None, Accelerator::Tcg), &lines(&nested, None, Accelerator::Tcg)));
        assert!(render(&nested, None, "qemu", Accelerator::Tcg).one_cpu);
        assert_eq!(render(&node(), None, "qemu", Accelerator::Kvm), render(&nested, None, "qemu", Accelerator::Kvm));
    }

    #[test]
    fn a_machine_that_is_saved_has_its_memory_in_a_file() {
        let node = NodePlan { snapshots: true, ..node() };
        let first = lines(&node, None, Accelerator::Kvm);
        expect![[r#"
            -machine q35,memory-backend=memory
            -object memory-backend-memfd,id=memory,size=256M,share=on"#]]
        .assert_eq(&new(&lines(&self::node(), None, Accelerator::Kvm), &first));
        let saved = Saved { dir: "scratch/snapshot-1".into(), mappable: true };
        expect![[r#"
            -object memory-backend-file,id=memory,size=256M,mem-path=scratch/snapshot-1/memory,share=off
            -incoming defer"#]]
        .assert_eq(&new(&first, &lines(&node, Some(&saved), Accelerator::Kvm)));
    }
}
