//! Images that are not ours: files by their paths, and what a type of the test's own makes; and how a machine says that it is
//! ready.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use vmtest::{
    GuestImage, ImageFiles,
    evidence::{Event, Rung},
    prelude::*,
};
use vmtest_images::{Cache, ImageSpec, OwnFiles, OwnImage, ensure};
use vmtest_tests::Victim;

/// Kernel and initramfs of the image that vmtest builds itself, as somebody's own build would leave them.
fn built() -> Result<(PathBuf, PathBuf)> {
    let cache = vmtest_tests::cache();
    let image = ensure(&cache, &"micro".into(), &())?;
    Ok((image.kernel, image.initramfs))
}

/// The image of a project that builds its own kernel and initramfs.
#[derive(Debug)]
struct Appliance {
    version: u32,
}

impl GuestImage for Appliance {
    fn name(&self) -> String {
        "appliance".into()
    }

    fn key(&self, _: &Path) -> Result<String> {
        let process = std::process::id();
        Ok(format!("{} of {process}", self.version))
    }

    fn build(&self, _: &Path, dir: &Path, progress: &dyn Fn(u64, &str)) -> Result<ImageFiles> {
        progress(50, "building the appliance");
        let (kernel, initramfs) = built()?;
        let own = dir.join("initramfs");
        fs::copy(initramfs, &own)?;
        let arguments = format!("appliance.version={}", self.version);
        Ok(ImageFiles::in_memory(kernel, own).arguments(arguments).memory(192 << 20).ready("test -e /etc/hostname"))
    }
}

fn second() -> Appliance {
    Appliance { version: 2 }
}

/// Tests that cannot run.
mod victims {
    use super::*;

    #[derive(Debug)]
    struct Broken;

    impl GuestImage for Broken {
        fn name(&self) -> String {
            "broken".into()
        }

        fn key(&self, _: &Path) -> Result<String> {
            Ok("1".into())
        }

        fn build(&self, _: &Path, _: &Path, _: &dyn Fn(u64, &str)) -> Result<ImageFiles> {
            Err(Failure::msg("make: *** no rule to make target `bzImage`"))
        }
    }

    fn broken() -> Broken {
        Broken
    }

    #[vm_test(image = broken, backend = "qemu")]
    #[ignore = "run by what_cannot_be_made_says_what_its_maker_says"]
    async fn of_a_broken_build(_node: Node) {}

    #[vm_test(image = broken, backend = "fake")]
    #[ignore = "run by a_fake_machine_has_no_kernel_of_its_own"]
    async fn of_fakes(_node: Node) {}

    fn gone() -> Image {
        Image::direct("no/bzImage", "no/initramfs", "no/root.ext4")
    }

    #[vm_test(image = gone, backend = "qemu")]
    #[ignore = "run by what_cannot_be_made_says_what_its_maker_says"]
    async fn of_files_that_are_gone(_node: Node) {}

    #[vm_test(backend = "fake", firmware = "no/OVMF.fd")]
    #[ignore = "run by firmware_that_is_not_there_is_named"]
    async fn without_firmware(_node: Node) {}
}

#[test]
fn what_cannot_be_made_says_what_its_maker_says() {
    let said = ["image `own:broken`: `own:broken` cannot be made: make: *** no rule to make target `bzImage`"];
    Victim::new("of_a_broken_build").run().assert_failed_with(&said).assert_nothing_left();
    let said = ["image `own:root.ext4`: `own:root.ext4` cannot be made: ", "/no/bzImage: No such file or directory"];
    Victim::new("of_files_that_are_gone").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_fake_machine_has_no_kernel_of_its_own() {
    let said = ["the image `own:broken` has a kernel of its own, which a machine of `fake` does not have"];
    Victim::new("of_fakes").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn firmware_that_is_not_there_is_named() {
    let said =
        ["/no/OVMF.fd: write `bios`, `uefi`, or the path of a firmware's file", "`firmware` starts a cloud image"];
    Victim::new("without_firmware").run().assert_failed_with(&said).assert_nothing_left();
}

/// It counts how often it was asked, and is ready the third time.
const THIRD_TIME: &str = "n=$(cat /tmp/asked 2>/dev/null || echo 0); n=$((n + 1)); echo $n >/tmp/asked; [ $n -ge 3 ]";

#[test]
fn a_machine_is_ready_when_its_own_probe_succeeds() -> Result {
    let (tell, told) = mpsc::channel();
    let cluster = Cluster::builder().backend("fake").observe(move |event| {
        if let Event::Reached { node, rung: Rung::Probe, .. } = event {
            drop(tell.send(node.clone()));
        }
    });
    let cluster = cluster.node(NodeSpec::new("node").ready(THIRD_TIME)).node(NodeSpec::new("other"));
    cluster.run(async |cluster: Cluster| -> Result {
        let node = cluster.node("node")?;
        assert_eq!(node.sh("cat /tmp/asked").await?.stdout(), "3");
        // Each time that it is started, and what it wrote is gone with the first.
        node.reboot().await?;
        assert_eq!(node.sh("cat /tmp/asked").await?.stdout(), "3");
        Ok(())
    })?;
    assert_eq!(told.iter().collect::<Vec<_>>(), ["node", "node"], "the other has no probe");
    Ok(())
}

#[test]
fn a_probe_that_never_succeeds_is_told_with_what_it_said() {
    let node = NodeSpec::new("node").ready("echo the database recovers; false");
    // A machine is up in a part of a second, and in some on a host with much else to do.
    let cluster = Cluster::builder().backend("fake").timeout(Duration::from_secs(10)).node(node);
    let error = cluster.run(async |_| ()).expect_err("it is never ready").to_string();
    assert!(error.contains("node `node` waits for `its own probe`, which says: "), "{error}");
    assert!(error.contains("the database recovers"), "{error}");
}

/// For the calling thread, storage that never says that something is on the disk.
fn refuse_syncs() {
    let refuse = SeccompAction::Errno(libc::EIO.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("seccomp knows this machine");
    let filter = SeccompFilter::new(BTreeMap::from([(libc::SYS_fsync, vec![])]), SeccompAction::Allow, refuse, arch);
    let program = filter.and_then(BpfProgram::try_from).expect("one rule is a filter");
    apply_filter(&program).expect("a thread may take rights from itself");
}

#[test]
fn what_is_not_on_the_disk_is_no_image() {
    let dir = tempfile::tempdir().expect("a directory");
    let (disk, cache) = (dir.path().join("disk"), Cache::open(dir.path().join("cache")).expect("a cache"));
    fs::write(&disk, [7; 4096]).expect("it can be written");
    let files = OwnFiles { disk: Some(disk), ..OwnFiles::default() };
    let spec: ImageSpec = OwnImage::new("appliance", Ok("1".to_owned()), move |_, _| Ok(files.clone())).into();
    let images = dir.path().join("cache/images");
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            refuse_syncs();
            ensure(&cache, &spec, &())
        });
        let error = made.join().expect("it ends").expect_err("it may be gone after a power cut").to_string();
        assert!(error.starts_with(&format!("cannot write {}/own-", images.display())), "{error}");
    });
    let left: Vec<_> = fs::read_dir(&images).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
    ensure(&cache, &spec, &()).expect("it can be made where storage says so");
}

mod qemu {
    use super::*;

    #[vm_test(image = second, backend = "qemu")]
    async fn a_type_of_ones_own_is_an_image(node: Node, other: Node) -> Result {
        assert!(node.sh("cat /proc/cmdline").await?.stdout().contains(" appliance.version=2"));
        node.sh(format!("ping -c 1 {}", other.name())).await?;
        Ok(())
    }

    #[test]
    fn files_by_their_paths_are_an_image() -> Result {
        let dir = tempfile::tempdir()?;
        let (kernel, initramfs) = built()?;
        fs::copy(kernel, dir.path().join("bzImage"))?;
        fs::copy(initramfs, dir.path().join("initramfs"))?;
        let image = Image::files(ImageFiles::in_memory("bzImage", "initramfs"));
        let node = NodeSpec::new("node").image(image).kernel_args("quiet");
        Cluster::builder().backend("qemu").base(dir.path()).node(node).run(async |cluster: Cluster| -> Result {
            let said = cluster.node("node")?.sh("cat /proc/cmdline; hostname").await?.stdout();
            assert!(said.ends_with(" quiet\nnode"), "{said}");
            Ok(())
        })
    }
}
