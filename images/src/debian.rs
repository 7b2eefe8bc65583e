//! Debian with systemd: a root file system by `mmdebstrap`, a read-only disk, and a small initramfs in front of it.
//!
//! `mmdebstrap` and `mkfs.ext4` run where all ids of a system are there ([`inside`]), so that owners, capabilities of
//! files and setuid programs are those of an installation.

mod entry;
mod sources;

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use crate::{
    Error, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, ROOT, put_kernel, seal},
    initramfs::{self, Contents},
    inside::{Inside, no_space},
    key::short,
    packages,
};

/// Raised with every change to what is built, beside that of the scripts.
const FORMAT: u32 = 5;
/// Run inside: makes the root file system and its disk.
const BUILD: &str = concat!(include_str!("guest/debian-build.sh"), include_str!("guest/disk.sh"));
/// Run by `mmdebstrap` when all packages are there.
const CUSTOMIZE: &str = include_str!("guest/debian-customize.sh");
/// Run by a guest's initramfs.
const SWITCH: &str = include_str!("guest/switch.sh");
/// The names of the images, with those by which apt knows their releases.
const RELEASES: &[(&str, &str)] = &[("debian-12", "bookworm"), ("debian-13", "trixie")];
/// What makes it a system that tests can use, beside what every Debian has.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "netbase",
    "openssh-server",
    "procps",
    "systemd-sysv",
    "udev",
];
/// The kernel of the image, which is unpacked and not installed: an installed one makes an initramfs that nobody reads.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// By which the guest finds its root; longer than a fixture's label can be beside ours.
pub(crate) const LABEL: &str = "vmtest-root";
/// Memory in bytes of a machine that says nothing: a booted one uses 90 MiB, its services need the rest.
pub(crate) const MEMORY: u64 = 512 << 20;
/// What the scripts print before what they do next.
const STEP: &str = "I: ";
/// Each step, by the beginning of its line, with the percent of the whole at which it begins.
const STEPS: &[(&str, u64)] = &[
    ("running apt-get update", 2),
    ("downloading packages", 6),
    ("extracting archives", 30),
    ("installing essential packages", 35),
    ("installing remaining packages", 50),
    ("adding the kernel", 75),
    ("preparing", 80),
    ("making the disk", 88),
];
/// How many of the last lines of a failed build are shown.
const SHOWN_LINES: usize = 30;
/// What apt says of a package that there is not, before and after its name.
const NO_PACKAGE: &[(&str, &str)] = &[
    ("E: Unable to locate package ", ""),
    ("E: Package '", "' has no installation candidate"),
    ("E: Couldn't find any package by regex '", "'"),
];
/// What apt says of a release that a mirror does not have, of one whose key it does not have, and of a mirror that it cannot reach;
/// and what helps.
const NO_RELEASE: &[(&str, &str)] = &[
    ("does not have a Release file", "add a mirror that has it to them, and run `apt-get update` as root"),
    ("NO_PUBKEY", KEY),
    ("is not signed", KEY),
    ("Failed to fetch", "see by `apt-get update` as root that this machine reaches them, and that they have it"),
];
const KEY: &str = "name the file with its key in `Signed-By` of their entry";

/// The release of an image of this name.
pub(crate) fn release(name: &str) -> Option<&'static str> {
    RELEASES.iter().find(|(image, _)| *image == name).map(|(_, release)| *release)
}

/// What is asked of one.
pub(crate) struct Request {
    pub(crate) release: &'static str,
    pub(crate) packages: BTreeSet<String>,
    /// The program that prepares it.
    pub(crate) script: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        add(&FORMAT.to_le_bytes());
        [BUILD, CUSTOMIZE, SWITCH, KERNEL_PACKAGE].iter().for_each(|part| add(part.as_bytes()));
        initramfs::OWN_PARTS.iter().for_each(|part| add(part.as_bytes()));
        add(initramfs::modules_recipe().as_bytes());
        PACKAGES.iter().for_each(|package| add(package.as_bytes()));
        add(self.release.as_bytes());
        self.packages.iter().for_each(|package| add(package.as_bytes()));
        // So that no script is a package.
        add(b"");
        add(self.script.as_deref().unwrap_or_default());
        short(hasher.finalize())
    }

    /// Builds the image in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, work: &Path, progress: &dyn Progress) -> Result<Built> {
        progress.step(0, "looking for the release");
        packages::run(Command::new("mmdebstrap").arg("--version"))?;
        let inside = Inside::find()?;
        let sources = sources::of_release(self.release)?;
        let (tree, out) = (work.join("tree"), work.join("image"));
        for dir in [&tree, &out] {
            fs::create_dir(dir).map_err(Error::file("make", dir))?;
        }
        let write = |name: &str, content: &[u8]| {
            let path = tree.join(name);
            fs::write(&path, content).map_err(Error::file("write", &path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(Error::file("change the mode of", path))
        };
        write("customize", CUSTOMIZE.as_bytes())?;
        write("debian.sources", sources.as_bytes())?;
        if let Some(script) = &self.script {
            write("prepare", script)?;
        }
        self.run(&inside, &tree, &out.join(ROOT), progress)?;
        progress.step(95, "packing the initramfs");
        let versions = tree.join("versions");
        let versions = fs::read(&versions).map_err(Error::file("read", versions))?;
        let (kernel_version, asks_firmware) = pack(work, &tree.join("root"), &out)?;
        progress.step(100, "done");
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.key().as_bytes()).update(&versions).update(kernel_version.as_bytes());
        let key = short(hasher.finalize());
        let (root, memory) = (Some(LABEL.to_owned()), Some(MEMORY));
        Ok(Built { root, memory, asks_firmware, ..Built::new(key, out, kernel_version) })
    }

    /// Has the tree and the disk made.
    fn run(&self, inside: &Inside, tree: &Path, disk: &Path, progress: &dyn Progress) -> Result<()> {
        let all: Vec<_> = PACKAGES.iter().copied().chain(self.packages.iter().map(String::as_str)).collect();
        let (mut last, mut step) = (VecDeque::new(), "starting");
        let ended = inside.run(BUILD, &[self.release, &all.join(","), KERNEL_PACKAGE, LABEL], tree, disk, |line| {
            if last.len() == SHOWN_LINES {
                last.pop_front();
            }
            last.push_back(line.to_owned());
            let said = line.strip_prefix(STEP).unwrap_or_default();
            if let Some((what, percent)) = STEPS.iter().find(|(what, _)| said.starts_with(what)) {
                step = what;
                progress.step(*percent, what);
            }
        })?;
        let last: Vec<String> = last.into();
        if ended.success() { Ok(()) } else { Err(self.failed(step, &last, tree)) }
    }

    /// Why a build has failed that has printed this.
    fn failed(&self, step: &str, lines: &[String], tree: &Path) -> Error {
        let package = |line: &String| {
            let named =
                |(before, after): &(&str, &str)| line.strip_prefix(before)?.strip_suffix(after).map(str::to_owned);
            NO_PACKAGE.iter().find_map(named)
        };
        if let Some(package) = lines.iter().find_map(package) {
            return Error::NotInRelease { package, release: self.release.to_owned() };
        }
        let shown = lines.join("\n  ");
        if let Some(full) = no_space(lines, tree) {
            return full;
        }
        let unreachable = |line: &String| {
            let (_, remedy) = NO_RELEASE.iter().find(|(said, _)| line.contains(said))?;
            Some(format!("{}: {remedy}", line.trim()))
        };
        match lines.iter().find_map(unreachable) {
            Some(why) => Error::Release { release: self.release.to_owned(), why },
            None => Error::Build { step: step.to_owned(), said: shown },
        }
    }
}

/// Takes the kernel out of the root file system, and packs the initramfs. The result is the kernel's release, and whether its
/// machines ask the firmware.
fn pack(work: &Path, root: &Path, out: &Path) -> Result<(String, bool)> {
    let userland = work.join("userland");
    fs::create_dir(&userland).map_err(Error::file("make", &userland))?;
    // That of this machine's release: it is static, and only the initramfs has it.
    let busybox = BTreeSet::from(["busybox-static".to_owned()]);
    for file in packages::download(&busybox, &work.join("packages"), |_| {})? {
        packages::unpack(&file, &userland)?;
    }
    let (vmlinuz, kernel_version) = initramfs::find_kernel(root)?;
    put_kernel(&vmlinuz, out)?;
    let mut asks_firmware = false;
    for (host, name) in [(false, INITRAMFS), (true, NESTED)] {
        let contents = Contents { userland: &userland, modules: root, kernel_version: &kernel_version, host };
        asks_firmware = contents.write_for_root(SWITCH, &out.join(name))?;
    }
    seal(out, &[KERNEL, INITRAMFS, NESTED, ROOT])?;
    Ok((kernel_version, asks_firmware))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> String {
        let request = Request { release: "bookworm", packages: BTreeSet::new(), script: None };
        let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
        request.failed("preparing", &lines, Path::new("/cache/images/.build/tree")).to_string()
    }

    #[test]
    fn a_failed_build_names_what_is_wrong() {
        let error = said(&["Reading package lists...", "E: Unable to locate package etdc-server", "E: apt-get failed"]);
        assert!(error.starts_with("there is no package `etdc-server` in bookworm"), "{error}");
        let error = said(&["E: Package 'old' has no installation candidate"]);
        assert!(error.starts_with("there is no package `old` in bookworm"), "{error}");
        let error = said(&["E: The repository 'x bookworm Release' does not have a Release file."]);
        assert!(error.contains("bookworm cannot be had from the apt sources of this machine: E: The repo"), "{error}");
        assert!(
            error.ends_with("Release file.: add a mirror that has it to them, and run `apt-get update` as root"),
            "{error}"
        );
        let error = said(&["couldn't be verified: NO_PUBKEY 1", "E: The repository 'x' is not signed."]);
        assert!(error.ends_with("NO_PUBKEY 1: name the file with its key in `Signed-By` of their entry"), "{error}");
        let error = said(&["dd: x: No space left on device", "E: failed"]);
        assert!(error.starts_with("no space left in /cache/images:"), "{error}");
        let error = said(&["+ false", "E: prepare failed"]);
        assert_eq!(error, "the image could not be made, while preparing:\n  + false\n  E: prepare failed");
    }
}
