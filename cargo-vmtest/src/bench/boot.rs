//! Boots, beside bare QEMUs with the same processor, kernel, initramfs and polling.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;
use vmtest::{Cluster, evidence::Event, spec::NodeSpec};
use vmtest_images::{Cache, append_seed, ensure};

use super::{
    Figure, Pairs,
    guest::{ADDRESS, CMDLINE, KNOCK_EVERY, MAC, UP_WITHIN, config, has_banner},
};

/// What a machine of `micro` has that says nothing, in bytes.
const MEMORY: u64 = 256 << 20;

/// A console that is a file says nothing when it grows.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What one run of the framework took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    network: Duration,
    pub(super) to_body: Duration,
    teardown: Duration,
    /// What this process has of the host's memory while the body runs, in bytes.
    memory: u64,
}

/// What we take of the host's memory ourselves while three machines run, their VMMs left out.
pub(super) fn memory() -> Result<Figure, String> {
    Ok(Figure::size("our own memory with three machines", framework(None, 3)?.memory))
}

pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let cache = Cache::open(Cache::default_dir(rustix::process::geteuid().as_raw())).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &"micro".into(), &()).map_err(|e| e.to_string())?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let initramfs = dir.path().join("initramfs");
    append_seed(&image.initramfs, None, &initramfs, &config("ssh-ed25519 AAAA")).map_err(|e| e.to_string())?;

    let machine = Machine::micro(image.kernel, initramfs);
    let bare_ones = |count: usize| bare(&vec![machine.clone(); count]);
    let (mut one, mut three) = (Pairs::default(), Pairs::default());
    let (mut network, mut teardown) = (Vec::new(), Vec::new());
    let (mut fakes, mut fakes_gone) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        one.push(framework(Some("qemu"), 1)?.to_body, bare_ones(1)?);
        let ours = framework(Some("qemu"), 3)?;
        three.push(ours.to_body, bare_ones(3)?);
        network.push(ours.network);
        teardown.push(ours.teardown);
        let ours = framework(Some("fake"), 100)?;
        fakes.push(ours.to_body);
        fakes_gone.push(ours.teardown);
    }
    Ok(vec![
        one.beside("one machine, from the call to the body", "bare QEMU"),
        three.beside("three machines, from the call to the body", "bare QEMUs"),
        Figure::time("bridge and three taps", network),
        Figure::time("teardown of three machines, with leak check", teardown),
        Figure::time("a hundred fakes, from the call to the body", fakes),
        Figure::time("teardown of a hundred fakes", fakes_gone),
    ])
}

/// A cluster on this backend, or on the one that is taken where none is named.
pub(super) fn framework(backend: Option<&str>, nodes: usize) -> Result<Measured, String> {
    let seen = Arc::new(Mutex::new(Measured::default()));
    let tell = seen.clone();
    let builder = Cluster::builder();
    let builder = match backend {
        Some(backend) => builder.backend(backend),
        None => builder,
    };
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
    let work = async move |_| {
        let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
        (body.to_body, body.memory) = (began.elapsed(), resident());
    };
    observed.run(work).map_err(|e| e.to_string())?;
    Ok(*seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What this process has of the host's memory, in bytes; 0 where the kernel does not tell.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// What a bare QEMU is started with.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// In bytes.
    pub(super) memory: u64,
    /// Raw disks, and whether each is only read.
    pub(super) disks: Vec<(PathBuf, bool)>,
    /// What its console says before anybody knocks, and how long its SSH server takes at most to send its banner.
    pub(super) answers: (&'static str, Duration),
    /// What its kernel is told beside [`CMDLINE`].
    pub(super) arguments: &'static str,
}

impl Machine {
    /// One of `micro`.
    pub(super) fn micro(kernel: PathBuf, initramfs: PathBuf) -> Self {
        Self { kernel, initramfs, memory: MEMORY, disks: Vec::new(), answers: AT_ONCE, arguments: AS_OURS }
    }
}

/// What the framework tells the kernel of an emulated machine with one processor (`vmtest/src/hypervisor/qemu/render.rs`).
pub(super) const AS_OURS: &str = "cryptomgr.notests no_timer_check nolapic_timer noreplace-smp";
/// A machine of `micro` answers at once, from when it does.
const AT_ONCE: (&str, Duration) = ("", Duration::from_millis(100));

/// Starts QEMUs and polls until the SSH server of each has sent its banner.
pub(super) fn bare(machines: &[Machine]) -> Result<Duration, String> {
    let began = Instant::now();
    let mut guests = machines.iter().map(Bare::start).collect::<Result<Vec<_>, _>>()?;
    for (guest, Machine { answers: (says, within), .. }) in guests.iter().zip(machines) {
        while !(guest.said().contains(says) && guest.has_banner(*within)) {
            if began.elapsed() > UP_WITHIN {
                return Err(format!("a bare QEMU did not come up; its console: {}", guest.said()));
            }
            sleep(KNOCK_EVERY);
        }
    }
    let took = began.elapsed();
    guests.iter_mut().try_for_each(Bare::end)?;
    Ok(took)
}

/// Starts a QEMU and polls until its kernel has started the first process.
pub(super) fn first_process(machine: &Machine) -> Result<Duration, String> {
    /// What Linux says then.
    const SAYS: &str = "Run /init as init process";
    let began = Instant::now();
    let guest = Bare::start(machine)?;
    while !guest.said().contains(SAYS) {
        if began.elapsed() > UP_WITHIN {
            return Err(format!("a bare QEMU did not come to its first process; its console: {}", guest.said()));
        }
        sleep(LOOK_EVERY);
    }
    Ok(began.elapsed())
}

struct Bare {
    qemu: Child,
    port: u16,
    console: NamedTempFile,
}

impl Bare {
    fn start(machine: &Machine) -> Result<Self, String> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(|e| e.to_string())?.port();
        let forward = format!("user,id=net0,net=10.77.0.0/24,hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:22");
        let console = NamedTempFile::new().map_err(|e| e.to_string())?;
        let disks = machine.disks.iter().flat_map(|(path, read_only)| {
            let access = if *read_only { "on" } else { "off" };
            [
                "-drive".to_owned(),
                format!("if=virtio,format=raw,readonly={access},file.locking=off,file={}", path.display()),
            ]
        });
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-smp", "1"])
            .args(["-m", &format!("{}M", machine.memory >> 20)])
            .args([
                "-append",
                &format!("{CMDLINE} {}", machine.arguments),
                "-serial",
                &format!("file:{}", console.path().display()),
            ])
            .args(["-netdev", &forward, "-device", "virtio-rng-pci"])
            .args(["-device", &format!("virtio-net-pci,netdev=net0,mac={MAC},romfile=")])
            .arg("-kernel")
            .arg(&machine.kernel)
            .arg("-initrd")
            .arg(&machine.initramfs)
            .args(disks)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start QEMU: {e}"))?;
        Ok(Self { qemu, port, console })
    }

    fn has_banner(&self, within: Duration) -> bool {
        has_banner(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), within)
    }

    /// All that is on its console.
    fn said(&self) -> String {
        fs::read(self.console.path()).map_or_else(|_| String::new(), |said| String::from_utf8_lossy(&said).into_owned())
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
