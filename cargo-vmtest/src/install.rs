//! What the host must have, and how to get it.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

/// A program with the package that has it on Debian and Ubuntu.
type Program = (&'static str, &'static str);

/// What the QEMU backend and fixture disks call.
const PROGRAMS: &[Program] = &[("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.ext4", "e2fsprogs")];
/// What the builder of the guests' image calls, where the cache has none.
const FOR_IMAGES: &[Program] = &[("apt-get", "apt"), ("dpkg-deb", "dpkg")];
/// What clusters call that some tests have: with a way out, a place in the host's network, or a Debian.
const FOR_TESTS: &[Program] = &[("nft", "nftables"), ("pasta", "passt"), ("mmdebstrap", "mmdebstrap")];
/// What people and fake machines without root call; no test of root's lacks them.
const FOR_EVERYTHING: &[Program] = &[("ssh", "openssh-client"), ("newuidmap", "uidmap")];
/// Where administrators' programs are, which are not on the PATH of ordinary users.
const SYSTEM_PATH: &[&str] = &["/usr/sbin", "/sbin"];

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A cluster of machines in a network of their own.
    Cluster,
    /// Tests of all kinds.
    Tests,
    /// Tests of all kinds and all users, and every command.
    Everything,
}

/// A VMM that no package of the distribution has.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Vmm {
    CloudHypervisor,
}

/// Fetches cloud-hypervisor, and says where it is.
///
/// # Errors
/// Why it is not there.
pub(crate) fn cloud_hypervisor(url: Option<&str>, sha256: Option<&str>) -> Result<ExitCode, String> {
    let installed = vmtest::__private::install_cloud_hypervisor(url, sha256).map_err(|e| {
        format!(
            "{e}\non a host without a way there, put the program on PATH, or set VMTEST_CLOUD_HYPERVISOR to its path"
        )
    });
    let (version, path) = installed?;
    println!("cloud-hypervisor v{version} is {}; tests take it where none is on PATH", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Checks that everything is there, and installs what is missing if that was asked for.
///
/// # Errors
/// The one line to run, where something is missing and may not or cannot be installed.
pub(crate) fn ensure(install: bool, purpose: Purpose) -> Result<(), String> {
    let missing = missing(purpose);
    let lacks_lists = !has_image() && !has_package_lists();
    if missing.is_empty() && !lacks_lists {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let mut commands = vec!["sudo apt-get update".to_owned()];
    if !packages.is_empty() {
        commands.push(format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" ")));
    }
    let mut lacking: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    if lacks_lists {
        lacking.push("the package lists of apt, from which the guests' packages are chosen");
    }
    let lacking = format!("not found: {}; run this line:\n  {}", lacking.join(", "), commands.join(" && "));
    if !install {
        return Err(format!("{lacking}\nor this command again with --install, as root"));
    }
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        return Err(lacking);
    }
    apt(&["update", "-q"])?;
    if !packages.is_empty() {
        eprintln!("installing {}", packages.join(", "));
        apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages.as_slice()].concat())?;
    }
    match self::missing(purpose).first() {
        None => Ok(()),
        Some((program, package)) => Err(format!("{package} was installed, but there still is no {program}")),
    }
}

/// Whether apt knows any packages; machines made from container images often do not.
fn has_package_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn missing(purpose: Purpose) -> Vec<Program> {
    let for_images = if has_image() { &[] } else { FOR_IMAGES };
    let for_tests = if purpose == Purpose::Cluster { &[] } else { FOR_TESTS };
    let for_everything = if purpose == Purpose::Everything { FOR_EVERYTHING } else { &[] };
    let all = [PROGRAMS, for_images, for_tests, for_everything].into_iter().flatten();
    all.copied().filter(|(program, _)| find(program).is_none()).collect()
}

/// Whether the cache has the image that machines have of which nothing is said.
fn has_image() -> bool {
    let dir = vmtest_images::Cache::default_dir(rustix::process::geteuid().as_raw());
    let found = vmtest_images::Cache::open(dir).and_then(|cache| vmtest_images::find(&cache, &"micro".into()));
    found.is_ok_and(|image| image.is_some())
}

fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_PATH.iter().map(Into::into));
    dirs.map(|dir| dir.join(program)).find(|candidate| Path::is_file(candidate))
}

fn apt(args: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`apt-get {}` failed with {status}", args.join(" "))),
        Err(e) => Err(format!("cannot run apt-get: {e}")),
    }
}
