//! The `micro` image: the distribution's kernel, and an initramfs with busybox, dropbear and the modules for virtio.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    Error, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, put_kernel, seal},
    initramfs::{self, Contents},
    kernels,
    key::short,
    packages,
};

/// Raised with every change to what is built, beside that of the guest's scripts.
const FORMAT: u32 = 8;
/// The packages that stand for the newest kernel for virtual machines: Debian's, then Ubuntu's.
const KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-virtual"];
/// The share of the whole, in percent, at which each part of a build begins; downloading 30 MB takes most of it.
const DOWNLOADING: u64 = 5;
const UNPACKING: u64 = 80;
const PACKING: u64 = 90;

/// Identifies our own part of the image.
pub(crate) fn recipe() -> String {
    let own = initramfs::OWN_PARTS.concat() + &initramfs::modules_recipe();
    short(blake3::hash(&[&FORMAT.to_le_bytes(), own.as_bytes()].concat()))
}

/// Builds the image in a directory that is removed with everything else in it afterwards.
pub(crate) fn build(work: &Path, progress: &dyn Progress) -> Result<Built> {
    progress.step(0, "choosing packages");
    let kernel = kernel_packages()?;
    let mut wanted: BTreeSet<_> = kernel.into_iter().collect();
    for package in ["busybox-static", "dropbear-bin", "kmod"] {
        wanted.extend(packages::closure(package)?);
    }
    let what = format!("downloading {} packages", wanted.len());
    progress.step(DOWNLOADING, &what);
    let downloaded = |percent| progress.step(DOWNLOADING + percent * (UNPACKING - DOWNLOADING) / 100, &what);
    let files = packages::download(&wanted, &work.join("packages"), downloaded)?;
    progress.step(UNPACKING, "unpacking");
    let root = work.join("root");
    fs::create_dir_all(&root).map_err(Error::file("make", &root))?;
    for file in &files {
        packages::unpack(file, &root)?;
    }
    progress.step(PACKING, "packing the initramfs");
    let out = work.join("image");
    fs::create_dir(&out).map_err(Error::file("make", &out))?;
    let (vmlinuz, kernel_version) = initramfs::find_kernel(&root)?;
    put_kernel(&vmlinuz, &out)?;
    let mut asks_firmware = false;
    for (host, name) in [(false, INITRAMFS), (true, NESTED)] {
        let contents = Contents { userland: &root, modules: &root, kernel_version: &kernel_version, host };
        asks_firmware = contents.write_alone(&out.join(name))?;
    }
    seal(&out, &[KERNEL, INITRAMFS, NESTED])?;
    progress.step(100, "done");
    Ok(Built { asks_firmware, ..Built::new(packages::key_of(recipe(), &files), out, kernel_version) })
}

fn kernel_packages() -> Result<Vec<String>> {
    let mut first = None;
    for package in KERNELS {
        match kernels::with_modules(package) {
            Err(missing @ Error::Package { .. }) => drop(first.get_or_insert(missing)),
            other => return other,
        }
    }
    Err(first.expect("the table of kernels is not empty"))
}
