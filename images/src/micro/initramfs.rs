//! The initramfs: what is in it, and in which order it is loaded.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use goblin::elf::Elf;

use crate::{Error, Result, cpio_writer::Archive, modules, modules::Modules, packages};

const INIT: &str = include_str!("../guest/init.sh");
const INITTAB: &str = include_str!("../guest/inittab");
/// Everything in the image that is ours and not the distribution's.
pub(super) const OWN_PARTS: &[&str] = &[INIT, INITTAB];
/// What the guests' disks, network and random numbers need.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "overlay", "af_packet"];
/// Modules that are loaded only where a machine has the device: what the kernel calls it, as a pattern of the shell, and its
/// driver.
const DRIVERS: &[(&str, &str)] = &[("virtio:d00000005v*", "virtio_balloon")];
/// What a machine needs beside these that runs machines itself: KVM, and what their networks are made of.
const HOST_MODULES: &[&str] = &[
    "kvm_intel",
    "kvm_amd",
    "tun",
    "bridge",
    "br_netfilter",
    "veth",
    "ifb",
    "vhost_net",
    "vhost_vsock",
    "sch_tbf",
    "sch_ingress",
    "sch_netem",
    "cls_u32",
    "act_mirred",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "loop",
    "fuse",
];
/// Where modules are in the guest.
const MODULE_DIR: &str = "lib/vmtest";
/// Where a package may keep its libraries.
const LIBRARY_DIRS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"];

/// Writes the initramfs from unpacked packages, for a machine that is a `host` of others or not. It is not compressed: a
/// guest would have to undo that.
pub(super) fn write(root: &Path, kernel_version: &str, host: bool, out: &Path) -> Result<()> {
    let busybox = find(root, &["bin/busybox", "usr/bin/busybox"])?;
    let dropbear = find(root, &["usr/sbin/dropbear"])?;
    let applets = packages::run(Command::new(&busybox).arg("--list-full"))?;
    let libraries = libraries(root, &dropbear)?;
    let (order, mut modules) = collect_modules(root, kernel_version, MODULES)?;
    let mut drivers = String::new();
    for (device, driver) in DRIVERS {
        let (order, of_driver) = collect_modules(root, kernel_version, &[driver])?;
        let new: Vec<_> = of_driver.into_iter().filter(|(name, _)| is_new(&modules, name)).collect();
        let order: Vec<_> = order.lines().filter(|name| new.iter().any(|(other, _)| other == name)).collect();
        // One that is built into the kernel is there.
        if !order.is_empty() {
            drivers += &format!("{device} {}\n", order.join(" "));
        }
        modules.extend(new);
    }
    let mut host_order = None;
    if host {
        let (order, of_host) = collect_modules(root, kernel_version, HOST_MODULES)?;
        let is_new = |name: &str| is_new(&modules, name);
        host_order =
            Some(order.lines().filter(|name| is_new(name)).map(|name| format!("{name}\n")).collect::<String>());
        let new: Vec<_> = of_host.into_iter().filter(|(name, _)| is_new(name)).collect();
        modules.extend(new);
    }
    let failed = Error::file("write", out);
    let read = |path: &Path| fs::read(path).map_err(Error::file("read", path));
    let files: Vec<Named> = libraries.iter().map(|(at, from)| Ok((at.clone(), read(from)?))).collect::<Result<_>>()?;
    let (busybox, dropbear) = (read(&busybox)?, read(&dropbear)?);
    let write = || -> io::Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(out)?));
        for dir in [
            "bin",
            "sbin",
            "usr",
            "usr/bin",
            "usr/sbin",
            "etc",
            "etc/vmtest",
            "etc/dropbear",
            "proc",
            "sys",
            "dev",
            "lib",
            "lib64",
            MODULE_DIR,
            "lib/x86_64-linux-gnu",
            "var",
            "var/run",
            "mnt",
            "srv",
        ] {
            archive.directory(dir, 0o755)?;
        }
        archive.directory("root", 0o700)?;
        archive.directory("root/.ssh", 0o700)?;
        archive.character_device("dev/console", 0o600, 5, 1)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.file("etc/inittab", 0o644, INITTAB.as_bytes())?;
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\n")?;
        archive.file("etc/shadow", 0o600, b"root:*:19000:0:99999:7:::\n")?;
        archive.file("etc/shells", 0o644, b"/bin/sh\n")?;
        archive.file("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")?;
        archive.file("bin/busybox", 0o755, &busybox)?;
        for applet in applets.lines().filter(|applet| *applet != "bin/busybox") {
            archive.symlink(applet, "/bin/busybox")?;
        }
        archive.file("usr/sbin/dropbear", 0o755, &dropbear)?;
        for (at, content) in &files {
            archive.file(at, 0o755, content)?;
        }
        archive.file(&format!("{MODULE_DIR}/order"), 0o644, order.as_bytes())?;
        archive.file(&format!("{MODULE_DIR}/drivers"), 0o644, drivers.as_bytes())?;
        if let Some(order) = &host_order {
            archive.file(&format!("{MODULE_DIR}/host-order"), 0o644, order.as_bytes())?;
        }
        for (name, content) in &modules {
            archive.file(&format!("{MODULE_DIR}/{name}"), 0o644, content)?;
        }
        archive.finish()?.flush()
    };
    write().map_err(failed)
}

/// A file of the guest: its name and its content.
type Named = (String, Vec<u8>);

fn is_new(modules: &[Named], name: &str) -> bool {
    modules.iter().all(|(other, _)| other != name)
}

/// These modules and what they need with their names in the guest, and those names in the order in which they must be loaded.
fn collect_modules(root: &Path, kernel_version: &str, wanted: &[&str]) -> Result<(String, Vec<Named>)> {
    let dir = find(root, &[&format!("lib/modules/{kernel_version}"), &format!("usr/lib/modules/{kernel_version}")])?;
    let dep_path = dir.join("modules.dep");
    if !dep_path.exists() {
        // A package leaves this to its installation; depmod does the same from the unpacked files.
        let base = dir.ancestors().nth(3).unwrap_or(root);
        packages::run(depmod(root)?.arg("-b").arg(base).arg(kernel_version))?;
    }
    let dep = fs::read_to_string(&dep_path).map_err(Error::file("read", &dep_path))?;
    let mut modules = Vec::new();
    for path in Modules::parse(&dep).closure(wanted) {
        modules.push((format!("{}.ko", modules::name(path)), decompressed(&dir.join(path))?));
    }
    let order = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    Ok((order, modules))
}

/// The unpacked `depmod`, with the libraries that were unpacked beside it: the host need not have either.
fn depmod(root: &Path) -> Result<Command> {
    let mut command = Command::new(find(root, &["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"])?);
    let libraries: Vec<_> = LIBRARY_DIRS.iter().map(|dir| root.join(dir).display().to_string()).collect();
    command.args(["--argv0", "depmod", "--library-path", &libraries.join(":")]);
    command.arg(find(root, &["bin/kmod", "usr/bin/kmod"])?);
    Ok(command)
}

/// A module's content; newer distributions compress their modules.
fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let compressed = fs::read(path).map_err(Error::file("read", path))?;
    modules::decompress(path, compressed).map_err(Error::file("decompress", path))
}

/// All libraries that a program needs, with their places in the guest: its loader where the program looks for it, the
/// others where the loader does.
fn libraries(root: &Path, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut queue = vec![program.to_owned()];
    while let Some(file) = queue.pop() {
        let bytes = fs::read(&file).map_err(Error::file("read", &file))?;
        let elf = Elf::parse(&bytes).map_err(|e| Error::Content { what: format!("{} ({e})", file.display()) })?;
        if let Some(loader) = elf.interpreter {
            let at = loader.trim_start_matches('/').to_owned();
            let name = Path::new(loader).file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(at, find_library(root, &name)?);
        }
        for name in elf.libraries.iter().filter(|name| !name.starts_with("ld-linux")) {
            let at = format!("lib/x86_64-linux-gnu/{name}");
            if let Entry::Vacant(entry) = found.entry(at) {
                let library = find_library(root, name)?;
                queue.push(library.clone());
                entry.insert(library);
            }
        }
    }
    Ok(found)
}

fn find_library(root: &Path, name: &str) -> Result<PathBuf> {
    let candidates: Vec<_> = LIBRARY_DIRS.iter().map(|dir| format!("{dir}/{name}")).collect();
    find(root, &candidates.iter().map(String::as_str).collect::<Vec<_>>())
}

fn find(root: &Path, candidates: &[&str]) -> Result<PathBuf> {
    let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
    found.ok_or_else(|| Error::Content { what: candidates.join(" or ") })
}
