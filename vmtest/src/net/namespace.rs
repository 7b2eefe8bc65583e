//! A network namespace of one's own.

use std::{fs, fs::OpenOptions, io, os::unix::fs::MetadataExt};

use nix::sched::{CloneFlags, unshare};

use crate::{
    error::{Error, Kind},
    host::has_capabilities,
};

const TUN: &str = "/dev/net/tun";
const CAP_SYS_ADMIN: u32 = 21;
const CAP_NET_ADMIN: u32 = 12;

/// Moves the calling thread into a new network namespace. Threads and processes that it starts from now on are inside.
///
/// The result is the inode that names the namespace; the kernel destroys it, with all links in it, when its last
/// thread or process ends.
///
/// # Errors
/// [`Kind::Missing`] without the right to do so.
pub(crate) fn enter_new_namespace() -> Result<u64, Error> {
    let failed = |e: io::Error| Error::new(Kind::Missing, "cannot make a network namespace").caused_by(e);
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    fs::metadata("/proc/thread-self/ns/net").map(|meta| meta.ino()).map_err(failed)
}

/// What this process lacks to make a cluster's network; each with its remedy.
pub(crate) fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !has_capabilities(&status, &[CAP_SYS_ADMIN, CAP_NET_ADMIN]) {
        missing.push(
            "this process may not make network namespaces and taps: run the tests as root \
             (`sudo -E env PATH=$PATH cargo test`), or with CAP_SYS_ADMIN and CAP_NET_ADMIN"
                .to_owned(),
        );
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            missing.push(format!("{TUN} is not there: run `modprobe tun` as root"))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            missing.push(format!("{TUN} may not be opened: run `chmod 666 {TUN}` as root"));
        }
        Err(e) => missing.push(format!("{TUN} cannot be opened ({e}): load the module with `modprobe tun` as root")),
    }
    missing
}
