//! Boots, beside bare QEMUs with the same kernel, initramfs and polling.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use vmtest::{Cluster, evidence::Event, spec::NodeSpec};
use vmtest_images::{Cache, GuestConfig, HostKey, Interface, append_seed, ensure};

use super::{Figure, Pairs, median};

/// As often as the framework knocks.
const KNOCK_EVERY: Duration = Duration::from_millis(20);
/// A guest that has not answered after this has failed.
const UP_WITHIN: Duration = Duration::from_secs(120);

/// What one run of the framework took.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    network: Duration,
    to_body: Duration,
    teardown: Duration,
}

pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let cache = Cache::open(Cache::default_dir(rustix::process::geteuid().as_raw())).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &"micro".into(), &()).map_err(|e| e.to_string())?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let initramfs = dir.path().join("initramfs");
    append_seed(&image.initramfs, &initramfs, &config()).map_err(|e| e.to_string())?;

    let (mut one, mut three) = (Pairs::default(), Pairs::default());
    let (mut network, mut teardown) = (Vec::new(), Vec::new());
    let (mut fakes, mut fakes_gone) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        one.push(framework("qemu", 1)?.to_body, bare(1, &image.kernel, &initramfs)?);
        let ours = framework("qemu", 3)?;
        three.push(ours.to_body, bare(3, &image.kernel, &initramfs)?);
        network.push(ours.network);
        teardown.push(ours.teardown);
        let ours = framework("fake", 100)?;
        fakes.push(ours.to_body);
        fakes_gone.push(ours.teardown);
    }
    let alone = |name, values| Figure { name, seconds: median(values), beside: None, ratio: None };
    Ok(vec![
        one.beside("one machine, from the call to the body", "bare QEMU"),
        three.beside("three machines, from the call to the body", "bare QEMUs"),
        alone("bridge and three taps", network),
        alone("teardown of three machines, with leak check", teardown),
        alone("a hundred fakes, from the call to the body", fakes),
        alone("teardown of a hundred fakes", fakes_gone),
    ])
}

fn framework(backend: &str, nodes: usize) -> Result<Measured, String> {
    let seen = Arc::new(Mutex::new(Measured::default()));
    let tell = seen.clone();
    let builder = Cluster::builder().backend(backend);
    let cluster = (0..nodes).fold(builder, |cluster, n| cluster.node(NodeSpec::new(format!("node{n}"))));
    let began = Instant::now();
    let observed = cluster.observe(move |event| {
        let mut seen = tell.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::NetworkUp { after } => seen.network = *after,
            Event::TornDown { took, .. } => seen.teardown = *took,
            _ => {}
        }
    });
    let body = seen.clone();
    let work = async move |_| body.lock().unwrap_or_else(PoisonError::into_inner).to_body = began.elapsed();
    observed.run(work).map_err(|e| e.to_string())?;
    Ok(*seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Starts QEMUs and polls until the SSH server of each has sent its banner.
fn bare(count: usize, kernel: &Path, initramfs: &Path) -> Result<Duration, String> {
    let began = Instant::now();
    let mut guests = (0..count).map(|_| Bare::start(kernel, initramfs)).collect::<Result<Vec<_>, _>>()?;
    for guest in &guests {
        while !guest.has_banner() {
            if began.elapsed() > UP_WITHIN {
                return Err("a bare QEMU did not come up".to_owned());
            }
            sleep(KNOCK_EVERY);
        }
    }
    let took = began.elapsed();
    guests.iter_mut().try_for_each(Bare::end)?;
    Ok(took)
}

struct Bare {
    qemu: Child,
    port: u16,
}

impl Bare {
    fn start(kernel: &Path, initramfs: &Path) -> Result<Self, String> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(|e| e.to_string())?.port();
        let forward = format!("user,id=net0,net=10.77.0.0/24,hostfwd=tcp:127.0.0.1:{port}-10.77.0.11:22");
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "256M"])
            .args(["-append", "console=ttyS0 panic=-1 reboot=t net.ifnames=0", "-serial", "null"])
            .args(["-netdev", &forward, "-device", "virtio-rng-pci"])
            .args(["-device", "virtio-net-pci,netdev=net0,mac=52:54:00:4d:00:0b,romfile="])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start QEMU: {e}"))?;
        Ok(Self { qemu, port })
    }

    fn has_banner(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        // QEMU accepts before the guest does; what it forwards to nobody it closes.
        if stream.set_read_timeout(Some(KNOCK_EVERY * 5)).is_err() {
            return false;
        }
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).is_ok() && line.starts_with(b"SSH-2.0-")
    }

    fn end(&mut self) -> Result<(), String> {
        self.qemu.kill().and_then(|()| self.qemu.wait()).map(drop).map_err(|e| format!("cannot end QEMU: {e}"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // One that was ended already is no error of anybody's.
        drop(self.end());
    }
}

fn config() -> GuestConfig {
    let interface = Interface {
        mac: "52:54:00:4d:00:0b".into(),
        address: "10.77.0.11/24".into(),
        gateway: Some("10.77.0.1".into()),
        address6: Some("fd77::11/64".into()),
        mtu: 1500,
    };
    GuestConfig {
        hostname: "alice".into(),
        interfaces: vec![interface],
        hosts: vec![("10.77.0.11".into(), "alice".into())],
        nameserver: None,
        authorized_key: "ssh-ed25519 AAAA".into(),
        host_key: HostKey { private: [1; 32], public: [2; 32], openssh: String::new() },
        mounts: Vec::new(),
        no_modules: false,
        root: None,
    }
}
