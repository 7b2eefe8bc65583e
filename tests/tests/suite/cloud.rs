//! Cloud images as machines.

use vmtest::prelude::*;
use vmtest_tests::{StandIn, Victim};

/// The variable that names the image of a victim.
const IMAGE: &str = "CLOUD_IMAGE";

/// Tests that cannot run.
mod victims {
    use super::*;

    #[vm_test(image = "cloud:tests/data/tree/hello.txt", backend = "fake")]
    #[ignore = "run by a_fake_machine_runs_no_cloud_image"]
    async fn of_fakes(_node: Node) {}

    #[vm_test(image = "cloud:https://127.0.0.1/disk.qcow2", backend = "fake")]
    #[ignore = "run by what_cannot_be_fetched_is_said"]
    async fn without_a_digest(_node: Node) {}

    #[vm_test(
        image = "cloud:http://192.0.2.1/disk.qcow2#sha256=0000000000000000000000000000000000000000000000000000000000000000",
        backend = "qemu"
    )]
    #[ignore = "run by a_disk_cannot_be_fetched_without_a_network"]
    async fn from_elsewhere(_node: Node) {}

    #[test]
    #[ignore = "run by a_debian_with_cloud_init_becomes_machines"]
    fn of_the_network() -> Result {
        real::becomes_machines(&std::env::var(IMAGE)?)
    }

    #[vm_test(image = "cloud:debian-12", backend = "fake")]
    #[ignore = "run by a_name_is_no_path"]
    async fn by_name(_node: Node) {}

    #[vm_test(image = "cloud:debain-12", backend = "fake")]
    #[ignore = "run by a_name_is_no_path"]
    async fn by_a_wrong_name(_node: Node) {}
}

#[test]
fn a_fake_machine_runs_no_cloud_image() {
    let said = ["hello.txt` has a kernel of its own, which a machine of `fake` does not have"];
    Victim::new("of_fakes").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn what_cannot_be_fetched_is_said() {
    let said = ["write `cloud:https://127.0.0.1/disk.qcow2#sha256=` and its 64 hexadecimal digits"];
    Victim::new("without_a_digest").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_name_is_no_path() {
    let said = ["the image `cloud:debian-12` has a kernel of its own, which a machine of `fake` does not have"];
    Victim::new("by_name").run().assert_failed_with(&said).assert_nothing_left();
    let said = ["/debain-12: No such file", "; the names of the catalog are alpine-3.21, "];
    Victim::new("by_a_wrong_name").run().assert_failed_with(&said).assert_nothing_left();
    let dir = tempfile::tempdir().expect("a directory");
    let own = dir.path().join("own.json");
    let text = r#"{"version": 1, "images": [{"name": "debain-12", "architecture": "x86_64"}]}"#;
    std::fs::write(&own, text).expect("it can be written");
    let said =
        ["`cloud:debain-12` cannot be made: the catalog does not know its address", "image bump debain-12 --catalog "];
    Victim::new("by_a_wrong_name").env("VMTEST_CATALOG", &own).run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_disk_cannot_be_fetched_without_a_network() {
    let cache = tempfile::tempdir().expect("a directory");
    for dir in ["images", "downloads"] {
        std::fs::create_dir(cache.path().join(dir)).expect("it is new");
    }
    let said = [
        "cannot fetch http://192.0.2.1/disk.qcow2, after 5 tries: ",
        "Network is unreachable",
        "; a file that came by another way is `cloud:` and its path",
    ];
    let nowhere = StandIn::new();
    let victim = nowhere.victim("from_elsewhere").with_cache(cache.path());
    victim.run().assert_failed_with(&said).assert_nothing_left();
}

mod real {
    use std::{
        ffi::OsStr,
        fs::{self, File},
        io::{Read, Seek, Write},
        os::unix::fs::FileExt,
        path::{Path, PathBuf},
        process::Command,
    };

    use gpt::{GptConfig, mbr::ProtectiveMBR, partition_types};
    use vmtest_images::Digest;
    use vmtest_tests::{Web, image_cache};

    use super::*;

    const SECTOR: u64 = 512;
    /// Where the boot loaders and the root file system begin: of a BIOS behind its boot sector, and of UEFI.
    const BIOS: u64 = 1 << 20;
    const ESP: u64 = 2 << 20;
    const ROOT: u64 = 18 << 20;
    /// A Debian with cloud-init and the files of its boot loaders has 850 MB.
    const SIZE: u64 = 1400 << 20;
    const DISK: u64 = ROOT + SIZE + (2 << 20);
    /// Where a boot sector of GRUB says where its core begins, and the first sector of that where the rest of it is (`kernel_sector`
    /// in boot.S, and the last block list in diskboot.S).
    const KERNEL_SECTOR: u64 = 0x5c;
    const REST: u64 = 0x1f4;
    /// A boot sector has code up to here; behind it is the table of partitions.
    const BOOT_CODE: usize = 440;
    /// Makes the file system of a Debian as its cloud images are, on a part of the disk at `$1` that begins at `$2` and has `$3`
    /// KiB, from where this machine has its own packages; and in the directory `$4` its boot loaders.
    const BUILD: &str = r#"
set -eu
export LOADERS="$4"
export SUITE=$(. /etc/os-release && echo "$VERSION_CODENAME")
apt-get indextargets --format '$(ORIGIN)|deb $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    sed -n 's/^Debian|//p' | grep " $SUITE" | sort -u >"$1.list"
exec mmdebstrap --variant=minbase --format=null \
    --include=linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,netplan.io,iproute2,iputils-ping \
    --include=openssh-server,cloud-init,cloud-guest-utils,sudo,grub-common,grub-pc-bin,grub-efi-amd64-bin \
    --customize-hook='chroot "$1" systemctl -q enable systemd-networkd' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf; : >"$1"/etc/machine-id' \
    --customize-hook='echo "locale: false" >"$1"/etc/cloud/cloud.cfg.d/99-no-locales.cfg' \
    --customize-hook='printf "%s\n" "search --set=root --label cloudroot" \
        "linux /vmlinuz root=LABEL=cloudroot rw console=ttyS0 net.ifnames=0" "initrd /initrd.img" boot >"$1"/boot/start' \
    --customize-hook='chroot "$1" grub-mkimage -O i386-pc -c /boot/start -o /boot/core.img -p /boot/grub \
        biosdisk part_gpt ext2 search search_label linux' \
    --customize-hook='chroot "$1" grub-mkimage -O x86_64-efi -c /boot/start -o /boot/bootx64.efi -p /boot/grub \
        part_gpt fat ext2 search search_label linux' \
    --customize-hook='cp "$1"/boot/core.img "$1"/boot/bootx64.efi "$1"/usr/lib/grub/i386-pc/boot.img "$LOADERS"' \
    --customize-hook="unshare --mount sh -c 'mount --bind \"\$1\" /mnt && mkfs.ext4 -q -F -L cloudroot -E offset=$2 -d /mnt $1 ${3}k' sh \"\$1\"" \
    "$SUITE" - "$1.list"
"#;

    /// A real cloud image, made once.
    fn image() -> Result<PathBuf> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (part, disk) = (dir.join("cloud-debian.part"), dir.join("cloud-debian.raw"));
        if disk.exists() {
            return Ok(disk);
        }
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&part)?;
        file.set_len(DISK)?;
        ProtectiveMBR::with_lb_size(u32::try_from(DISK / SECTOR - 1)?).overwrite_lba0(&mut &file)?;
        let mut table = GptConfig::new().writable(true).create_from_device(file, None)?;
        for (number, name, begin, end, kind) in [
            (1, "bios", BIOS, ESP, partition_types::BIOS),
            (2, "esp", ESP, ROOT, partition_types::EFI),
            (3, "root", ROOT, ROOT + SIZE, partition_types::LINUX_FS),
        ] {
            table.add_partition_at(name, number, begin / SECTOR, (end - begin) / SECTOR, kind, 0)?;
        }
        drop(table.write()?);
        let numbers = [ROOT, SIZE >> 10].map(|number| number.to_string());
        let loaders = tempfile::tempdir()?;
        let mut build = Command::new("sh");
        build.args([OsStr::new("-c"), BUILD.as_ref(), "sh".as_ref(), part.as_os_str()]);
        build.args(numbers).arg(loaders.path());
        assert!(build.status()?.success(), "the image could not be made");
        install(&File::options().read(true).write(true).open(&part)?, loaders.path())?;
        fs::rename(part, &disk)?;
        Ok(disk)
    }

    /// Puts the boot loaders in this directory where BIOS and UEFI look for them.
    fn install(disk: &File, loaders: &Path) -> Result {
        let read = |name: &str| fs::read(loaders.join(name));
        let (boot, mut core) = (read("boot.img")?, read("core.img")?);
        let sector = |place: u64, sectors: u64| (place / SECTOR + sectors).to_le_bytes();
        let rest = usize::try_from(REST)?;
        core[rest..rest + 8].copy_from_slice(&sector(BIOS, 1));
        disk.write_all_at(&boot[..BOOT_CODE], 0)?;
        disk.write_all_at(&sector(BIOS, 0), KERNEL_SECTOR)?;
        disk.write_all_at(&core, BIOS)?;

        let mut esp = tempfile::tempfile()?;
        esp.set_len(ROOT - ESP)?;
        fatfs::format_volume(&mut esp, fatfs::FormatVolumeOptions::new())?;
        let fat = fatfs::FileSystem::new(esp.try_clone()?, fatfs::FsOptions::new())?;
        let dir = fat.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
        dir.create_file("BOOTX64.EFI")?.write_all(&read("bootx64.efi")?)?;
        drop(dir);
        fat.unmount()?;
        let mut content = Vec::new();
        esp.rewind()?;
        esp.read_to_end(&mut content)?;
        disk.write_all_at(&content, ESP)?;
        Ok(())
    }

    /// The same as a compressed qcow2, as distributions publish theirs; itself where this machine cannot make one.
    fn published(dir: &Path) -> Result<PathBuf> {
        let disk = image()?;
        if Command::new("qemu-img").arg("--version").output().is_err() {
            return Ok(disk);
        }
        let qcow2 = dir.join("debian.qcow2");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-c", "-O", "qcow2"]).args([&disk, &qcow2]);
        assert!(convert.status()?.success(), "the image could not be converted");
        Ok(qcow2)
    }

    /// It comes from a publisher who is interrupted once, into a cache of its own.
    #[test]
    #[ignore = "takes minutes: makes an image, and boots it with its own initramfs and cloud-init"]
    fn a_debian_with_cloud_init_becomes_machines() -> Result {
        let dir = tempfile::tempdir()?;
        let disk = published(dir.path())?;
        let (parent, name) = (disk.parent().unwrap_or(Path::new("/")), disk.file_name().unwrap_or_default());
        let interrupted = fs::metadata(&disk)?.len() / 3;
        let publisher = Web::interrupted(parent, interrupted);
        let url = publisher.url(&name.to_string_lossy());
        let image = format!("cloud:{url}#sha256={}", Digest::of_file(&disk)?);
        let cache = image_cache(|_| {});
        let victim = Victim::new("of_the_network").env(IMAGE, image).env("VMTEST_CACHE", cache.path());
        victim.run().assert_passed().assert_nothing_left();
        assert_eq!(publisher.asked(), [0, interrupted], "it goes on where it was");
        Ok(())
    }

    /// Two machines of this image are what they are told, and write what is their own.
    pub(super) fn becomes_machines(name: &str) -> Result {
        let node = |name: &str, image: &str| NodeSpec::new(name).image(image).memory(512 << 20);
        let fixture = Fixture::from_files([("greeting", "from a fixture")]);
        let alice = node("alice", name).disk(4 << 30).fixture(fixture, "/srv/it");
        let cluster =
            Cluster::builder().backend("qemu").timeout(Duration::from_secs(600)).node(alice).node(node("bob", name));
        cluster.run(async |cluster| -> Result {
            let (alice, bob) = (cluster.node("alice")?, cluster.node("bob")?);
            assert_eq!(alice.sh("hostname; cat /srv/it/greeting").await?.stdout(), "alice\nfrom a fixture");
            assert_eq!(bob.sh("cloud-id; cat /proc/1/comm").await?.stdout(), "nocloud\nsystemd");
            alice.sh("ping -c 1 -W 5 bob").await?;
            bob.sh("ping -6 -c 1 -W 5 fd77::11").await?;
            let grown: u64 = alice.sh("df --output=size -k / | tail -n 1").await?.stdout().trim().parse()?;
            assert!(grown > 3 << 20, "its root file system has {grown} KiB of 4 GiB");

            alice.sh("echo kept >/root/synced; sync").await?;
            alice.kill().await?;
            alice.start().await?;
            let said = alice.sh("hostname; cat /root/synced /srv/it/greeting").await?.stdout();
            assert_eq!(said, "alice\nkept\nfrom a fixture");
            assert_eq!(bob.sh("ls /root/synced").unchecked().await?.code(), Some(2), "each has its own disk");
            bob.shutdown().await?;
            Ok(())
        })
    }

    /// A machine that is started by the boot loader of its disk, entered by an account that its cloud-init makes, and waited for
    /// until that is done.
    fn starts_by(firmware: &'static str) -> Result {
        let node = NodeSpec::new("node").image(Image::disk(image()?)).firmware(firmware).memory(512 << 20);
        let node = node.login("admin").ready("cloud-init status --wait");
        Cluster::builder().backend("qemu").timeout(Duration::from_secs(600)).node(node).run(
            async move |cluster| -> Result {
                let node = cluster.node("node")?;
                assert_eq!(node.sh("id -un; cloud-id; hostname").await?.stdout(), "root\nnocloud\nnode");
                let uefi = node.sh("test -d /sys/firmware/efi").unchecked().await?.success();
                assert_eq!(uefi, firmware != "bios");
                assert!(
                    node.sh("cat /proc/cmdline")
                        .await?
                        .stdout()
                        .starts_with("BOOT_IMAGE=/vmlinuz root=LABEL=cloudroot")
                );
                // What is written goes by the same way.
                node.write("/etc/of-root", vec![0, 1, 2, 255]).await?;
                assert_eq!(node.read("/etc/of-root").await?, [0, 1, 2, 255]);
                assert_eq!(
                    node.sh("stat -c %U /etc/of-root; getent passwd admin | cut -d: -f1").await?.stdout(),
                    "root\nadmin"
                );
                let failed = node.sh("exit 7").unchecked().await?;
                assert_eq!(failed.code(), Some(7));
                node.reboot().await?;
                assert_eq!(node.sh("cat /proc/1/comm").await?.stdout(), "systemd");
                node.shutdown().await?;
                Ok(())
            },
        )
    }

    #[test]
    #[ignore = "takes minutes: makes an image, and boots it by its boot loader"]
    fn a_bios_starts_the_boot_loader_of_a_disk() -> Result {
        starts_by("bios")
    }

    #[test]
    #[ignore = "takes minutes: makes an image, and boots it by its boot loader"]
    fn uefi_starts_the_boot_loader_of_a_disk() -> Result {
        starts_by("uefi")
    }
}
