//! A network namespace of one's own.

use std::{fs, fs::OpenOptions, io, os::unix::fs::MetadataExt};

use nix::sched::{CloneFlags, unshare};

use super::{enter_namespace, hold_namespace, nft};
use crate::{
    error::{Error, Kind},
    host::{Entrance, ROOTLESS, entrance, may_make_networks},
};

const TUN: &str = "/dev/net/tun";
/// How often a socket that nobody has any more repeats what its peer has not acknowledged. It keeps its network until then, and
/// the peers of a run that was killed are gone with it: with the kernel's own 8 its links stayed for a hundred seconds, with this
/// for twelve. A machine that is paused or slow has as long to take what was sent before its connection was closed.
const ORPHAN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_orphan_retries";
const RETRIES: &str = "5";
/// How a process gets the right without a namespace.
const AS_ROOT: &str = "run the tests as root (`sudo -E env PATH=$PATH cargo test`)";

/// Moves the calling thread into a new network namespace. Threads and processes that it starts from now on are inside.
///
/// The result is the inode that names the namespace; the kernel destroys it, with all links in it, when its last
/// thread or process ends, and the last socket that has something to say.
///
/// # Errors
/// [`Kind::Missing`] without the right to do so, or where there are as many as this host allows.
pub(crate) fn enter_new_namespace() -> Result<u64, Error> {
    let failed = |e: io::Error| {
        let remedy = match e.kind() {
            io::ErrorKind::StorageFull => ": `user.max_net_namespaces` allows no more; raise it with `sudo sysctl -w`",
            _ => "",
        };
        Error::new(Kind::Missing, format!("cannot make a network namespace{remedy}")).caused_by(e)
    };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    // The namespace works without; after a kill it only stays longer.
    drop(fs::write(ORPHAN_RETRIES, RETRIES));
    fs::metadata("/proc/thread-self/ns/net").map(|meta| meta.ino()).map_err(failed)
}

/// Why this process has not got the right in a namespace of its own, and how it does.
fn why_not() -> String {
    match entrance() {
        None => format!(
            ", and has not entered a user namespace in which it may, because it does not look like one that makes \
             clusters: call `vmtest::enter_rootless()` before all else in `main`, write `vmtest::rootless!();` beside \
             the tests where `main` is not yours, or {AS_ROOT}"
        ),
        Some(Entrance::TurnedOff) => {
            format!(", and {ROOTLESS}=off keeps it from a user namespace in which it may: unset that, or {AS_ROOT}")
        }
        Some(Entrance::Refused(why)) => {
            format!(", and this host refuses it a user namespace in which it may. {why}. Or {AS_ROOT}")
        }
        Some(Entrance::NotNeeded | Entrance::Entered { .. }) => {
            format!(", because it has given up CAP_SYS_ADMIN or CAP_NET_ADMIN since it began: keep them, or {AS_ROOT}")
        }
    }
}

/// What this process lacks to make a cluster's network; each with its remedy.
pub(crate) fn missing() -> Vec<String> {
    missing_right().into_iter().chain(missing_tun()).collect()
}

/// Why this process may not make networks, with the remedy.
pub(crate) fn missing_right() -> Option<String> {
    (!may_make_networks()).then(|| format!("this process may not make network namespaces and taps{}", why_not()))
}

/// Why no tap can be made, with the remedy.
pub(crate) fn missing_tun() -> Option<String> {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(format!("{TUN} is not there: run `sudo modprobe tun`")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("{TUN} may not be opened: run `sudo chmod 666 {TUN}`"))
        }
        Err(e) => Some(format!("{TUN} cannot be opened ({e}): load its module with `sudo modprobe tun`")),
    }
}

/// Whether this process may make interfaces in the network where the calling thread is.
pub(super) fn may_change_network() -> bool {
    // To go where one is takes the same right over that network as to come back, and changes nothing.
    may_make_networks() && hold_namespace().is_ok_and(|own| enter_namespace(&own).is_ok())
}

/// What this process lacks to make interfaces in the network where it is; each with its remedy.
pub(crate) fn missing_for_host() -> Vec<String> {
    let no_right = || {
        let own = "leave `network` out: then the cluster has a network of its own";
        format!("`network = \"host\"` takes root in the network where the test is started: {AS_ROOT}, or {own}")
    };
    (!may_change_network()).then(no_right).into_iter().chain(nft::missing()).collect()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn sockets_do_not_keep_a_network_for_long() {
        let retries = || fs::read_to_string(ORPHAN_RETRIES).unwrap();
        let of_host = retries();
        let in_new = || {
            enter_new_namespace().unwrap();
            retries()
        };
        assert_eq!(thread::scope(|scope| scope.spawn(in_new).join().unwrap()), format!("{RETRIES}\n"));
        assert_eq!(retries(), of_host);
    }
}
