//! Boots on cloud-hypervisor, beside a bare one with the same kernel, initramfs and devices.

use std::{
    env,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use vmtest::harness::backends;
use vmtest_images::{Cache, append_seed, ensure};

use super::{
    Figure, Pairs,
    boot::framework,
    guest::{ADDRESS, CMDLINE, KNOCK_EVERY, MAC, UP_WITHIN, config, has_banner, make_keys},
    run_command,
};

/// The bare VMM's tap.
const TAP: &str = "bare0";
/// The framework asks less often of a guest that boots for long, and so does this.
const KNOCKS_IN_A_BOOT: u32 = 100;
/// A guest that has much to do takes so long to send its banner.
const BANNER_WITHIN: Duration = Duration::from_secs(2);

/// What a bare cloud-hypervisor took.
struct Bare {
    banner: Duration,
    answer: Duration,
}

pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let mut known = backends().map_err(|e| e.to_string())?.into_iter();
    let found = known.find(|backend| backend.name == "cloud-hypervisor").map(|backend| backend.found);
    found.ok_or("it is no backend")?.map_err(|e| e.to_string())?;
    let cache = Cache::open(Cache::default_dir(rustix::process::geteuid().as_raw())).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &"micro".into(), &()).map_err(|e| e.to_string())?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let key = dir.path().join("key");
    make_keys(&key)?;
    let public = fs::read_to_string(key.with_extension("pub")).map_err(|e| e.to_string())?;
    let initramfs = dir.path().join("initramfs");
    append_seed(&image.initramfs, None, &initramfs, &config(&public)).map_err(|e| e.to_string())?;
    let (mut answer, mut banner) = (Pairs::default(), Pairs::default());
    for _ in 0..pairs {
        let ours = framework(Some("cloud-hypervisor"), 1)?.to_body;
        let theirs = bare(&image.kernel, &initramfs, &key, dir.path())?;
        answer.push(ours, theirs.answer);
        banner.push(ours, theirs.banner);
    }
    Ok(vec![
        answer.beside("on cloud-hypervisor, from the call to the body", "bare, until OpenSSH has run `true`"),
        banner.beside("the same", "bare, until its SSH banner"),
    ])
}

/// Boots it on a thread that leaves this process's network for one of its own.
fn bare(kernel: &Path, initramfs: &Path, key: &Path, dir: &Path) -> Result<Bare, String> {
    let boot = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot make a network namespace: {e}"))?;
        make_network()?;
        let console = dir.join("console.log");
        let began = Instant::now();
        let mut vmm = Running(start(kernel, initramfs, &console)?);
        let address = SocketAddr::new(IpAddr::V4(ADDRESS), 22);
        while !has_banner(address, BANNER_WITHIN) {
            if began.elapsed() > UP_WITHIN || vmm.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                let console = fs::read_to_string(&console).unwrap_or_default();
                return Err(format!("a bare cloud-hypervisor did not come up; its console: {console}"));
            }
            sleep(KNOCK_EVERY.max(began.elapsed() / KNOCKS_IN_A_BOOT));
        }
        let banner = began.elapsed();
        let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
        let options = options.iter().flat_map(|option| ["-o", option]);
        run_command(Command::new("ssh").args(options).arg("-i").arg(key).args([&format!("root@{ADDRESS}"), "true"]))?;
        Ok(Bare { banner, answer: began.elapsed() })
    };
    thread::scope(|scope| scope.spawn(boot).join()).unwrap_or_else(|_| Err("the measurement panicked".to_owned()))
}

/// A tap, and who is behind it: else the first packet would wait a second for an answer. Before the clock starts.
fn make_network() -> Result<(), String> {
    for line in [
        format!("tuntap add dev {TAP} mode tap vnet_hdr"),
        format!("address add 10.77.0.1/24 dev {TAP}"),
        format!("link set {TAP} up"),
        format!("neighbour add {ADDRESS} lladdr {MAC} dev {TAP} nud permanent"),
    ] {
        run_command(Command::new("ip").args(line.split(' ')))?;
    }
    Ok(())
}

fn start(kernel: &Path, initramfs: &Path, console: &Path) -> Result<Child, String> {
    File::create(console).map_err(|e| e.to_string())?;
    let program = env::var_os("VMTEST_CLOUD_HYPERVISOR").unwrap_or_else(|| "cloud-hypervisor".into());
    Command::new(program)
        .args(["--cpus", "boot=1", "--memory", "size=256M", "--pvpanic", "--seccomp", "true"])
        .args(["--net", &format!("tap={TAP},mac={MAC}"), "--rng", "src=/dev/urandom", "--console", "off"])
        .args(["--serial", &format!("file={}", console.display()), "--cmdline", CMDLINE])
        .arg("--kernel")
        .arg(kernel)
        .arg("--initramfs")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start cloud-hypervisor: {e}"))
}

/// A VMM that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no error of anybody's.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}
