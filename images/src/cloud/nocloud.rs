//! What cloud-init of one guest is told, as a disk of the data source NoCloud.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use serde_json::{Value, json};

use crate::{GuestConfig, Interface, Mount, key::short, seed::mount_options, shell::quoted};

/// The label by which cloud-init finds it. It takes a FAT or an ISO 9660 and nothing else (`DataSourceNoCloud`).
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Bytes of the disk beside what is in it; a FAT has at least some sectors.
const ROOM: u64 = 256 << 10;
const HEADER: &str = "#cloud-config\n";

/// Writes the disk to `out`, in place of what is there.
///
/// # Errors
/// When it cannot be written.
pub fn write_nocloud(out: &Path, config: &GuestConfig) -> io::Result<()> {
    let files = [
        ("meta-data", meta_data(config).to_string()),
        ("user-data", format!("{HEADER}{}", user_data(config))),
        ("network-config", network(&config.interfaces, config.nameserver.as_deref()).to_string()),
    ];
    if let Err(e) = fs::remove_file(out)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut disk = File::options().read(true).write(true).create_new(true).open(out)?;
    let content: usize = files.iter().map(|(_, content)| content.len()).sum();
    disk.set_len((content as u64 * 2 + ROOM).next_multiple_of(4096))?;
    format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL))?;
    let fat = FileSystem::new(disk, FsOptions::new())?;
    for (name, content) in files {
        fat.root_dir().create_file(name)?.write_all(content.as_bytes())?;
    }
    fat.unmount()
}

/// The same machine has the same name at each of its boots, and no other has it.
fn meta_data(config: &GuestConfig) -> Value {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&config.host_key.public).update(config.hostname.as_bytes());
    let id = short(hasher.finalize());
    json!({ "instance-id": format!("vmtest-{id}"), "local-hostname": config.hostname })
}

/// JSON is what YAML is too.
fn user_data(config: &GuestConfig) -> Value {
    let mut data = json!({
        "disable_root": false,
        "ssh_authorized_keys": [config.authorized_key.trim()],
        "ssh_keys": { "ed25519_private": config.host_key.openssh },
        "manage_etc_hosts": false,
        "bootcmd": [at_each_boot(config)],
    });
    if let Some(login) = &config.login {
        // One that the image has already is let in all the same.
        let account = json!({
            "name": login,
            "shell": "/bin/sh",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": [config.authorized_key.trim()],
        });
        data["users"] = json!(["default", account]);
    }
    data
}

/// A script that is run at each boot, before the SSH server is there.
fn at_each_boot(config: &GuestConfig) -> String {
    let hosts = config.hosts_file();
    let mount = |Mount { label, at, read_only }: &Mount| {
        let options = mount_options(*read_only);
        let (at, label) = (quoted(at), quoted(&format!("LABEL={label}")));
        format!("mkdir -p {at} && mount -t ext4 -o {options} {label} {at}\n")
    };
    let mounts: String = config.mounts.iter().map(mount).collect();
    format!("cat >/etc/hosts <<'END'\n{hosts}END\n{mounts}")
}

/// The second version of the format, which every cloud-init of today reads.
fn network(interfaces: &[Interface], nameserver: Option<&str>) -> Value {
    let interface = |(number, interface): (usize, &Interface)| {
        let addresses: Vec<_> = [Some(&interface.address), interface.address6.as_ref()].into_iter().flatten().collect();
        let mut value = json!({
            "match": { "macaddress": interface.mac },
            "set-name": format!("eth{number}"),
            "addresses": addresses,
            "mtu": interface.mtu,
            "dhcp4": false,
            "dhcp6": false,
            "accept-ra": false,
        });
        if let Some(gateway) = &interface.gateway {
            value["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway }]);
        }
        if let Some(nameserver) = nameserver.filter(|_| number == 0) {
            value["nameservers"] = json!({ "addresses": [nameserver] });
        }
        (format!("eth{number}"), value)
    };
    let interfaces: serde_json::Map<_, _> = interfaces.iter().enumerate().map(interface).collect();
    json!({ "version": 2, "ethernets": interfaces })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use expect_test::expect;

    use super::*;
    use crate::HostKey;

    fn config() -> GuestConfig {
        let interface = |number: u8, gateway: Option<&str>| Interface {
            mac: format!("52:54:00:4d:00:0{number}"),
            address: format!("10.77.{number}.11/24"),
            gateway: gateway.map(str::to_owned),
            address6: Some(format!("fd77:{number}::11/64")),
            mtu: 1500,
        };
        GuestConfig {
            hostname: "alice".into(),
            interfaces: vec![interface(0, Some("10.77.0.1")), interface(1, None)],
            hosts: vec![("10.77.0.11".into(), "alice alice.default".into()), ("10.77.0.12".into(), "bob".into())],
            nameserver: Some("10.77.0.1".into()),
            authorized_key: "ssh-ed25519 AAAA\n".into(),
            login: None,
            host_key: HostKey { private: [1; 32], public: [2; 32], openssh: "-----BEGIN\n\"key\"\n".into() },
            mounts: vec![Mount { label: "it's".into(), at: "/srv/it's".into(), read_only: true }],
            no_modules: false,
            root: None,
        }
    }

    /// The files of the disk, as a FAT has them.
    fn files(disk: &Path) -> Vec<(String, String)> {
        let fat =
            FileSystem::new(File::options().read(true).write(true).open(disk).unwrap(), FsOptions::new()).unwrap();
        assert_eq!(fat.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let read = |entry: fatfs::DirEntry<'_, _>| {
            let mut content = String::new();
            entry.to_file().read_to_string(&mut content).unwrap();
            (entry.file_name(), content)
        };
        fat.root_dir().iter().map(|entry| read(entry.unwrap())).collect()
    }

    #[test]
    fn a_machine_finds_on_its_disk_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("seed.img");
        // Over what is there.
        fs::write(&disk, vec![1; 1 << 20]).unwrap();
        write_nocloud(&disk, &config()).unwrap();
        let shown = files(&disk).iter().map(|(name, content)| format!("{name}: {content}\n")).collect::<String>();
        expect![[r#"
            meta-data: {"instance-id":"vmtest-c3a5f646eff9c06a","local-hostname":"alice"}
            user-data: #cloud-config
            {"bootcmd":["cat >/etc/hosts <<'END'\n127.0.0.1 localhost\n::1 localhost\n10.77.0.11 alice alice.default\n10.77.0.12 bob\nEND\nmkdir -p '/srv/it'\\''s' && mount -t ext4 -o ro 'LABEL=it'\\''s' '/srv/it'\\''s'\n"],"disable_root":false,"manage_etc_hosts":false,"ssh_authorized_keys":["ssh-ed25519 AAAA"],"ssh_keys":{"ed25519_private":"-----BEGIN\n\"key\"\n"}}
            network-config: {"ethernets":{"eth0":{"accept-ra":false,"addresses":["10.77.0.11/24","fd77:0::11/64"],"dhcp4":false,"dhcp6":false,"match":{"macaddress":"52:54:00:4d:00:00"},"mtu":1500,"nameservers":{"addresses":["10.77.0.1"]},"routes":[{"to":"0.0.0.0/0","via":"10.77.0.1"}],"set-name":"eth0"},"eth1":{"accept-ra":false,"addresses":["10.77.1.11/24","fd77:1::11/64"],"dhcp4":false,"dhcp6":false,"match":{"macaddress":"52:54:00:4d:00:01"},"mtu":1500,"set-name":"eth1"}},"version":2}
        "#]].assert_eq(&shown);
    }

    #[test]
    fn another_account_is_made_or_let_in() {
        let data = user_data(&GuestConfig { login: Some("admin".into()), ..config() });
        expect![[r#"["default",{"lock_passwd":true,"name":"admin","shell":"/bin/sh","ssh_authorized_keys":["ssh-ed25519 AAAA"],"sudo":"ALL=(ALL) NOPASSWD:ALL"}]"#]]
            .assert_eq(&data["users"].to_string());
    }

    #[test]
    fn its_name_lasts_and_is_its_own() {
        let id = |config: &GuestConfig| meta_data(config)["instance-id"].to_string();
        let later = GuestConfig { hosts: vec![], ..config() };
        assert_eq!(id(&config()), id(&later));
        let other = GuestConfig { hostname: "bob".into(), ..config() };
        let host_key = HostKey { private: [3; 32], public: [4; 32], openssh: String::new() };
        let of_another_run = GuestConfig { host_key, ..config() };
        assert!(id(&config()) != id(&other) && id(&config()) != id(&of_another_run));
    }

    #[test]
    fn what_is_told_is_as_long_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("seed.img");
        let host = |number: u32| (format!("10.77.0.{number}"), format!("node{number}.{}", "x".repeat(200)));
        write_nocloud(&disk, &GuestConfig { hosts: (0..5000).map(host).collect(), ..config() }).unwrap();
        assert!(files(&disk).iter().any(|(name, content)| name == "user-data" && content.contains("node4999.x")));
    }
}
