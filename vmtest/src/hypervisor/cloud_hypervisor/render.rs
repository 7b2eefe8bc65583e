//! From a node's plan to cloud-hypervisor's arguments and the calls of its API. Pure.

use super::{
    ChvFacts,
    api::{API_SOCKET, put},
    config::{
        Balloon, Console, ConsoleMode, Cpus, Disk, ImageType, LandlockRule, Memory, Net, Payload, RateLimiter, Rng,
        TapAddress, TokenBucket, VmConfig, Vsock,
    },
    events::EVENTS,
};
use crate::{
    hypervisor::{ApiCall, CONSOLE, LaunchPlan, ListeningSocket, Saved, VMM_LOG},
    plan::{DiskPlan, DiskRatePlan, NodePlan, SCRATCH},
};

/// The first descriptor after stdin, stdout and stderr.
const API_FD: i32 = 3;
/// The guest's vsock in the node's folder. With its directory, to which Landlock has to allow it.
const VSOCK: &str = "./vsock.sock";
/// The lowest context id that a guest may have.
const FIRST_CID: u64 = 3;
/// What Linux asks of a disk at once, at most. A request that is larger than its bucket is let through, and what it took too
/// much is not owed: with buckets of a tenth of a mebibyte and a guest that reads ahead by an eighth, v53 let twice the rate pass.
const LARGEST_REQUEST: u64 = 1280 << 10;

/// What starting this node with cloud-hypervisor takes, from where it was saved if it shall go on there.
pub(super) fn render(node: &NodePlan, from: Option<&Saved>, facts: &ChvFacts) -> LaunchPlan {
    let (socket, events) = (format!("fd={API_FD}"), format!("path={EVENTS}"));
    let args = ["--api-socket", &socket, "--event-monitor", &events, "--seccomp", "true"];
    let api = match from {
        None => {
            let config = serde_json::to_value(config(node, facts)).expect("a configuration is plain data");
            vec![ApiCall { body: Some(config), ..put("vm.create") }, put("vm.boot")]
        }
        Some(saved) => {
            let source = serde_json::json!({ "source_url": url(&saved.dir) });
            vec![ApiCall { body: Some(source), ..put("vm.restore") }, put("vm.resume")]
        }
    };
    LaunchPlan {
        program: facts.program.to_string_lossy().into_owned(),
        args: args.map(str::to_owned).into(),
        sockets: vec![ListeningSocket { path: API_SOCKET.into(), fd: API_FD }],
        files: vec![],
        api,
        own_sockets: vec![VSOCK.into()],
        own_files: vec![],
        console: CONSOLE.into(),
        console_is_stdout: true,
        log: VMM_LOG.into(),
        goes_on: from.is_some(),
        one_cpu: false,
        root: None,
    }
}

/// A directory of the node's folder as the VMM takes it.
pub(super) fn url(dir: &str) -> String {
    format!("file://{dir}")
}

fn config(node: &NodePlan, facts: &ChvFacts) -> VmConfig {
    // Until v48 every tap gets an address, 192.168.249.1/24 unless told another; this one is nobody's, and leads nowhere.
    let address = || TapAddress { ip: "192.0.0.8".into(), mask: "255.255.255.255".into() };
    VmConfig {
        cpus: Cpus { boot_vcpus: node.cpus, max_vcpus: node.max_cpus.unwrap_or(node.cpus) },
        memory: Memory { size: node.max_memory.unwrap_or(node.memory) },
        balloon: node.max_memory.map(|max| Balloon { size: max - node.memory }),
        payload: Payload {
            kernel: node.kernel.clone(),
            initramfs: node.initramfs.clone(),
            cmdline: node.cmdline.clone(),
        },
        disks: node.disks.iter().map(|plan| disk(plan, node.disk_rate)).collect(),
        net: node
            .interfaces
            .iter()
            .map(|interface| Net {
                tap: interface.tap.clone(),
                mac: interface.mac.clone(),
                address: (!facts.leaves_taps_alone).then(address),
            })
            .collect(),
        rng: Rng { src: "/dev/urandom".into() },
        // A file is emptied with every boot; what is written to stdout is appended to what was there.
        serial: Console { mode: ConsoleMode::Tty },
        console: Console { mode: ConsoleMode::Off },
        vsock: Vsock { cid: FIRST_CID + node.index as u64, socket: VSOCK.into() },
        pvpanic: true,
        // By the option `--landlock` it is only had for a machine whose kernel is an option too.
        landlock_enable: facts.landlock,
        // The node's folder, in which the VMM makes its socket: until v47 it allows itself the socket alone.
        landlock_rules: if facts.landlock {
            // What is saved and plugged in later is elsewhere, beside the scratch disk.
            let dirs = [Some("."), (node.snapshots || node.hotplug).then_some(SCRATCH)].into_iter().flatten();
            dirs.map(|dir| LandlockRule { path: dir.into(), access: "rw".into() }).collect()
        } else {
            vec![]
        },
    }
}

/// A disk that is no faster than this.
pub(super) fn disk(disk: &DiskPlan, rate: DiskRatePlan) -> Disk {
    // A tenth of a second's worth, as QEMU has it, but no less than the largest request.
    let bucket = |a_second: u64, largest: u64| {
        let size = a_second.div_ceil(10).max(largest);
        TokenBucket { size, refill_time: (1000 * size).div_ceil(a_second) }
    };
    Disk {
        id: None,
        path: disk.path.clone(),
        readonly: disk.read_only,
        image_type: ImageType::Raw,
        sparse: !disk.read_only,
        rate_limiter_config: (!rate.is_none()).then(|| RateLimiter {
            bandwidth: rate.bytes.map(|bytes| bucket(bytes, LARGEST_REQUEST)),
            ops: rate.operations.map(|operations| bucket(operations.into(), 1)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::hypervisor::example::node;

    fn facts(leaves_taps_alone: bool, landlock: bool) -> ChvFacts {
        ChvFacts { program: "/usr/bin/cloud-hypervisor".into(), version: "54.0".into(), leaves_taps_alone, landlock }
    }

    #[test]
    fn a_node_becomes_arguments_and_calls() {
        let plan = render(&node(), None, &facts(true, true));
        expect![[r#"
            {
              "program": "/usr/bin/cloud-hypervisor",
              "args": [
                "--api-socket",
                "fd=3",
                "--event-monitor",
                "path=events.json",
                "--seccomp",
                "true"
              ],
              "sockets": [
                {
                  "path": "api.sock",
                  "fd": 3
                }
              ],
              "api": [
                {
                  "method": "PUT",
                  "path": "/api/v1/vm.create",
                  "body": {
                    "console": {
                      "mode": "Off"
                    },
                    "cpus": {
                      "boot_vcpus": 2,
                      "max_vcpus": 2
                    },
                    "disks": [
                      {
                        "image_type": "Raw",
                        "path": "/cache/a.ext4",
                        "readonly": true,
                        "sparse": false
                      },
                      {
                        "image_type": "Raw",
                        "path": "scratch/disk.ext4",
                        "readonly": false,
                        "sparse": true
                      }
                    ],
                    "landlock_enable": true,
                    "landlock_rules": [
                      {
                        "access": "rw",
                        "path": "."
                      }
                    ],
                    "memory": {
                      "size": 268435456
                    },
                    "net": [
                      {
                        "mac": "52:54:00:4d:01:0b",
                        "tap": "tap1"
                      },
                      {
                        "mac": "52:54:00:4d:02:0b",
                        "tap": "tap1-1"
                      }
                    ],
                    "payload": {
                      "cmdline": "console=ttyS0 panic=-1",
                      "initramfs": "initramfs",
                      "kernel": "/cache/vmlinuz"
                    },
                    "pvpanic": true,
                    "rng": {
                      "src": "/dev/urandom"
                    },
                    "serial": {
                      "mode": "Tty"
                    },
                    "vsock": {
                      "cid": 4,
                      "socket": "./vsock.sock"
                    }
                  }
                },
                {
                  "method": "PUT",
                  "path": "/api/v1/vm.boot"
                }
              ],
              "own_sockets": [
                "./vsock.sock"
              ],
              "console": "console.log",
              "console_is_stdout": true,
              "log": "vmm.log"
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&plan).unwrap());
    }

    #[test]
    fn what_it_can_be_given_and_slow_disks_are_configured() {
        let disk_rate = DiskRatePlan { bytes: Some(10 << 20), operations: Some(505) };
        let node = NodePlan { max_cpus: Some(4), max_memory: Some(1 << 30), disk_rate, ..node() };
        let plan = render(&node, None, &facts(true, true));
        let config = plan.api[0].body.as_ref().unwrap();
        let parts = ["cpus", "memory", "balloon"].map(|part| config[part].to_string());
        let disk = config["disks"][1]["rate_limiter_config"].to_string();
        expect![[r#"
            {"boot_vcpus":2,"max_vcpus":4}
            {"size":1073741824}
            {"size":805306368}
            {"bandwidth":{"refill_time":125,"size":1310720},"ops":{"refill_time":101,"size":51}}
        "#]]
        .assert_eq(&(parts.join("\n") + "\n" + &disk + "\n"));
    }

    #[test]
    fn an_older_vmm_on_an_older_kernel_is_told_other_things() {
        let plan = render(&node(), None, &facts(false, false));
        let config = plan.api[0].body.as_ref().unwrap();
        assert_eq!(config["landlock_enable"], false);
        assert_eq!(config.get("landlock_rules"), None);
        assert_eq!(config["net"][1]["tap"], "tap1-1");
        assert_eq!(config["net"][1]["ip"], "192.0.0.8");
        assert_eq!(config["net"][1]["mask"], "255.255.255.255");
    }
}
