//! Kernels in place of an image's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vmtest::{harness::backends, plan::Capabilities, prelude::*, spec::Capability};
use vmtest_tests::Victim;

/// Where a bzImage says how many sectors of it are real-mode code, beside the first.
const SETUP_SECTORS: usize = 0x1f1;

/// Tests that say which kernel.
mod victims {
    use super::*;

    #[vm_test(backend = "qemu", kernel = "Cargo.toml")]
    #[ignore = "run by what_cannot_be_is_refused_before_anything_boots"]
    async fn no_kernel(#[node(kernel = "no/such/bzImage")] _a: Node, _b: Node) {}

    #[vm_test(backend = "qemu", kernel = "linux-image-of-nobody")]
    #[ignore = "run by a_kernel_is_no_image_and_a_package_is_named"]
    async fn no_package(_node: Node) {}

    #[vm_test(backend = "qemu", image = "kernel:small")]
    #[ignore = "run by a_kernel_is_no_image_and_a_package_is_named"]
    async fn no_image(_node: Node) {}
}

const IMAGE: &str = "micro";

fn image() -> Result<vmtest_images::Image> {
    Ok(vmtest_images::ensure(&vmtest_tests::cache(), &IMAGE.into(), &())?)
}

/// The image's kernel as its package has it, which is compressed, in this directory.
fn shipped(dir: &Path) -> Result<PathBuf> {
    let kernel = dir.join("bzImage");
    fs::copy(image()?.shipped_kernel(), &kernel)?;
    Ok(kernel)
}

#[test]
fn an_image_has_a_kernel_that_nobody_has_to_unpack() -> Result {
    let dir = tempfile::tempdir()?;
    let (unpacked, shipped) = (fs::read(image()?.kernel)?, fs::read(shipped(dir.path())?)?);
    assert!(unpacked.starts_with(b"\x7fELF") && !shipped.starts_with(b"\x7fELF"));
    assert!(unpacked.len() > 2 * shipped.len());
    Ok(())
}

#[test]
fn a_kernel_is_booted_in_place_of_the_images_own() -> Result {
    let dir = tempfile::tempdir()?;
    let kernel = shipped(dir.path())?.display().to_string();
    let node = NodeSpec::new("node").kernel("bzImage");
    let cluster = Cluster::builder().backend("qemu").base(dir.path()).node(node);
    cluster.run(async move |cluster| -> Result {
        assert_eq!((&cluster.plan().nodes[0].kernel, cluster.plan().nodes[0].foreign_kernel), (&kernel, false));
        cluster.node("node")?.sh("true").await?;
        Ok(())
    })
}

/// This kernel with no instruction in it that a processor knows, behind what is read of it before it is started.
fn dead(mut kernel: Vec<u8>) -> Vec<u8> {
    const INVALID: [u8; 2] = [0x0f, 0x0b];
    let sectors = kernel.get(SETUP_SECTORS).copied().map_or(0, usize::from);
    for (at, byte) in kernel.iter_mut().enumerate().skip((sectors + 1) * 512) {
        *byte = INVALID[at % 2];
    }
    kernel
}

#[test]
fn a_kernel_that_dies_at_its_first_instruction_is_named() -> Result {
    let dir = tempfile::tempdir()?;
    let compressed = shipped(dir.path())?;
    fs::write(dir.path().join("dead"), dead(fs::read(compressed)?))?;
    let with_kernel = |capabilities: &Capabilities| capabilities.has(Capability::OwnKernel);
    let found = backends()?.into_iter().filter(|known| known.found.as_ref().is_ok_and(|(_, can)| with_kernel(can)));
    let mut tried = 0;
    for backend in found {
        let cluster = Cluster::builder().backend(backend.name).base(dir.path()).timeout(Duration::from_secs(30));
        let failed = cluster.node(NodeSpec::new("node").kernel("dead")).run(async |_| ());
        let said = failed.expect_err("it cannot be booted").to_string();
        // Firecracker has to be given what it was compressed from, of which there is nothing.
        assert!(said.contains(&dir.path().join("dead").display().to_string()), "{}: {said}", backend.name);
        assert!(!said.contains("not ready within"), "{}: {said}", backend.name);
        println!("{}: {said}", backend.name);
        tried += 1;
    }
    assert!(tried > 0, "QEMU runs anywhere");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_before_anything_boots() {
    let said = [
        "kernel `Cargo.toml`: it is neither a bzImage nor a kernel as an ELF file: give what a kernel's `make bzImage vmlinux` ",
        "kernel `no/such/bzImage`: there is no ",
    ];
    Victim::new("no_kernel").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_kernel_is_no_image_and_a_package_is_named() {
    let said = ["kernel `linux-image-of-nobody`: there is no package `linux-image-of-nobody` in the lists of apt"];
    Victim::new("no_package").run().assert_failed_with(&said).assert_nothing_left();
    let said = ["node `node`: `kernel:small` is a kernel and no image: name it in `kernel = \"..\"`"];
    Victim::new("no_image").run().assert_failed_with(&said).assert_nothing_left();
}

/// What a kernel was before it was compressed, which every VMM can be given.
#[test]
fn a_kernel_that_is_not_compressed_is_booted_too() -> Result {
    let dir = tempfile::tempdir()?;
    let plain = vmtest_images::vmlinux(&vmtest_tests::cache(), &shipped(dir.path())?)?;
    let cluster = Cluster::builder().backend("qemu").node(NodeSpec::new("node").kernel(&plain));
    cluster.run(async move |cluster| -> Result {
        cluster.node("node")?.sh("true").await?;
        Ok(())
    })
}

mod real {
    use vmtest::prelude::*;

    /// The distribution's other kernel, which has its drivers as modules.
    #[vm_test(backend = "qemu", kernel = "linux-image-amd64")]
    async fn a_package_brings_its_kernel_and_its_modules(#[node(disk = "64MiB")] node: Node, other: Node) -> Result {
        let release = node.sh("uname -r").await?.stdout();
        assert!(release.ends_with("-amd64") && !release.ends_with("-cloud-amd64"), "{release}");
        node.sh(format!("touch /scratch/file && ping -c 1 {}", other.name())).await?;
        // Nobody clears beside the test what it will never use.
        node.sh("grep ' /scratch ext4 rw,.*noinit_itable' /proc/mounts").await?;
        Ok(())
    }

    #[ignore = "takes many minutes the first time: the kernel is compiled"]
    #[vm_test(backend = "qemu", kernel = "small", timeout = "4m")]
    async fn the_small_kernel_has_what_machines_need(
        #[node(disk = "64MiB", fixture("tests/data/tree", at = "/srv/tree"))] node: Node,
        other: Node,
        #[node(image = "debian-12")] debian: Node,
    ) -> Result {
        let release = node.sh("uname -r").await?.stdout();
        assert!(release.ends_with("-vmtest"), "{release}");
        assert_eq!(node.sh("cat /proc/modules 2>/dev/null | wc -l").await?.stdout(), "0");
        node.sh(format!("touch /scratch/file && cat /srv/tree/hello.txt && ping -c 1 {}", other.name())).await?;
        node.sh("for ns in mnt uts ipc pid net user cgroup time; do [ -e /proc/self/ns/$ns ] || exit 1; done").await?;
        node.sh("ip link add br0 type bridge && ip link add v0 type veth").await?;
        assert_eq!(debian.sh("systemctl is-system-running --wait || true").await?.stdout(), "running");
        debian.sh("unshare --net true && sysctl net.netfilter.nf_conntrack_max").await?;
        debian.reboot().await?;
        debian.shutdown().await?;
        Ok(())
    }
}
