//! What a test can get wrong, and what a host can lack: each is said before anything boots, with what to do about it.

use rstest::rstest;
use vmtest::prelude::*;
use vmtest_tests::Victim;

/// Tests that cannot run, or that run where something is missing.
mod victims {
    use vmtest::prelude::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run where something is missing"]
    async fn plain(_node: Node) {}

    #[vm_test(image = "debain", backend = "qemo")]
    #[ignore = "run by everything_that_is_wrong_is_said_at_once"]
    async fn misspelt(#[node(fixture("tests/data/treee", at = "/srv"))] _node: Node) {}

    #[vm_test(backend = "qemu, fake", nodes = 300)]
    #[ignore = "run by too_many_nodes_are_refused"]
    async fn crowd(_cluster: Cluster) {}

    #[vm_test(backend = "qemu, fake", fixture("tests/data/tree", at = "/srv"))]
    #[ignore = "run where the cache is full"]
    async fn with_fixture(_node: Node) {}
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let said = [
        "`bad_input::victims::misspelt` cannot run, for 3 reasons",
        "unknown backend `qemo`: valid are auto, cloud-hypervisor, qemu",
        "there is no image `debain`: known are micro",
        "tests/data/treee",
    ];
    Victim::new("misspelt").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn too_many_nodes_are_refused() {
    let said = ["300 nodes, but the network has addresses for"];
    Victim::new("crowd").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn two_nodes_of_one_name_are_refused() {
    let twins = Cluster::builder()
        .backend("qemu")
        .backend("fake")
        .name("twins")
        .node(NodeSpec::new("twin"))
        .node(NodeSpec::new("twin"));
    let error = twins.run(async |_| ()).expect_err("it cannot run").to_string();
    assert_eq!(error, "`twins` cannot run: two nodes are called `twin`: give each its own name");
}

#[test]
fn an_address_that_cannot_be_is_refused_before_anything_boots() {
    let cluster = Cluster::builder()
        .backend("qemu")
        .backend("fake")
        .name("astray")
        .node(NodeSpec::new("a").ip([10, 78, 0, 1]))
        .node(NodeSpec::new("b").mac("52:54:00:4d:00:01"));
    let error = cluster.run(async |_| ()).expect_err("it cannot run").to_string();
    let said = "`astray` cannot run, for 2 reasons:\n  - node `a`: `ip` 10.78.0.1 is outside of the network \
                10.77.0.0/24: give it another\n  - node `b`: `mac` 52:54:00:4d:00:01 is that of the bridge: give it \
                another";
    assert_eq!(error, said);
}

#[rstest]
#[case::backend(
    "VMTEST_BACKEND",
    "qemo",
    "VMTEST_BACKEND: unknown backend `qemo`: valid are auto, cloud-hypervisor, qemu"
)]
#[case::name("VMTEST_BAKEND", "qemu", "unknown setting `VMTEST_BAKEND`: valid are VMTEST_ARTIFACTS")]
#[case::scale("VMTEST_TIMEOUT_SCALE", "slow", "VMTEST_TIMEOUT_SCALE: `slow` is no factor")]
#[case::run_dir("VMTEST_RUN", "/dev/null", "cannot use /dev/null for run directories")]
#[case::cache("VMTEST_CACHE", "/dev/null", "cannot make /dev/null/images")]
fn a_wrong_environment_is_refused_with_its_remedy(#[case] name: &str, #[case] value: &str, #[case] said: &str) {
    Victim::new("plain").env(name, value).run().assert_failed_with(&[said]).assert_nothing_left();
}

#[test]
fn without_an_image_and_the_means_to_build_one_the_test_says_so() {
    let cache = tempfile::tempdir().expect("a temporary directory");
    let programs = tempfile::tempdir().expect("a temporary directory");
    let qemu = vmtest_tests::on_path("qemu-system-x86_64");
    std::os::unix::fs::symlink(qemu, programs.path().join("qemu-system-x86_64")).expect("it can be made");
    let victim = Victim::new("plain").env("VMTEST_CACHE", cache.path()).env("PATH", programs.path());
    victim.run().assert_failed_with(&["image `micro`:", "apt-cache"]).assert_nothing_left();
}

#[rstest]
#[case::tun("mount -t tmpfs none /dev/net", "plain", &["/dev/net/tun is not there: run `sudo modprobe tun`"])]
#[case::run_dir(
    "mount -t tmpfs -o size=16k,mode=700 none $VMTEST_RUN",
    "plain",
    &["(free space there, or set VMTEST_RUN to another place)"]
)]
#[case::cache(
    "mount -t tmpfs -o size=64k none $VMTEST_CACHE",
    "with_fixture",
    &["no space left for the fixture disk of"]
)]
#[case::image_cache(
    "mount -t tmpfs -o size=64k none $VMTEST_CACHE",
    "plain",
    &["no space left in", "set VMTEST_CACHE to another place"]
)]
fn a_host_that_lacks_something_is_told_so(#[case] setup: &str, #[case] victim: &str, #[case] said: &[&str]) {
    let script = format!("{setup} && exec \"$0\" \"$@\"");
    let mut victim = Victim::within(&["unshare", "--mount", "sh", "-c", &script], victim);
    let cache = tempfile::tempdir().expect("a temporary directory");
    if setup.contains("VMTEST_CACHE") {
        victim = victim.env("VMTEST_CACHE", cache.path());
    }
    victim.run().assert_failed_with(said).assert_nothing_left();
}

#[rstest]
#[case::another_program("VMTEST_QEMU", "/nonexistent/qemu", "/nonexistent/qemu is no QEMU that runs")]
#[case::none("PATH", "/nonexistent", "run `apt-get install --no-install-recommends qemu-system-x86` as root")]
fn a_host_without_qemu_is_told_how_to_get_it(#[case] name: &str, #[case] value: &str, #[case] said: &str) {
    let victim = Victim::new("plain").env("VMTEST_BACKEND", "qemu").env(name, value);
    victim.run().assert_failed_with(&[said]).assert_nothing_left();
}
