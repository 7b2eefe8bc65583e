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

const INIT: &str = include_str!("guest/init.sh");
const INITTAB: &str = include_str!("guest/inittab");
/// Everything in the image that is ours and not the distribution's.
pub(crate) const OWN_PARTS: &[&str] = &[INIT, INITTAB];
/// What the guests' disks, network and random numbers need. ext4 asks for crc32c by name when it mounts, and nobody here would
/// load it then.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "overlay",
    "af_packet",
];
/// Modules that are loaded only where a machine has the device: what the kernel calls it, as a pattern of the shell, and its
/// driver.
const DRIVERS: &[(&str, &str)] =
    &[("virtio:d00000005v*", "virtio_balloon"), ("pci:v00001B36d00000011sv*", "pvpanic_pci")];
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
/// By which a guest reads what the firmware of QEMU has for it. It is loaded where nothing is behind the initramfs.
const FIRMWARE_READER: &str = "qemu_fw_cfg";
/// What is loaded, in this order; what only some machines have; what machines load that run machines themselves.
pub(crate) const ORDER: &str = "lib/vmtest/order";
pub(crate) const DRIVERS_LIST: &str = "lib/vmtest/drivers";
const HOST_ORDER: &str = "lib/vmtest/host-order";
/// Where modules are in the guest.
const MODULE_DIR: &str = "lib/vmtest";
/// Where the guest's first process looks for the script by which it goes on with a root file system.
pub(crate) const SWITCH: &str = "lib/vmtest/switch.sh";
/// The SSH server of a guest that has nothing else.
pub(crate) const DROPBEAR: &str = "usr/sbin/dropbear";
/// Where a package may keep its libraries.
const LIBRARY_DIRS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"];

/// What an initramfs is made of.
pub(crate) struct Contents<'a> {
    /// Unpacked packages with busybox, and with dropbear and kmod where those are wanted.
    pub(crate) userland: &'a Path,
    /// Where the kernel's modules are.
    pub(crate) modules: &'a Path,
    /// Which kernel's.
    pub(crate) kernel_version: &'a str,
    /// Whether the machine runs machines itself.
    pub(crate) host: bool,
}

impl Contents<'_> {
    /// Writes that of a machine that has nothing else, with an SSH server. It is not compressed: a guest would have to undo
    /// that. Says whether the machine asks the firmware.
    pub(crate) fn write_alone(&self, out: &Path) -> Result<bool> {
        let dropbear = find(self.userland, &[DROPBEAR])?;
        let mut files = vec![Own { at: DROPBEAR.to_owned(), mode: 0o755, content: read(&dropbear)? }];
        for (at, from) in libraries(self.userland, &dropbear)? {
            files.push(Own { at, mode: 0o755, content: read(&from)? });
        }
        self.write(files, out)
    }

    /// Writes that of a machine that goes on, by this script, with a root file system that has everything else. Says whether the
    /// machine asks the firmware.
    pub(crate) fn write_for_root(&self, switch: &str, out: &Path) -> Result<bool> {
        self.write(vec![Own { at: SWITCH.to_owned(), mode: 0o644, content: switch.into() }], out)
    }

    /// Writes the modules alone, for behind an initramfs with those of another kernel.
    pub(crate) fn write_modules(&self, out: &Path) -> Result<()> {
        self.loaded()?.write_alone(out)
    }

    /// The result is whether the kernel has the module by which its machine asks the firmware of QEMU for what it is told.
    fn write(&self, files: Vec<Own>, out: &Path) -> Result<bool> {
        let busybox = find(self.userland, &["bin/busybox", "usr/bin/busybox"])?;
        let applets = packages::run(Command::new(&busybox).arg("--list-full"))?;
        let loaded = self.loaded()?;
        let (_, reader) = self.collect_modules(&[FIRMWARE_READER])?;
        let busybox = read(&busybox)?;
        let failed = Error::file("write", out);
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
                "etc/ssh",
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
            archive.file(
                "etc/nsswitch.conf",
                0o644,
                b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
            )?;
            archive.file("bin/busybox", 0o755, &busybox)?;
            for applet in applets.lines().filter(|applet| *applet != "bin/busybox") {
                archive.symlink(applet, "/bin/busybox")?;
            }
            for Own { at, mode, content } in &files {
                archive.file(at, *mode, content)?;
            }
            for (name, content) in &reader {
                archive.file(&format!("{MODULE_DIR}/{name}"), 0o644, content)?;
            }
            loaded.add_to(&mut archive)?;
            archive.finish()?.flush()
        };
        write().map_err(failed)?;
        Ok(!reader.is_empty())
    }

    fn loaded(&self) -> Result<Loaded> {
        let (order, mut modules) = self.collect_modules(MODULES)?;
        let drivers = self.add_drivers(&mut modules)?;
        let mut host_order = None;
        if self.host {
            let (order, of_host) = self.collect_modules(HOST_MODULES)?;
            let is_new = |name: &str| is_new(&modules, name);
            host_order =
                Some(order.lines().filter(|name| is_new(name)).map(|name| format!("{name}\n")).collect::<String>());
            let new: Vec<_> = of_host.into_iter().filter(|(name, _)| is_new(name)).collect();
            modules.extend(new);
        }
        Ok(Loaded { order, drivers, host_order, modules })
    }

    /// Adds what only some machines have; the result is a line for each device, with the modules that it takes.
    fn add_drivers(&self, modules: &mut Vec<Named>) -> Result<String> {
        let mut drivers = String::new();
        for (device, driver) in DRIVERS {
            let (order, of_driver) = self.collect_modules(&[driver])?;
            let new: Vec<_> = of_driver.into_iter().filter(|(name, _)| is_new(modules, name)).collect();
            let order: Vec<_> = order.lines().filter(|name| new.iter().any(|(other, _)| other == name)).collect();
            // One that is built into the kernel is there.
            if !order.is_empty() {
                drivers += &format!("{device} {}\n", order.join(" "));
            }
            modules.extend(new);
        }
        Ok(drivers)
    }

    /// These modules and what they need with their names in the guest, and those names in the order in which they must be loaded.
    fn collect_modules(&self, wanted: &[&str]) -> Result<(String, Vec<Named>)> {
        let kernel_version = self.kernel_version;
        let dir = find(
            self.modules,
            &[&format!("lib/modules/{kernel_version}"), &format!("usr/lib/modules/{kernel_version}")],
        )?;
        let dep_path = dir.join("modules.dep");
        if !dep_path.exists() {
            // A package leaves this to its installation; depmod does the same from the unpacked files.
            let base = dir.ancestors().nth(3).unwrap_or(self.modules);
            packages::run(depmod(self.userland)?.arg("-b").arg(base).arg(kernel_version))?;
        }
        let dep = fs::read_to_string(&dep_path).map_err(Error::file("read", &dep_path))?;
        let mut modules = Vec::new();
        for path in Modules::parse(&dep).closure(wanted) {
            modules.push((format!("{}.ko", modules::name(path)), decompressed(&dir.join(path))?));
        }
        let order = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
        Ok((order, modules))
    }
}

/// The modules of a machine, and when they are loaded.
#[derive(Default)]
struct Loaded {
    order: String,
    drivers: String,
    /// Of a machine that runs machines itself.
    host_order: Option<String>,
    modules: Vec<Named>,
}

impl Loaded {
    fn add_to<W: Write>(&self, archive: &mut Archive<W>) -> io::Result<()> {
        archive.file(ORDER, 0o644, self.order.as_bytes())?;
        archive.file(DRIVERS_LIST, 0o644, self.drivers.as_bytes())?;
        if let Some(order) = &self.host_order {
            archive.file(HOST_ORDER, 0o644, order.as_bytes())?;
        }
        for (name, content) in &self.modules {
            archive.file(&format!("{MODULE_DIR}/{name}"), 0o644, content)?;
        }
        Ok(())
    }

    /// In an archive of its own, which goes behind that of an image.
    fn write_alone(&self, out: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut archive = Archive::new(BufWriter::new(File::create(out)?));
            self.add_to(&mut archive)?;
            archive.finish()?.flush()
        };
        write().map_err(Error::file("write", out))
    }
}

/// Writes, for behind an initramfs with modules, that none are loaded: of a kernel that has everything built in.
pub(crate) fn write_no_modules(out: &Path, host: bool) -> Result<()> {
    Loaded { host_order: host.then(String::new), ..Loaded::default() }.write_alone(out)
}

/// Identifies which modules are chosen.
pub(crate) fn modules_recipe() -> String {
    format!("{MODULES:?} {DRIVERS:?} {HOST_MODULES:?} {FIRMWARE_READER}")
}

/// A file of the guest: its name and its content.
type Named = (String, Vec<u8>);

fn is_new(modules: &[Named], name: &str) -> bool {
    modules.iter().all(|(other, _)| other != name)
}

/// A file of one kind of initramfs.
struct Own {
    at: String,
    mode: u32,
    content: Vec<u8>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read", path))
}

/// The kernel of unpacked packages, and its release.
pub(crate) fn find_kernel(root: &Path) -> Result<(PathBuf, String)> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).map_err(Error::file("read", &boot))?;
    let found = entries.flatten().find_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        Some((entry.path(), version))
    });
    found.ok_or_else(|| Error::Content { what: "/boot/vmlinuz-*".to_owned() })
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
