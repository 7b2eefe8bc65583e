//! The kernel of our own configuration, made from the source package of the distribution: everything built in that machines of
//! tests need, so that they load no modules and look for no devices that they cannot have.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use blake3::Hash;

use super::kernel_release;
use crate::{
    Error, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, seal},
    initramfs, packages,
};

/// Raised with every change to what is built, beside the configuration.
const FORMAT: u32 = 3;
const CONFIG: &str = include_str!("small.config");
/// What each file of the source includes first.
const FIRST: &str = include_str!("small.h");
/// The package that stands for the source of the distribution's kernel, and how the names of those begin.
const SOURCE: (&str, &str) = ("linux-source", "linux-source-");
/// What builds a kernel, with its packages.
const TOOLS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("make", "make"),
    ("bc", "bc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
];
/// A header that it needs too, with its package.
const HEADER: (&str, &str) = ("/usr/include/libelf.h", "libelf-dev");
/// The share of the whole, in percent, at which each part of a build begins.
const DOWNLOADING: u64 = 1;
const UNPACKING: u64 = 10;
const COMPILING: u64 = 15;
const PACKING: u64 = 99;
/// What make says while it builds, in lines: of Linux 6.1 with this configuration. Only for the bar.
const LINES: u64 = 2400;
/// Who builds it and when is in the kernel, and the same source shall make the same one.
const SAME_EVERYWHERE: &[(&str, &str)] =
    &[("KBUILD_BUILD_USER", "vmtest"), ("KBUILD_BUILD_HOST", "vmtest"), ("KBUILD_BUILD_TIMESTAMP", "1970-01-01")];

/// Identifies how it is made.
pub(super) fn recipe() -> Hash {
    blake3::hash(format!("{FORMAT} {} {CONFIG} {FIRST}", initramfs::modules_recipe()).as_bytes())
}

/// Makes the kernel.
pub(super) fn build(work: &Path, progress: &dyn Progress) -> Result<Built> {
    progress.step(0, "choosing the source");
    check_tools()?;
    let package = packages::dependency(SOURCE.0, SOURCE.1)?;
    let what = format!("downloading {package}");
    let downloaded = |percent| progress.step(DOWNLOADING + percent * (UNPACKING - DOWNLOADING) / 100, &what);
    let files = packages::download(&BTreeSet::from([package]), &work.join("packages"), downloaded)?;
    progress.step(UNPACKING, "unpacking the source");
    let (unpacked, source, objects, out) =
        (work.join("unpacked"), work.join("source"), work.join("objects"), work.join("image"));
    for dir in [&unpacked, &source, &objects, &out] {
        fs::create_dir(dir).map_err(Error::file("make", dir))?;
    }
    for file in &files {
        packages::unpack(file, &unpacked)?;
    }
    let tar = archive_in(&unpacked.join("usr/src"))?;
    packages::run(Command::new("tar").arg("-xf").arg(tar).arg("--strip-components=1").arg("-C").arg(&source))?;
    progress.step(COMPILING, "compiling the kernel");
    let image = compile(work, &source, &objects, progress)?;
    progress.step(PACKING, "packing");
    let kernel = out.join(KERNEL);
    packages::run(Command::new("strip").arg("-o").arg(&kernel).arg(&image))?;
    fs::set_permissions(&kernel, PermissionsExt::from_mode(0o644))
        .map_err(Error::file("change the mode of", &kernel))?;
    let kernel_version = kernel_release(&kernel).map_err(Error::file("read", &kernel))?;
    initramfs::write_no_modules(&out.join(INITRAMFS), false)?;
    initramfs::write_no_modules(&out.join(NESTED), true)?;
    seal(&out, &[KERNEL, INITRAMFS, NESTED])?;
    progress.step(100, "done");
    Ok(Built::new(packages::key_of(recipe().as_bytes(), &files), out, kernel_version))
}

/// Configures and compiles it; the result is the kernel as an ELF file, which every VMM loads, and which no emulated processor has
/// to unpack first.
fn compile(work: &Path, source: &Path, objects: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    let (config, first) = (work.join("small.config"), work.join("small.h"));
    for (file, content) in [(&config, CONFIG), (&first, FIRST)] {
        fs::write(file, content).map_err(Error::file("write", file))?;
    }
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.arg(format!("O={}", objects.display())).arg(target).current_dir(source);
        // What a make around this one says is about that.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env("KCONFIG_ALLCONFIG", &config);
        make.env("KCFLAGS", format!("-include {}", first.display()));
        make.envs(SAME_EVERYWHERE.iter().copied());
        make
    };
    packages::run(&make("allnoconfig"))?;
    let mut lines = 0;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    packages::run_watched(make("vmlinux").arg(format!("-j{jobs}")), |_| {
        lines += 1;
        let percent = COMPILING + (lines * (PACKING - COMPILING) / LINES).min(PACKING - COMPILING);
        progress.step(percent, "compiling the kernel");
    })?;
    Ok(objects.join("vmlinux"))
}

/// # Errors
/// [`Error::Tools`] with all that is missing.
fn check_tools() -> Result<()> {
    let tools = TOOLS.iter().filter(|(tool, _)| !packages::is_there(tool.as_ref()));
    let header = (!Path::new(HEADER.0).is_file()).then_some(&HEADER);
    let missing: Vec<_> = tools.chain(header).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Tools {
        missing: missing.iter().map(|(tool, _)| *tool).collect::<Vec<_>>().join(", "),
        packages: missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" "),
    })
}

/// The archive with the source: Debian's is in the directory, Ubuntu's in one below.
fn archive_in(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Ok(found) = archive_in(&path) {
                return Ok(found);
            }
        } else if name.starts_with(SOURCE.1) && name.contains(".tar.") {
            return Ok(path);
        }
    }
    Err(Error::Content { what: format!("/usr/src/{}*.tar.*", SOURCE.1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_given_once() {
        let options = CONFIG.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<_> = options.map(|line| line.split_once('=').expect("an option with its value").0).collect();
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| name.starts_with("CONFIG_")));
    }

    #[test]
    fn the_source_is_found_in_packages_of_both_distributions() {
        let dir = tempfile::tempdir().expect("a directory");
        let below = dir.path().join("linux-source-6.8.0");
        fs::create_dir_all(below.join("debian")).expect("it can be made");
        assert!(archive_in(dir.path()).is_err());
        fs::write(below.join("linux-source-6.8.0.tar.bz2"), "").expect("it can be written");
        assert_eq!(archive_in(dir.path()).expect("it is there"), below.join("linux-source-6.8.0.tar.bz2"));
        let other = tempfile::tempdir().expect("a directory");
        fs::write(other.path().join("linux-patch-6.1-rt.patch.xz"), "").expect("it can be written");
        fs::write(other.path().join("linux-source-6.1.tar.xz"), "").expect("it can be written");
        assert!(archive_in(other.path()).expect("it is there").ends_with("linux-source-6.1.tar.xz"));
    }
}
