//! Machines of a distribution: how soon one answers, what a further one writes, and what an image costs that the cache has.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use vmtest::{Cluster, Failure, evidence::Event, spec::NodeSpec};
use vmtest_fixtures::allocated;
use vmtest_images::{Cache, Image, RootMount, append_seed, ensure, find};

use super::{
    Figure, Pairs,
    boot::{AS_OURS, Machine, bare},
    guest::{config, make_keys},
};

const IMAGE: &str = "debian-12";
/// What a machine of it has that says nothing.
const DISK: u64 = 2 << 30;
/// The label of the disk on which a bare one writes.
const OWN: &str = "bench-own";
/// What systemd says on the console when the SSH server runs; who knocks before that only disturbs.
const SERVER_STARTED: &str = "Secure Shell server.\r";
/// It starts a process for each connection, which takes a part of a second under emulation.
const BANNER_WITHIN: Duration = Duration::from_secs(2);
/// How often what takes a millisecond is done.
const MANY: usize = 50;

pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let place = Cache::default_dir(rustix::process::geteuid().as_raw());
    let cache = Cache::open(&place).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &IMAGE.into(), &()).map_err(|e| e.to_string())?;
    let scratch = tempfile::tempdir_in(&place).map_err(|e| e.to_string())?;
    let (mut boot, mut planned, mut written) = (Pairs::default(), Vec::new(), Vec::new());
    for n in 0..pairs {
        let ours = framework()?;
        boot.push(ours.to_body, bare_debian(&image, &scratch.path().join(n.to_string()))?);
        planned.push(ours.planned);
        written.push(ours.written);
    }
    let mut found = Vec::new();
    for _ in 0..MANY {
        let began = Instant::now();
        let image = find(&cache, &IMAGE.into()).map_err(|e| e.to_string())?.ok_or("the image is gone")?;
        let held = image.hold().map_err(|e| e.to_string())?;
        found.push(began.elapsed());
        drop(held);
    }
    written.sort_unstable();
    let most = written.last().copied().unwrap_or_default();
    Ok(vec![
        boot.paired("two machines of debian-12, from the call to the body", "bare QEMUs with the same disks"),
        Figure::time("of that, until everything is planned, with the image in the cache", planned),
        Figure::time("an image of the cache, found and held", found),
        Figure::size("what the second of them writes on the host before the body, at most", most),
    ])
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    planned: Duration,
    to_body: Duration,
    /// In bytes.
    written: u64,
}

fn framework() -> Result<Measured, String> {
    let seen = Arc::new(Mutex::new(Measured::default()));
    let (tell, body) = (seen.clone(), seen.clone());
    let began = Instant::now();
    let cluster = Cluster::builder().backend("qemu").observe(move |event| {
        if let Event::Planned { .. } = event {
            tell.lock().unwrap_or_else(PoisonError::into_inner).planned = began.elapsed();
        }
    });
    let node = |name: &str| NodeSpec::new(name).image(IMAGE);
    let ran = cluster.node(node("first")).node(node("second")).run(async move |cluster: Cluster| -> vmtest::Result {
        let to_body = began.elapsed();
        // Its key is in its folder.
        let ssh = cluster.node("second")?.ssh_command()?;
        let key = ssh.get_args().skip_while(|word| *word != "-i").nth(1).map(Path::new);
        let dir = key.and_then(Path::parent).ok_or_else(|| Failure::msg("its key is nowhere"))?;
        // Its disks are elsewhere, where a link leads.
        let scratch = fs::canonicalize(dir.join("scratch"))?;
        let written = allocated(dir) + allocated(&scratch);
        let mut seen = body.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.to_body, seen.written) = (to_body, written);
        Ok(())
    });
    ran.map_err(|e| e.to_string())?;
    Ok(*seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The same two machines without the framework, with disks in this directory.
fn bare_debian(image: &Image, dir: &Path) -> Result<Duration, String> {
    let root = image.root.as_ref().ok_or("it has no root file system")?;
    let mounts = RootMount { lower: root.label.clone(), upper: OWN.to_owned() };
    let mut told = vmtest_images::GuestConfig { root: Some(mounts), ..config("ssh-ed25519 AAAA") };
    fs::create_dir(dir).map_err(|e| e.to_string())?;
    let began = Instant::now();
    let key = dir.join("host_key");
    make_keys(&key)?;
    told.host_key.openssh = fs::read_to_string(&key).map_err(|e| e.to_string())?;
    let machine = |name: &str| -> Result<Machine, String> {
        let (initramfs, own) = (dir.join(format!("{name}.cpio")), dir.join(format!("{name}.ext4")));
        append_seed(&image.initramfs, None, &initramfs, &told).map_err(|e| e.to_string())?;
        vmtest_fixtures::blank(&own, DISK, OWN).map_err(|e| e.to_string())?;
        Ok(Machine {
            kernel: image.kernel.clone(),
            initramfs,
            memory: image.memory.unwrap_or(512 << 20),
            disks: vec![(root.disk.clone(), true), (own, false)],
            answers: (SERVER_STARTED, BANNER_WITHIN),
            arguments: AS_OURS,
        })
    };
    let machines = [machine("first")?, machine("second")?];
    let prepared = began.elapsed();
    let took = bare(&machines)? + prepared;
    fs::remove_dir_all(dir).map_err(|e| e.to_string())?;
    Ok(took)
}
