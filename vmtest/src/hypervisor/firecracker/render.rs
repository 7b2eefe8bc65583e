//! From a node's plan to Firecracker's arguments and the calls of its API. Pure.

use super::{
    FirecrackerFacts,
    api::{API_SOCKET, put},
    config::{
        ACTIONS, Action, ActionType, BootSource, CacheType, CreateSnapshot, Drive, Entropy, LoadSnapshot,
        MachineConfig, MemBackend, MemBackendType, NetworkInterface, SnapshotType, Vsock,
    },
};
use crate::{
    hypervisor::{ApiCall, CONSOLE, LaunchPlan, Saved, VMM_LOG},
    plan::NodePlan,
};

/// The guest's vsock in the node's folder.
const VSOCK: &str = "./vsock.sock";
/// The lowest context id that a guest may have.
const FIRST_CID: u64 = 3;
/// What the VMM says of itself while the machine runs.
const LOG: &str = "firecracker.log";
/// What it counts, as a line of JSON every minute and at its end.
const METRICS: &str = "metrics.json";
/// By the keyboard's controller, the one device by which a guest can end this VMM, and which has no mouse and nothing to be
/// set.
const KEYBOARD: &str = "i8042.noaux i8042.nomux i8042.dumbkbd reboot=k";

/// What starting this node with Firecracker takes, from where it was saved if it shall go on there.
pub(super) fn render(node: &NodePlan, from: Option<&Saved>, facts: &FirecrackerFacts) -> LaunchPlan {
    let args = ["--api-sock", API_SOCKET, "--id", &node.name, "--log-path", LOG, "--level", "Info", "--show-level"];
    let pci = facts.has_pci.then_some("--enable-pci");
    LaunchPlan {
        program: facts.program.to_string_lossy().into_owned(),
        args: args.into_iter().chain(["--metrics-path", METRICS]).chain(pci).map(str::to_owned).collect(),
        sockets: vec![],
        files: vec![],
        api: match from {
            None => boot(node),
            Some(saved) => vec![load(saved)],
        },
        own_sockets: vec![API_SOCKET.into(), VSOCK.into()],
        own_files: vec![LOG.into(), METRICS.into()],
        console: CONSOLE.into(),
        console_is_stdout: true,
        log: VMM_LOG.into(),
        goes_on: from.is_some(),
        one_cpu: false,
        root: None,
    }
}

fn boot(node: &NodePlan) -> Vec<ApiCall> {
    let mut calls = vec![
        put("/machine-config", MachineConfig { vcpu_count: node.cpus, mem_size_mib: node.memory >> 20 }),
        put(
            "/boot-source",
            BootSource {
                kernel_image_path: node.kernel.clone(),
                initrd_path: node.initramfs.clone(),
                boot_args: format!("{} {KEYBOARD}", node.cmdline),
            },
        ),
    ];
    for (index, disk) in node.disks.iter().enumerate() {
        let drive_id = format!("disk{index}");
        let path = format!("/drives/{drive_id}");
        let drive = Drive {
            drive_id,
            path_on_host: disk.path.clone(),
            is_root_device: false,
            is_read_only: disk.read_only,
            cache_type: CacheType::Writeback,
        };
        calls.push(put(&path, drive));
    }
    for (index, interface) in node.interfaces.iter().enumerate() {
        let iface_id = format!("net{index}");
        let path = format!("/network-interfaces/{iface_id}");
        let (host_dev_name, guest_mac) = (interface.tap.clone(), interface.mac.clone());
        calls.push(put(&path, NetworkInterface { iface_id, host_dev_name, guest_mac }));
    }
    calls.push(put("/entropy", Entropy {}));
    calls.push(put("/vsock", Vsock { guest_cid: FIRST_CID + node.index as u64, uds_path: VSOCK.into() }));
    calls.push(put(ACTIONS, Action { action_type: ActionType::InstanceStart }));
    calls
}

/// Where a machine is saved in a directory: its devices, and its memory.
fn files(dir: &str) -> (String, String) {
    (format!("{dir}/state"), format!("{dir}/memory"))
}

/// The call that saves a machine in this directory of its folder.
pub(super) fn save(dir: &str) -> ApiCall {
    let (snapshot_path, mem_file_path) = files(dir);
    put("/snapshot/create", CreateSnapshot { snapshot_type: SnapshotType::Full, snapshot_path, mem_file_path })
}

fn load(saved: &Saved) -> ApiCall {
    let (snapshot_path, backend_path) = files(&saved.dir);
    let mem_backend = MemBackend { backend_type: MemBackendType::File, backend_path };
    put("/snapshot/load", LoadSnapshot { snapshot_path, mem_backend, resume_vm: true })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::hypervisor::example;

    fn node() -> NodePlan {
        NodePlan { kernel: "/cache/vmlinux".into(), ..example::node() }
    }

    /// The plan with each call in a line.
    fn check(from: Option<&Saved>, has_pci: bool, expected: Expect) {
        let facts = FirecrackerFacts { program: "/usr/bin/firecracker".into(), version: "1.16.1".into(), has_pci };
        let mut plan = render(&node(), from, &facts);
        let calls = std::mem::take(&mut plan.api)
            .into_iter()
            .map(|ApiCall { method, path, body }| format!("{method} {path} {}\n", body.unwrap_or_default()));
        let calls: String = calls.collect();
        expected.assert_eq(&(calls + &serde_json::to_string_pretty(&plan).unwrap()));
    }

    #[test]
    fn a_node_becomes_arguments_and_calls() {
        check(
            None,
            true,
            expect![[r#"
                PUT /machine-config {"mem_size_mib":256,"vcpu_count":2}
                PUT /boot-source {"boot_args":"console=ttyS0 panic=-1 i8042.noaux i8042.nomux i8042.dumbkbd reboot=k","initrd_path":"initramfs","kernel_image_path":"/cache/vmlinux"}
                PUT /drives/disk0 {"cache_type":"Writeback","drive_id":"disk0","is_read_only":true,"is_root_device":false,"path_on_host":"/cache/a.ext4"}
                PUT /drives/disk1 {"cache_type":"Writeback","drive_id":"disk1","is_read_only":false,"is_root_device":false,"path_on_host":"scratch/disk.ext4"}
                PUT /network-interfaces/net0 {"guest_mac":"52:54:00:4d:01:0b","host_dev_name":"tap1","iface_id":"net0"}
                PUT /network-interfaces/net1 {"guest_mac":"52:54:00:4d:02:0b","host_dev_name":"tap1-1","iface_id":"net1"}
                PUT /entropy {}
                PUT /vsock {"guest_cid":4,"uds_path":"./vsock.sock"}
                PUT /actions {"action_type":"InstanceStart"}
                {
                  "program": "/usr/bin/firecracker",
                  "args": [
                    "--api-sock",
                    "api.sock",
                    "--id",
                    "primary",
                    "--log-path",
                    "firecracker.log",
                    "--level",
                    "Info",
                    "--show-level",
                    "--metrics-path",
                    "metrics.json",
                    "--enable-pci"
                  ],
                  "sockets": [],
                  "own_sockets": [
                    "api.sock",
                    "./vsock.sock"
                  ],
                  "own_files": [
                    "firecracker.log",
                    "metrics.json"
                  ],
                  "console": "console.log",
                  "console_is_stdout": true,
                  "log": "vmm.log"
                }"#]],
        );
    }

    #[test]
    fn an_older_vmm_has_no_bus_and_what_was_saved_is_mapped() {
        let saved = Saved { dir: "scratch/snapshot-a".into(), mappable: true };
        check(
            Some(&saved),
            false,
            expect![[r#"
                PUT /snapshot/load {"mem_backend":{"backend_path":"scratch/snapshot-a/memory","backend_type":"File"},"resume_vm":true,"snapshot_path":"scratch/snapshot-a/state"}
                {
                  "program": "/usr/bin/firecracker",
                  "args": [
                    "--api-sock",
                    "api.sock",
                    "--id",
                    "primary",
                    "--log-path",
                    "firecracker.log",
                    "--level",
                    "Info",
                    "--show-level",
                    "--metrics-path",
                    "metrics.json"
                  ],
                  "sockets": [],
                  "own_sockets": [
                    "api.sock",
                    "./vsock.sock"
                  ],
                  "own_files": [
                    "firecracker.log",
                    "metrics.json"
                  ],
                  "console": "console.log",
                  "console_is_stdout": true,
                  "log": "vmm.log",
                  "goes_on": true
                }"#]],
        );
        let call = save("scratch/snapshot-a");
        let body = r#"{"mem_file_path":"scratch/snapshot-a/memory","snapshot_path":"scratch/snapshot-a/state","snapshot_type":"Full"}"#;
        assert_eq!(
            format!("{} {} {}", call.method, call.path, call.body.unwrap()),
            format!("PUT /snapshot/create {body}")
        );
    }
}
