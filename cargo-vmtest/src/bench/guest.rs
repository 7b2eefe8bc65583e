//! The guest of bare VMMs: what it is told, and how it is asked.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use vmtest_images::{GuestConfig, HostKey, Interface};

use super::run_command;

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
pub(super) const MAC: &str = "52:54:00:4d:00:0b";
pub(super) const CMDLINE: &str = "console=ttyS0 panic=-1 reboot=t net.ifnames=0";
/// As often as the framework knocks.
pub(super) const KNOCK_EVERY: Duration = Duration::from_millis(20);
/// A guest that has not answered after this has failed.
pub(super) const UP_WITHIN: Duration = Duration::from_secs(120);
/// The first pair of keys among the test vectors of RFC 8032.
const HOST_KEY: [&str; 2] = [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
];

/// Makes a pair of keys by OpenSSH at this path, the public one beside it as `.pub`.
pub(super) fn make_keys(at: &Path) -> Result<(), String> {
    run_command(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at))
}

/// What a machine with this name and address is told, which lets in whoever has this key. Its own key is known to all but
/// OpenSSH's server.
pub(super) fn config(authorized_key: &str) -> GuestConfig {
    let interface = Interface {
        mac: MAC.into(),
        address: format!("{ADDRESS}/24"),
        gateway: Some("10.77.0.1".into()),
        address6: Some("fd77::11/64".into()),
        mtu: 1500,
    };
    let [private, public] = HOST_KEY.map(bytes);
    GuestConfig {
        hostname: "alice".into(),
        interfaces: vec![interface],
        hosts: vec![(ADDRESS.to_string(), "alice".into())],
        nameserver: None,
        authorized_key: authorized_key.to_owned(),
        login: None,
        host_key: HostKey { private, public, openssh: String::new() },
        mounts: Vec::new(),
        no_modules: false,
        root: None,
    }
}

fn bytes(hex: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("the keys are in hexadecimal digits");
    }
    bytes
}

/// Whether an SSH server sends its banner there, waiting no longer than this for either.
pub(super) fn has_banner(address: SocketAddr, within: Duration) -> bool {
    let Ok(stream) = TcpStream::connect_timeout(&address, within) else { return false };
    // QEMU accepts before the guest does; what it forwards to nobody it closes.
    if stream.set_read_timeout(Some(within)).is_err() {
        return false;
    }
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).is_ok() && line.starts_with(b"SSH-2.0-")
}
