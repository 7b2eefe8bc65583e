//! What the framework adds to a bare QEMU command with the same kernel and initramfs, measured in turns in one run.
//!
//! `cargo bench -p vmtest-tests --bench overhead`

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use vmtest::{evidence::Event, prelude::*};
use vmtest_images::{Cache, GuestConfig, HostKey, Interface, Mount, append_seed, ensure};

/// Runs of each; a boot under emulation spreads by 20 %.
const RUNS: usize = 7;
/// What our init prints before it starts the SSH server.
const READY: &str = "vmtest: ready";

/// One run of the framework.
#[derive(Default)]
struct Measured {
    ready: Duration,
    teardown: Duration,
    whole: Duration,
}

fn main() {
    let image = ensure(&Cache::open(Cache::default_dir()).expect("a cache"), "micro", &()).expect("an image");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let initramfs = dir.path().join("initramfs");
    append_seed(&image.initramfs, &initramfs, &config()).expect("it can be written");

    let mut rows: [Vec<Duration>; 5] = Default::default();
    for _ in 0..RUNS {
        let one = framework(1);
        let three = framework(3);
        let row = [bare(&image.kernel, &initramfs), one.ready, one.whole, three.ready, three.teardown];
        rows.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let [bare, ready, whole, three, teardown] = rows.map(median);
    let line = |name: &str, value: Duration| {
        let ratio = value.as_secs_f64() / bare.as_secs_f64();
        println!("{name:<44}{:>8.3} s{ratio:>8.2}", value.as_secs_f64());
    };
    println!("medians of {RUNS} runs, and each over the first");
    line("bare QEMU, to the last line of its init", bare);
    line("one machine, to an authenticated command", ready);
    line("one machine, from nothing to nothing", whole);
    line("three machines, to authenticated commands", three);
    line("three machines, teardown", teardown);
}

fn framework(nodes: usize) -> Measured {
    let seen = Arc::new(Mutex::new(Measured::default()));
    let tell = seen.clone();
    let names = ["alice", "bob", "carol"].into_iter().take(nodes);
    let cluster = names.fold(Cluster::builder(), |cluster, name| cluster.node(NodeSpec::new(name)));
    let began = Instant::now();
    let observed = cluster.observe(move |event| {
        let mut seen = tell.lock().expect("nobody panics with it");
        match event {
            Event::Ready { after } => seen.ready = *after,
            Event::TornDown { took, .. } => seen.teardown = *took,
            _ => {}
        }
    });
    observed.run(async |_| ()).expect("it passes");
    let mut seen = std::mem::take(&mut *seen.lock().expect("nobody panics with it"));
    seen.whole = began.elapsed();
    seen
}

fn bare(kernel: &Path, initramfs: &Path) -> Duration {
    let began = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "256M"])
        .args(["-append", "console=ttyS0 panic=-1 reboot=t net.ifnames=0", "-serial", "stdio"])
        .args(["-netdev", "user,id=net0,restrict=on", "-device", "virtio-rng-pci"])
        .args(["-device", "virtio-net-pci,netdev=net0,mac=52:54:00:4d:00:0b,romfile="])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("QEMU is on PATH");
    let stdout = qemu.stdout.take().expect("it was asked for");
    let ready = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
    let ready = ready.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| line.contains(READY));
    let took = began.elapsed();
    qemu.kill().expect("it can be ended");
    qemu.wait().expect("it can be waited for");
    assert!(ready, "the guest did not come up");
    took
}

fn config() -> GuestConfig {
    let interface = Interface {
        mac: "52:54:00:4d:00:0b".into(),
        address: "10.77.0.11/24".into(),
        gateway: Some("10.77.0.1".into()),
        address6: None,
    };
    GuestConfig {
        hostname: "alice".into(),
        interfaces: vec![interface],
        hosts: vec![("10.77.0.11".into(), "alice".into())],
        authorized_key: "ssh-ed25519 AAAA".into(),
        host_key: HostKey { private: [1; 32], public: [2; 32] },
        mounts: Vec::<Mount>::new(),
    }
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}
