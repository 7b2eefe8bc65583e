//! What a VMM can do wrong, and what is said of it. Stand-ins for cloud-hypervisor and Firecracker, on hosts without KVM too.

use std::{os::unix::fs::symlink, path::Path};

use rstest::rstest;
use vmtest_tests::{Victim, WITHOUT_KVM};

/// Tests whose machines do not come up.
mod victims {
    use vmtest::prelude::*;

    #[vm_test]
    #[ignore = "run with a VMM that is broken"]
    async fn boots(_node: Node) {}
}

/// Starts a program with devices of its own, among them a `/dev/kvm` that it may not open: root may, unless it gives that up.
const KVM_FORBIDDEN: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "(mount -t tmpfs none /mnt && cd /mnt && mkdir net &&
      for device in null zero full random urandom tty net/tun; do : >$device && mount --bind /dev/$device $device; done &&
      : >kvm && chown 65534 kvm && chmod 000 kvm && mount --rbind /mnt /dev) &&
     exec setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search \"$0\" \"$@\"",
];

/// The victim, with a cloud-hypervisor or Firecracker that does this, as if KVM worked.
fn with(does: &str, victim: Victim) -> (Victim, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = dir.path().join(does);
    symlink(env!("CARGO_BIN_EXE_broken-vmm"), &program).expect("it can be made");
    let (backend, setting) = match does.starts_with("firecracker-") {
        true => ("firecracker", "VMTEST_FIRECRACKER"),
        false => ("cloud-hypervisor", "VMTEST_CLOUD_HYPERVISOR"),
    };
    let victim = victim.env(setting, &program).env("VMTEST_INTERNAL_ASSUME_KVM", "yes");
    (victim.env("VMTEST_BACKEND", backend), dir)
}

/// The victim, with the backends that are tried where nothing is set.
fn auto() -> Victim {
    Victim::new("boots").env("VMTEST_BACKEND", "auto")
}

#[rstest]
#[case::old("old", &["is cloud-hypervisor v44.0, and v45.0 is the oldest that works"])]
#[case::exits("exits", &["node `node`: the machine ended with exit code 3", "Error: there is something that it cannot do"])]
#[case::silent("silent", &["node `node` waits for `API answers` after: VMM alive"])]
#[case::refuses("refuses-the-kernel", &["node `node`", "cloud-hypervisor refused `vm.boot` (500", "Invalid bzImage"])]
#[case::old_firecracker("firecracker-old", &["is Firecracker v1.9.1, and v1.10.0 is the oldest that works"])]
#[case::firecracker_exits("firecracker-exits", &["the machine ended with exit code 3", "Error: there is something that it"])]
#[case::silent_firecracker("firecracker-silent", &["node `node` waits for `API answers` after: VMM alive"])]
#[case::firecracker_refuses("firecracker-refuses-the-kernel", &["Firecracker refused `actions` (400", "Invalid Elf magic"])]
#[case::answers_500("refuses-the-machine", &["node `node`", "cloud-hypervisor refused `vm.create` (500", "it is out of order"])]
fn what_a_vmm_does_wrong_is_said(#[case] does: &str, #[case] said: &[&str]) {
    let (victim, _dir) = with(does, Victim::new("boots"));
    // For the one that says nothing: three seconds.
    let victim = if does.ends_with("silent") { victim.env("VMTEST_TIMEOUT_SCALE", "0.1") } else { victim };
    victim.run().assert_failed_with(said).assert_nothing_left();
}

#[test]
fn cloud_hypervisor_is_what_is_tried_first() {
    let (victim, _dir) = with("exits", Victim::new("boots").env("PATH", "/nonexistent"));
    let said = ["the machine ended with exit code 3"];
    victim.env("VMTEST_BACKEND", "auto").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn firecracker_is_not_tried_unless_it_is_named() {
    let (victim, _dir) = with("firecracker-exits", Victim::new("boots").env("PATH", "/nonexistent"));
    let ended = victim.env("VMTEST_BACKEND", "auto").run();
    assert!(!ended.text().contains("irecracker"), "{}", ended.text());
    ended.assert_failed_with(&["no backend runs here"]).assert_nothing_left();
}

#[test]
fn without_any_backend_all_are_named() {
    let said = [
        "no backend runs here: cloud-hypervisor: no cloud-hypervisor on PATH: run `cargo vmtest install cloud-hypervisor`",
        "; qemu: no qemu-system",
    ];
    auto().env("PATH", "/nonexistent").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn without_kvm_it_runs_no_guests() {
    let victim = Victim::within(&WITHOUT_KVM, "boots").env("VMTEST_BACKEND", "cloud-hypervisor");
    let victim = victim.env("VMTEST_CLOUD_HYPERVISOR", Path::new(env!("CARGO_BIN_EXE_broken-vmm")));
    victim.run().assert_failed_with(&["cloud-hypervisor runs no guests here: "]).assert_nothing_left();
}

#[test]
fn a_kvm_that_may_not_be_opened_is_not_taken_for_none() {
    let victim = Victim::within(&KVM_FORBIDDEN, "boots").env("VMTEST_BACKEND", "cloud-hypervisor");
    let victim = victim.env("VMTEST_CLOUD_HYPERVISOR", Path::new(env!("CARGO_BIN_EXE_broken-vmm")));
    let said = "cloud-hypervisor runs no guests here: /dev/kvm may not be opened: `sudo usermod -aG kvm $USER`";
    victim.run().assert_failed_with(&[said]).assert_nothing_left();
}

#[test]
fn a_backend_that_is_required_is_not_passed_over() {
    let said = ["VMTEST_REQUIRE names `cloud-hypervisor`, which cannot run here: no cloud-hypervisor on PATH"];
    let victim = auto().env("PATH", "/nonexistent").env("VMTEST_REQUIRE", "cloud-hypervisor");
    victim.run().assert_failed_with(&said).assert_nothing_left();
}
