//! Kernels by path.

use std::{fs, path::PathBuf};

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
}

/// Where the kernel is that the image has.
fn images_own() -> Result<PathBuf> {
    let (tell, told) = std::sync::mpsc::channel();
    let cluster = Cluster::builder().backend("fake").node(NodeSpec::new("node"));
    cluster.run(async move |cluster| drop(tell.send(cluster.plan().nodes[0].kernel.clone())))?;
    Ok(told.recv()?.into())
}

#[test]
fn a_kernel_is_booted_in_place_of_the_images_own() -> Result {
    let dir = tempfile::tempdir()?;
    fs::copy(images_own()?, dir.path().join("bzImage"))?;
    let cluster = Cluster::builder().backend("qemu").base(dir.path()).node(NodeSpec::new("node").kernel("bzImage"));
    let kernel = dir.path().join("bzImage").display().to_string();
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
    fs::write(dir.path().join("dead"), dead(fs::read(images_own()?)?))?;
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
        "kernel `Cargo.toml`: it is no bzImage: give what a kernel's `make bzImage` makes, or a distribution's `vmlinuz`",
        "kernel `no/such/bzImage`: there is no ",
    ];
    Victim::new("no_kernel").run().assert_failed_with(&said).assert_nothing_left();
}
