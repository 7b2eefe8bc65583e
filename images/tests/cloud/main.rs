//! Cloud images from disks that are made here, by path and from a server on loopback.

mod disks;
mod qcow2;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the tests of downloads use the rest of it")]
mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use disks::{ext4, with_gpt, with_mbr};
use imago::{FormatAccess, FormatDriverBuilder, qcow2::Qcow2};
use support::{Answer, Server};
use vmtest_images::{Algorithm, Cache, Digest, Image, ImageSpec, ensure};

const MIB: usize = 1 << 20;
/// Of the root file system.
const UUID: &str = "12345678-9abc-def0-1234-56789abcdef0";

/// A kernel as far as anybody looks at it here.
fn kernel(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x300];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    bytes.extend(format!("{release} (builder@host)\0").as_bytes());
    bytes
}

/// The root file system of a Debian with two kernels.
fn debian() -> Vec<u8> {
    ext4(&[
        ("etc/os-release", b"ID=debian\n"),
        ("boot/vmlinuz-6.1.0-9-cloud", &kernel("6.1.0-9-cloud")),
        ("boot/initrd.img-6.1.0-9-cloud", b"of the older"),
        ("boot/vmlinuz-6.1.0-10-cloud", &kernel("6.1.0-10-cloud")),
        ("boot/initrd.img-6.1.0-10-cloud", b"of the newer"),
        ("boot/vmlinuz-6.1.0-11-cloud", &kernel("6.1.0-11-cloud")),
    ])
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cache(&self) -> Cache {
        Cache::open(self.path("cache")).expect("a cache")
    }

    fn image(&self, name: &str) -> Result<Image, String> {
        ensure(&self.cache(), &ImageSpec::from(name), &()).map_err(|e| e.to_string())
    }

    /// That of a disk by path.
    fn image_of(&self, disk: &[u8]) -> Result<Image, String> {
        let path = self.path("disk.raw");
        fs::write(&path, disk).expect("it can be written");
        self.image(&format!("cloud:{}", path.display()))
    }

    /// What is in a directory of the cache, but for locks.
    fn left(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache").join(dir)) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock") && name != "used").collect()
    }

    /// Why it is refused; nothing of it is left.
    fn refused(&self, disk: &[u8]) -> String {
        let error = self.image_of(disk).expect_err("it is refused");
        assert_eq!(self.left("images"), [""; 0], "after {error}");
        error.split_once(" cannot be made: ").unwrap_or_else(|| panic!("{error}")).1.to_owned()
    }
}

/// Why vmtest does not start it itself.
fn no_kernel(disk: &[u8]) -> String {
    let image = Place::new().image_of(disk).expect("it is an image for firmware");
    assert!(!image.kernel.exists() && image.kernel_version.is_empty());
    image.cloud.expect("it has a disk").no_kernel.expect("it says why")
}

fn disk_of(image: &Image) -> Vec<u8> {
    fs::read(&image.cloud.as_ref().expect("it has a disk").disk).expect("it is there")
}

#[test]
fn the_newest_kernel_with_an_initramfs_starts_the_disk() {
    let place = Place::new();
    let disk = with_gpt(&[&debian()]);
    let image = place.image_of(&disk).expect("it can be made");
    assert_eq!(image.kernel_version, "6.1.0-10-cloud");
    assert_eq!(fs::read(&image.kernel).expect("it is there"), kernel("6.1.0-10-cloud"));
    assert_eq!(fs::read(&image.initramfs).expect("it is there"), b"of the newer");
    assert_eq!(image.nested, image.initramfs);
    assert_eq!(image.memory, ImageSpec::from("cloud:x").usual_memory());
    let cloud = image.cloud.as_ref().expect("it has a disk");
    assert_eq!(image.arguments, format!("root=UUID={UUID} rw"));
    assert_eq!((cloud.bytes, disk_of(&image) == disk), (disk.len() as u64, true));
    assert_eq!(fs::metadata(&cloud.disk).expect("it is there").mode() & 0o777, 0o444);
    assert_eq!(place.image_of(&disk).expect("it was written again").kernel_version, "6.1.0-10-cloud");
}

#[test]
fn partitions_are_found_where_distributions_have_them() {
    let debian = debian();
    let boot = ext4(&[("vmlinuz-6.8.0", &kernel("6.8.0")), ("initrd.img-6.8.0", b"of ubuntu")]);
    let root = ext4(&[("usr/lib/os-release", b"ID=ubuntu\n")]);
    let line = "title Fedora\noptions root=UUID=f00d ro rootflags=subvol=root console=ttyS0\n";
    let fedora = ext4(&[
        ("vmlinuz-6.11.4", &kernel("6.11.4")),
        ("initramfs-6.11.4.img", b"of fedora"),
        ("vmlinuz-0-rescue-9", &kernel("6.0.0")),
        ("initramfs-0-rescue-9.img", b"of the rescue"),
        ("loader/entries/machine-6.11.4.conf", line.as_bytes()),
    ]);
    let root_line = format!("root=UUID={UUID} rw");
    let alpine = ext4(&[
        ("etc/os-release", b"ID=alpine\n"),
        ("boot/vmlinuz-virt", &kernel("6.12.1-0-virt")),
        ("boot/initramfs-virt", b"of alpine"),
    ]);
    for (disk, release, arguments) in [
        (with_mbr(&debian), "6.1.0-10-cloud", root_line.as_str()),
        (debian.clone(), "6.1.0-10-cloud", &root_line),
        (with_gpt(&[&[1; MIB], &root, &boot]), "6.8.0", &root_line),
        (with_gpt(&[&fedora, &[2; MIB]]), "6.11.4", "root=UUID=f00d rootflags=subvol=root rw"),
        (alpine, "6.12.1-0-virt", &root_line),
    ] {
        let image = Place::new().image_of(&disk).expect("it can be made");
        assert_eq!(image.kernel_version, release);
        assert_eq!(image.arguments, arguments);
    }
}

#[test]
fn disks_that_start_nothing_say_why() {
    assert_eq!(no_kernel(&[0; MIB]), "it has neither a partition table nor an ext4");
    assert_eq!(no_kernel(&[0; 100]), "it has neither a partition table nor an ext4");
    let empty = with_gpt(&[&[1; MIB], &[2; MIB]]);
    assert_eq!(no_kernel(&empty), "none of its 2 partitions is an ext4, where its kernel would be");
    let root: (&str, &[u8]) = ("etc/os-release", b"");
    let said = no_kernel(&with_gpt(&[&ext4(&[root])]));
    assert!(said.starts_with("there is no `vmlinuz-*` with its initramfs (initrd.img-*, "), "{said}");
    let said = no_kernel(&ext4(&[("vmlinuz-6", &kernel("6")), ("initrd.img-6", b"")]));
    assert!(said.starts_with("none of its ext4 is a root file system"), "{said}");
    let said = Place::new().refused(&ext4(&[root, ("boot/vmlinuz-6", b"text"), ("boot/initrd.img-6", b"")]));
    assert!(said.starts_with("its kernel: it is neither a bzImage nor"), "{said}");
    let mut broken = empty;
    // The header of the table and its copy.
    let copy = broken.len() - 512;
    for header in [512, copy] {
        broken[header..header + 8].fill(0);
    }
    assert!(no_kernel(&broken).starts_with("its partition table cannot be read: "));
}

#[test]
fn names_that_lead_nowhere_say_what_to_write() {
    let place = Place::new();
    let said = |name: &str| place.image(name).expect_err("it is refused");
    assert!(said("cloud:/nowhere.qcow2").starts_with("`cloud:/nowhere.qcow2` cannot be made: /nowhere.qcow2: No such"));
    let error = said("cloud:http://127.0.0.1/disk.qcow2");
    assert!(
        error.contains("write `cloud:http://127.0.0.1/disk.qcow2#sha256=` and its 64 hexadecimal digits"),
        "{error}"
    );
    assert!(said("cloud:https://host/disk#sha256=abc").starts_with("`abc` is no SHA-256"));
    let short = format!("cloud:https://host/disk#sha512={}", "0".repeat(64));
    assert!(said(&short).contains("is no SHA-512: give its 128 hexadecimal digits"), "{}", said(&short));
    let more = ImageSpec { packages: ["curl".to_owned()].into(), ..ImageSpec::from("cloud:/x") };
    let error = ensure(&place.cache(), &more, &()).expect_err("it is refused").to_string();
    assert!(error.contains("nothing is added to a cloud image"), "{error}");
    let at = |name: &str| ImageSpec::from(name).seen_from(Path::new("/src")).name;
    assert_eq!(at("cloud:disks/a.raw"), "cloud:/src/disks/a.raw");
    assert_eq!(at("cloud:a.raw"), "cloud:/src/a.raw");
    assert_eq!(at("cloud:debian-12"), "cloud:debian-12");
    assert_eq!(at("cloud:./debian-12"), "cloud:/src/./debian-12");
    assert_eq!(at("cloud:https://host/a#sha256=1"), "cloud:https://host/a#sha256=1");
}

#[test]
fn a_disk_of_the_network_is_what_its_digest_says_or_nothing() {
    let place = Place::new();
    let disk = with_gpt(&[&debian()]);
    fs::write(place.path("served"), &disk).expect("it can be written");
    let digest = Digest::of_file(&place.path("served")).expect("it is there").to_string();
    let named = |server: &Server, digest: &str| format!("cloud:{}#sha256={digest}", server.url());

    let server = Server::start(disk.clone(), &[Answer::Whole]);
    let error = place.image(&named(&server, &"0".repeat(64))).expect_err("it is something else");
    assert!(error.contains(&format!("its SHA-256 is {digest}, and {}", "0".repeat(64))), "{error}");
    assert_eq!((place.left("images"), place.left("downloads")), (vec![], vec![]));

    let server = Server::start(disk.clone(), &[Answer::Truncated(MIB), Answer::Whole]);
    let image = place.image(&named(&server, &digest)).expect("it goes on where it was");
    assert!(disk_of(&image) == disk);
    assert_eq!(image.digest, Some(format!("sha256:{digest}")));
    assert_eq!(server.asked(), [None, Some(MIB)]);
    assert_eq!(place.left("downloads"), [""; 0], "it is in the cache once");
    // From another place it is the same.
    let gone = Server::start(disk, &[Answer::Gone]);
    assert_eq!(place.image(&named(&gone, &digest)).expect("it is there").kernel, image.kernel);
    assert_eq!(gone.asked(), []);
}

/// Run by [`with_catalog`], in a process of its own.
#[test]
#[ignore = "makes what its environment says"]
fn victim() {
    let var = |name| std::env::var(name).expect("whoever runs it says so");
    let made = ensure(&Cache::open(var("CACHE")).expect("a cache"), &ImageSpec::from(var("IMAGE").as_str()), &());
    let made = made.map_err(|e| e.to_string());
    println!("made: {}", serde_json::to_string(&made).expect("it is plain data"));
}

/// The image, made by a process that has this catalog, in the directory of the place.
fn with_catalog(place: &Place, catalog: &Path, name: &str) -> Result<Image, String> {
    let binary = std::env::current_exe().expect("a running test knows its binary");
    let mut command = Command::new(binary);
    command.args(["victim", "--exact", "--ignored", "--nocapture"]).current_dir(place.dir.path());
    command.env("VMTEST_CATALOG", catalog).env("IMAGE", name).env("CACHE", place.path("cache"));
    let ended = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    let made = said.lines().find_map(|line| line.split_once("made: ")).unwrap_or_else(|| panic!("{said}")).1;
    serde_json::from_str(made).expect("it is what was printed")
}

/// A catalog with one image of each kind of knowledge.
fn catalog(place: &Place, url: &str, digest: &str) -> PathBuf {
    let entry = |name: &str, more: &str| {
        format!("{{\"name\": \"{name}\", \"architecture\": \"{}\"{more}}}", std::env::consts::ARCH)
    };
    let known = |digest: &str| format!(", \"url\": \"{url}\", \"digest\": \"{digest}\"");
    let wrong = format!("sha512:{}", "0".repeat(128));
    let entered = format!("{}, \"login\": \"admin\", \"ready\": \"cloud-init status --wait\"", known(digest));
    let images = [
        entry("debian-12", &known(digest)),
        entry("entered", &entered),
        entry("new", ""),
        entry("wrong", &known(&wrong)),
    ];
    let path = place.path("own.json");
    fs::write(&path, format!("{{\"version\": 1, \"images\": [{}]}}", images.join(","))).expect("it can be written");
    path
}

#[test]
fn a_name_of_a_catalog_stands_for_what_its_digest_says() {
    let place = Place::new();
    let disk = with_gpt(&[&debian()]);
    fs::write(place.path("served"), &disk).expect("it can be written");
    let digest = Digest::of_file_by(Algorithm::Sha512, &place.path("served")).expect("it is there");
    let server = Server::start(disk.clone(), &[Answer::Whole]);
    let catalog = catalog(&place, &server.url(), &digest.tagged());
    // The beginning of a qcow2, and nothing else of it.
    fs::write(place.path("debian-12"), b"QFI\xfb").expect("it can be written");
    let made = |name: &str| with_catalog(&place, &catalog, name);

    let image = made("cloud:debian-12").expect("it comes before ours and before the file");
    assert_eq!((image.name.as_str(), disk_of(&image) == disk), ("cloud:debian-12", true));
    assert!(made("cloud:./debian-12").expect_err("it is the file").contains("it is a qcow2 that is cut off"));
    let address = format!("cloud:{}#sha512={digest}", server.url());
    let same = place.image(&address).expect("it is there");
    assert_eq!((same.name.as_str(), same.id()), (address.as_str(), image.id()));
    assert_eq!(server.asked(), [None], "it comes once, whatever it is called");
    let kept = place.cache().kept().expect("it can be read");
    assert_eq!(kept.iter().map(|kept| kept.names.clone()).collect::<Vec<_>>(), [[image.name, address.clone()]]);

    assert_eq!((&same.login, &same.ready), (&None, &None));
    let entered = made("cloud:entered").expect("it is the same disk");
    let said = (entered.login.as_deref(), entered.ready.as_deref());
    assert_eq!(said, (Some("admin"), Some("cloud-init status --wait")));
    assert_ne!(entered.id(), same.id(), "who asks for the disk alone comes in as root");
    assert!(place.image(&address).expect("it is there").login.is_none());

    let error = made("cloud:wrong").expect_err("it is something else");
    assert!(error.contains(&format!("its SHA-512 is {digest}, and 000000")), "{error}");
    let error = made("cloud:new").expect_err("nobody knows it");
    let bump = format!("`cargo vmtest image bump new --catalog {}` finds the newest one", catalog.display());
    assert!(error.contains("does not know its address with its digest") && error.ends_with(&bump), "{error}");
    let error = made("cloud:debain-12").expect_err("there is none");
    assert!(error.contains("debain-12: No such file"), "{error}");
    assert!(error.ends_with("ubuntu-24.04, ubuntu-26.04, wrong"), "{error}");
    fs::write(&catalog, "{\n[").expect("it can be written");
    let error = made("cloud:debain-12").expect_err("the catalog cannot be read");
    assert!(error.starts_with(&format!("the catalog {}:2 cannot be read: ", catalog.display())), "{error}");
}

#[test]
fn what_a_publisher_has_removed_is_bumped() {
    let place = Place::new();
    let server = Server::start(vec![], &[Answer::Status(404)]);
    let catalog = catalog(&place, &server.url(), &format!("sha256:{}", "0".repeat(64)));
    let error = with_catalog(&place, &catalog, "cloud:debian-12").expect_err("it is gone");
    assert!(
        error.contains("the server answers 404") && error.contains("`cargo vmtest image bump debian-12 "),
        "{error}"
    );
}

#[test]
fn machines_write_into_layers_of_their_own() {
    let place = Place::new();
    let disk = with_gpt(&[&debian()]);
    let (base, layer, copy) = (place.path("base"), place.path("layer"), place.path("copy"));
    fs::write(&base, &disk).expect("it can be written");
    vmtest_images::layer_over(&base, &layer, 1 << 30).expect("it can be made");
    let took = fs::metadata(&layer).expect("it is there").blocks() * 512;
    assert!(took < MIB as u64, "{took}");
    let open = Qcow2::<imago::file::File>::builder_path(&layer).write(false);
    let read = FormatAccess::new(open.open(imago::PermissiveImplicitOpenGate::default()).expect("it is a qcow2"));
    let mut bytes = vec![0; disk.len()];
    read.read(&mut bytes[..], 0).expect("it can be read");
    assert_eq!((read.size(), bytes == disk), (1 << 30, true));

    vmtest_images::copy_of(&base, &copy, 1 << 30).expect("it can be made");
    File::options().write(true).open(&copy).expect("it is there").write_all_at(b"own", 0).expect("it can be written");
    assert_eq!(fs::metadata(&copy).expect("it is there").len(), 1 << 30);
    assert!(fs::read(&base).expect("it is there") == disk);
}
