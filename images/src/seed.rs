//! What one guest has to know about itself, as a second archive behind its image's initramfs.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::{
    cpio_writer::Archive,
    initramfs::{DRIVERS_LIST, ORDER},
};

/// Everything that a guest is told.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    /// Its host name.
    pub hostname: String,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses and names of all machines.
    pub hosts: Vec<(String, String)>,
    /// The address of whom it asks for other names.
    pub nameserver: Option<String>,
    /// The line of `authorized_keys` that lets root in, and `login`.
    pub authorized_key: String,
    /// Another account that is entered in place of root, and may do as root does. Only a cloud image has such.
    pub login: Option<String>,
    /// The key by which it is known.
    pub host_key: HostKey,
    /// What it mounts.
    pub mounts: Vec<Mount>,
    /// Whether it leaves the modules of its image alone: they go with the image's own kernel and no other.
    pub no_modules: bool,
    /// What its root file system is made of; without, it has what is in its initramfs.
    pub root: Option<RootMount>,
}

impl GuestConfig {
    /// What is in its `/etc/hosts`.
    pub(crate) fn hosts_file(&self) -> String {
        let hosts = self.hosts.iter().map(|(ip, name)| format!("{ip} {name}\n"));
        ["127.0.0.1 localhost\n::1 localhost\n".to_owned()].into_iter().chain(hosts).collect()
    }
}

/// One network interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// The hardware address by which the guest finds it.
    pub mac: String,
    /// Address and prefix, `10.77.0.11/24`.
    pub address: String,
    /// The way to everywhere else.
    pub gateway: Option<String>,
    /// Second address and prefix, `fd77::11/64`.
    pub address6: Option<String>,
    /// The largest packet in bytes.
    pub mtu: u32,
}

/// An ed25519 host key.
#[derive(Clone)]
pub struct HostKey {
    /// The seed of the private key.
    pub private: [u8; 32],
    /// The public key.
    pub public: [u8; 32],
    /// The private key as OpenSSH writes it.
    pub openssh: String,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey").finish_non_exhaustive()
    }
}

/// One ext4 to mount.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its filesystem's label.
    pub label: String,
    /// Where.
    pub at: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// With which options a machine mounts an ext4. The places of inodes that a new disk never cleared stay so: the kernel would clear
/// them in the background, beside the test.
pub fn mount_options(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw,noinit_itable" }
}

/// A root file system of two: what every machine of an image has, and what this one writes.
#[derive(Debug, Clone)]
pub struct RootMount {
    /// The label of the read-only ext4.
    pub lower: String,
    /// The label of the machine's own.
    pub upper: String,
}

/// Under which name the firmware of QEMU has what a guest is told, for an image that [asks](crate::Image::asks_firmware).
pub const FIRMWARE_FILE: &str = "opt/vmtest/facts";

/// The kernel reads a further archive only where it begins at a multiple of this; elsewhere it is silently ignored.
const ALIGNMENT: usize = 4;

/// Writes `out`: the base initramfs, behind it the modules of another kernel, if there are any, and behind them the guest's
/// facts.
///
/// # Errors
/// When a file cannot be read or written; a partly written `out` stays for the caller to remove.
pub fn append_seed(base: &Path, modules: Option<&Path>, out: &Path, config: &GuestConfig) -> io::Result<()> {
    let mut end = copy_to_append(base, out)?;
    if let Some(modules) = modules {
        let length = io::copy(&mut File::open(modules)?, &mut end)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        end.write_all(&[0; ALIGNMENT][..length.next_multiple_of(ALIGNMENT) - length])?;
    }
    write_archive(end, config)?.flush()
}

/// Writes the guest's facts alone, for the firmware of QEMU to hand over as [`FIRMWARE_FILE`]. Only the caller can read them.
///
/// # Errors
/// When the file cannot be written.
pub fn write_facts(out: &Path, config: &GuestConfig) -> io::Result<()> {
    let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(out)?;
    write_archive(BufWriter::new(file), config)?.flush()
}

/// Copies an initramfs to where another archive is written behind it.
pub(crate) fn copy_to_append(base: &Path, out: &Path) -> io::Result<BufWriter<File>> {
    fs::copy(base, out)?;
    // The copy has the base's mode, which forbids writing.
    fs::set_permissions(out, PermissionsExt::from_mode(0o600))?;
    let mut file = File::options().write(true).open(out)?;
    let end = usize::try_from(file.seek(io::SeekFrom::End(0))?).map_err(io::Error::other)?;
    file.write_all(&[0; ALIGNMENT][..end.next_multiple_of(ALIGNMENT) - end])?;
    Ok(BufWriter::new(file))
}

pub(crate) fn write_archive<W: Write>(out: W, config: &GuestConfig) -> io::Result<W> {
    let mut archive = Archive::new(out);
    let lines = |lines: Vec<String>| lines.concat().into_bytes();
    archive.file("etc/hostname", 0o644, format!("{}\n", config.hostname).as_bytes())?;
    archive.file("etc/hosts", 0o644, config.hosts_file().as_bytes())?;
    if let Some(nameserver) = &config.nameserver {
        archive.file("etc/resolv.conf", 0o644, format!("nameserver {nameserver}\n").as_bytes())?;
    }
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let interface =
        |i: &Interface| format!("{} {} {} {} {}\n", i.mac, i.address, or_none(&i.gateway), or_none(&i.address6), i.mtu);
    archive.file("etc/vmtest/interfaces", 0o644, &lines(config.interfaces.iter().map(interface).collect()))?;
    let mount = |m: &Mount| format!("{} {} {}\n", m.label, m.at, mount_options(m.read_only));
    archive.file("etc/vmtest/mounts", 0o644, &lines(config.mounts.iter().map(mount).collect()))?;
    if config.no_modules {
        for list in [ORDER, DRIVERS_LIST] {
            archive.file(list, 0o644, b"")?;
        }
    }
    archive.file("root/.ssh/authorized_keys", 0o600, format!("{}\n", config.authorized_key.trim()).as_bytes())?;
    archive.file("etc/dropbear/host_key", 0o600, &dropbear_key(&config.host_key))?;
    if let Some(RootMount { lower, upper }) = &config.root {
        archive.file("etc/vmtest/root", 0o644, format!("{lower} {upper}\n").as_bytes())?;
        archive.file("etc/ssh/ssh_host_ed25519_key", 0o600, config.host_key.openssh.as_bytes())?;
    }
    archive.finish()
}

/// dropbear's own form of an ed25519 key: the type, then seed and public key as one string, each with its length.
fn dropbear_key(key: &HostKey) -> Vec<u8> {
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes(), bytes].concat();
    [string(b"ssh-ed25519"), string(&[key.private, key.public].concat())].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_facts_follow_the_base_at_an_aligned_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (base, out) = (dir.path().join("base"), dir.path().join("out"));
        for padding in 0..4 {
            fs::write(&base, vec![1; 100 + padding]).expect("it can be written");
            append_seed(&base, None, &out, &config()).expect("it can be written");
            let bytes = fs::read(&out).expect("it is there");
            let start = (100 + padding).next_multiple_of(ALIGNMENT);
            assert_eq!(&bytes[start..start + 6], b"070701");
            let mut archive = cpio::newc::Reader::new(&bytes[start..]).expect("it is an archive");
            assert_eq!(archive.entry().name(), "etc/hostname");
            let mut text = String::new();
            archive.read_to_string(&mut text).expect("it is text");
            assert_eq!(text, "alice\n");
        }
    }

    #[test]
    fn modules_stand_between_both_at_aligned_places() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| dir.path().join(name);
        fs::write(file("base"), vec![1; 101]).expect("it can be written");
        fs::write(file("modules"), vec![2; 50]).expect("it can be written");
        append_seed(&file("base"), Some(&file("modules")), &file("out"), &config()).expect("it can be written");
        let bytes = fs::read(file("out")).expect("it is there");
        assert_eq!((&bytes[104..154], &bytes[156..162]), (&[2; 50][..], &b"070701"[..]));
    }

    #[test]
    fn a_mount_is_a_label_a_place_and_options() {
        let mount = |label: &str, read_only| Mount { label: label.into(), at: format!("/srv/{label}"), read_only };
        let mounts = vec![mount("data", true), mount("scratch", false)];
        let archive = write_archive(Vec::new(), &GuestConfig { mounts, ..config() }).expect("memory takes it");
        let mut archive = archive.as_slice();
        let text = loop {
            let mut entry = cpio::newc::Reader::new(archive).expect("it has the file");
            if entry.entry().name() == "etc/vmtest/mounts" {
                break io::read_to_string(&mut entry).expect("it is text");
            }
            archive = entry.finish().expect("it goes on");
        };
        // A system of somebody else reads it.
        assert_eq!(text, "data /srv/data ro\nscratch /srv/scratch rw,noinit_itable\n");
    }

    fn config() -> GuestConfig {
        GuestConfig {
            hostname: "alice".into(),
            interfaces: vec![],
            hosts: vec![],
            nameserver: None,
            authorized_key: "ssh-ed25519 A".into(),
            login: None,
            host_key: HostKey { private: [1; 32], public: [2; 32], openssh: String::new() },
            mounts: vec![],
            no_modules: false,
            root: None,
        }
    }
}
