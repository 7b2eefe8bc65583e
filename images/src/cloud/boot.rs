//! What a disk boots: the kernel and the initramfs that are on it, and where its root file system is.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use ext4_view::{Ext4, Ext4Read};

use super::partitions::{Place, places};
use crate::version::pieces;

/// Where a root file system has kernels, and where a partition that is mounted there has them.
const BOOT: &[&str] = &["/boot", "/"];
const KERNEL: &str = "vmlinuz-";
/// What an initramfs is called beside a kernel of this version: by Debian and Ubuntu, by Fedora, by SUSE, and by Alpine.
const INITRAMFS: &[(&str, &str)] = &[("initrd.img-", ""), ("initramfs-", ".img"), ("initrd-", ""), ("initramfs-", "")];
/// What every root file system has.
const OF_ROOT: &[&str] = &["/etc/os-release", "/usr/lib/os-release"];
/// Where Fedora says how its kernels are started, and what the line begins with (the Boot Loader Specification).
const ENTRIES: &[&str] = &["/loader/entries", "/boot/loader/entries"];
const OPTIONS: &str = "options ";
/// The words of such a line that are about the root file system.
const OF_OPTIONS: &[&str] = &["root=", "rootflags=", "rootfstype="];
/// A kernel of Fedora's to mend a system with.
const RESCUE: &str = "rescue";

/// What is taken from a disk.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) kernel: Vec<u8>,
    pub(crate) initramfs: Vec<u8>,
    /// The words of the kernel's command line that name the root file system.
    pub(crate) arguments: String,
}

/// A kernel and the initramfs that goes with it.
struct Pair {
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
}

/// Looks for it on all partitions.
///
/// # Errors
/// What is not there, as the end of a sentence about the disk.
pub(crate) fn find(disk: &Path) -> Result<Boot, String> {
    let disk = File::open(disk).map_err(|e| e.to_string())?;
    let places = places(&disk)?;
    let disk = Arc::new(disk);
    let open = |place: &Place| Ext4::load(Box::new(Part { disk: disk.clone(), place: *place })).ok();
    let all: Vec<Ext4> = places.iter().filter_map(open).collect();
    if all.is_empty() {
        return Err(match places.as_slice() {
            [Place { start: 0, .. }] => "it has neither a partition table nor an ext4".to_owned(),
            partitions => format!("none of its {} partitions is an ext4, where its kernel would be", partitions.len()),
        });
    }
    let Pair { kernel, initramfs } = all.iter().find_map(|fs| kernel(fs).transpose()).unwrap_or_else(|| {
        let names: Vec<_> = INITRAMFS.iter().map(|(before, after)| format!("{before}*{after}")).collect();
        Err(format!("there is no `{KERNEL}*` with its initramfs ({}) in its /boot", names.join(", ")))
    })?;
    let arguments = all.iter().find_map(root).or_else(|| all.iter().find_map(entry));
    let arguments = arguments.ok_or("none of its ext4 is a root file system, and no boot loader entry names one")?;
    Ok(Boot { kernel, initramfs, arguments })
}

/// The newest kernel of a file system that has an initramfs, with it.
fn kernel(fs: &Ext4) -> Result<Option<Pair>, String> {
    for dir in BOOT {
        let names = names(fs, dir);
        let mut versions: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(KERNEL)).collect();
        versions.retain(|version| !version.contains(RESCUE));
        versions.sort_by_cached_key(|version| pieces(version));
        for version in versions.into_iter().rev() {
            let called = |(before, after): &(&str, &str)| format!("{before}{version}{after}");
            let Some(initramfs) = INITRAMFS.iter().map(called).find(|name| names.contains(name)) else { continue };
            let read = |name: &str| {
                let path = format!("{}/{name}", dir.trim_end_matches('/'));
                fs.read(path.as_str()).map_err(|e| format!("its {path} cannot be read: {e}"))
            };
            let kernel = read(&format!("{KERNEL}{version}"))?;
            return Ok(Some(Pair { kernel, initramfs: read(&initramfs)? }));
        }
    }
    Ok(None)
}

/// Its own name, if it is a root file system.
fn root(fs: &Ext4) -> Option<String> {
    let is = OF_ROOT.iter().any(|path| fs.symlink_metadata(*path).is_ok());
    is.then(|| format!("root=UUID={} rw", fs.uuid()))
}

/// What a boot loader would be told of a root file system that is no ext4.
fn entry(fs: &Ext4) -> Option<String> {
    ENTRIES.iter().find_map(|dir| {
        let mut names = names(fs, dir);
        names.retain(|name| name.ends_with(".conf") && !name.contains(RESCUE));
        names.sort_by_cached_key(|name| pieces(name));
        let text = fs.read_to_string(format!("{dir}/{}", names.last()?).as_str()).ok()?;
        let options = text.lines().find_map(|line| line.strip_prefix(OPTIONS))?;
        let about_root = |word: &&str| OF_OPTIONS.iter().any(|key| word.starts_with(key));
        let words: Vec<_> = options.split_whitespace().filter(about_root).collect();
        words.iter().any(|word| word.starts_with("root=")).then(|| format!("{} rw", words.join(" ")))
    })
}

/// Of a directory that can be read.
fn names(fs: &Ext4, dir: &str) -> Vec<String> {
    let entries = fs.read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.file_name().as_str().ok()?.to_owned())).collect()
}

/// A partition of a disk.
struct Part {
    disk: Arc<File>,
    place: Place,
}

impl Ext4Read for Part {
    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = start.checked_add(into.len() as u64).filter(|end| *end <= self.place.length);
        end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(self.disk.read_exact_at(into, self.place.start + start)?)
    }
}
