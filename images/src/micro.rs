//! The `micro` image: the distribution's kernel, and an initramfs with busybox, dropbear and the modules for virtio.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Error, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, seal},
    initramfs::{self, Contents},
    packages,
};

/// Raised with every change to what is built, beside that of the guest's scripts.
const FORMAT: u32 = 6;
/// Meta packages of kernels for virtual machines, with the beginning of the name of the package that each stands for:
/// Debian's, then Ubuntu's, whose modules are a package of their own.
const KERNELS: &[(&str, &str, Option<&str>)] = &[
    ("linux-image-cloud-amd64", "linux-image-", None),
    ("linux-image-virtual", "linux-image-", Some("linux-modules-")),
];
/// The share of the whole, in percent, at which each part of a build begins; downloading 30 MB takes most of it.
const DOWNLOADING: u64 = 5;
const UNPACKING: u64 = 80;
const PACKING: u64 = 90;

/// Identifies our own part of the image.
pub(crate) fn recipe() -> String {
    let parts = [&FORMAT.to_le_bytes(), initramfs::OWN_PARTS.concat().as_bytes()].concat();
    blake3::hash(&parts).to_hex()[..16].to_owned()
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
    let kernel = out.join(KERNEL);
    fs::copy(&vmlinuz, &kernel).map_err(Error::file("copy", &vmlinuz))?;
    for (host, name) in [(false, INITRAMFS), (true, NESTED)] {
        let contents = Contents { userland: &root, modules: &root, kernel_version: &kernel_version, host };
        contents.write_alone(&out.join(name))?;
    }
    seal(&out, &[KERNEL, INITRAMFS, NESTED])?;
    progress.step(100, "done");
    Ok(Built { key: key_of(&files), dir: out, kernel_version, root: None, memory: None, entrypoint: None })
}

fn kernel_packages() -> Result<Vec<String>> {
    let mut first = None;
    for (meta, image, modules) in KERNELS {
        if !packages::exists(meta)? {
            first.get_or_insert(Error::Package { package: (*meta).to_owned() });
            continue;
        }
        let image_package = packages::dependency(meta, image)?;
        let release = image_package.trim_start_matches(image).to_owned();
        let modules = modules.map(|prefix| format!("{prefix}{release}"));
        return Ok([image_package].into_iter().chain(modules).collect());
    }
    Err(first.expect("the table of kernels is not empty"))
}

/// The packages' names with their versions are in the names of their files.
fn key_of(files: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(recipe().as_bytes());
    for name in files.iter().filter_map(|file| file.file_name()) {
        hasher.update(name.as_encoded_bytes()).update(b"\0");
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
