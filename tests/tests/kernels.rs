//! Kernels by path.

use std::{fs, path::PathBuf};

use vmtest::prelude::*;
use vmtest_tests::Victim;

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

#[test]
fn what_cannot_be_is_refused_before_anything_boots() {
    let said = [
        "kernel `Cargo.toml`: it is no bzImage: give what a kernel's `make bzImage` makes, or a distribution's `vmlinuz`",
        "kernel `no/such/bzImage`: there is no ",
    ];
    Victim::new("no_kernel").run().assert_failed_with(&said).assert_nothing_left();
}
