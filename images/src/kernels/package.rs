//! A kernel from a package of the distribution.

use std::{collections::BTreeSet, fs, path::Path};

use blake3::Hash;

use super::PACKAGE;
use crate::{
    Error, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, put_kernel, seal},
    initramfs::{self, Contents},
    packages,
};

/// Raised with every change to what is built.
const FORMAT: u32 = 3;
/// What packages are called that have the modules of a kernel, where its own has none.
const MODULES: &str = "linux-modules-";
/// The share of the whole, in percent, at which each part of a build begins; downloading takes most of it.
const DOWNLOADING: u64 = 5;
const UNPACKING: u64 = 80;
const PACKING: u64 = 90;

/// Identifies how it is made.
pub(super) fn recipe(package: &str) -> Hash {
    blake3::hash(format!("{FORMAT} {} {package}", initramfs::modules_recipe()).as_bytes())
}

/// Makes the kernel of this package.
pub(super) fn build(package: &str, work: &Path, progress: &dyn Progress) -> Result<Built> {
    progress.step(0, "choosing packages");
    let mut wanted: BTreeSet<_> = with_modules(package)?.into_iter().collect();
    // What lists the modules, where the package does not.
    wanted.extend(packages::closure("kmod")?);
    let what = format!("downloading {} packages", wanted.len());
    let downloaded = |percent| progress.step(DOWNLOADING + percent * (UNPACKING - DOWNLOADING) / 100, &what);
    let files = packages::download(&wanted, &work.join("packages"), downloaded)?;
    progress.step(UNPACKING, "unpacking");
    let (root, out) = (work.join("root"), work.join("image"));
    for dir in [&root, &out] {
        fs::create_dir(dir).map_err(Error::file("make", dir))?;
    }
    for file in &files {
        packages::unpack(file, &root)?;
    }
    progress.step(PACKING, "packing the modules");
    let (vmlinuz, kernel_version) = initramfs::find_kernel(&root)?;
    put_kernel(&vmlinuz, &out)?;
    for (host, name) in [(false, INITRAMFS), (true, NESTED)] {
        let contents = Contents { userland: &root, modules: &root, kernel_version: &kernel_version, host };
        contents.write_modules(&out.join(name))?;
    }
    seal(&out, &[KERNEL, INITRAMFS, NESTED])?;
    progress.step(100, "done");
    let key = packages::key_of(recipe(package).as_bytes(), &files);
    Ok(Built::new(key, out, kernel_version))
}

/// The package with the kernel that this one is or stands for, and that with its modules, where they are in another.
///
/// # Errors
/// [`Error::Package`] where apt knows no such package.
pub(crate) fn with_modules(package: &str) -> Result<Vec<String>> {
    if !packages::exists(package)? {
        return Err(Error::Package { package: package.to_owned() });
    }
    // One that stands for the newest needs it.
    let image = packages::dependency(package, PACKAGE).unwrap_or_else(|_| package.to_owned());
    let release = image.trim_start_matches(PACKAGE);
    let modules = format!("{MODULES}{release}");
    let modules = packages::exists(&modules)?.then_some(modules);
    Ok([image].into_iter().chain(modules).collect())
}
