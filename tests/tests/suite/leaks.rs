//! What a test leaves, though nobody had planned it, fails the test by name.

use std::{fs, os::fd::AsRawFd};

use nix::sys::signal::Signal;
use vmtest_tests::{Nextest, Victim};

/// Tests that leave something.
mod victims {
    use std::{future::pending, process::Command};

    use vmtest::prelude::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by an_extra_tap_fails_the_test"]
    async fn makes_a_tap(_node: Node) {
        let made = Command::new("ip").args(["tuntap", "add", "dev", "extra0", "mode", "tap"]).status();
        assert!(made.expect("there is an ip").success());
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_forgotten_file_fails_the_test"]
    async fn forgets_a_file(cluster: Cluster) {
        let path = vmtest_tests::run_dir(cluster.id()).join("forgotten.txt");
        std::fs::write(path, "").expect("it can be written");
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by nextest_sees_what_outlives_a_test"]
    async fn detaches_a_process(_node: Node) {
        // As a VMM would be that nobody could end: in a session of its own, with the test's output.
        let detached = Command::new("sh").args(["-c", "setsid sleep 5 &"]).status();
        assert!(detached.expect("there is a shell").success());
    }

    #[vm_test(backend = "qemu")]
    #[ignore = "run by a_vmm_keeps_the_output_of_its_test_open"]
    async fn waits(_node: Node) {
        println!("the machine is up");
        pending::<()>().await;
    }
}

#[test]
fn an_extra_tap_fails_the_test() {
    let said = ["left behind on this host", "link `extra0`, which is not of the framework"];
    Victim::new("makes_a_tap").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_forgotten_file_fails_the_test() {
    let said = ["left behind on this host", "/forgotten.txt, which no record names"];
    Victim::new("forgets_a_file").run().assert_failed_with(&said).assert_nothing_left();
}

/// What holds the output of a test after its end is a leak to nextest; a VMM holds it too, as the next test shows.
#[test]
fn nextest_sees_what_outlives_a_test() {
    let Some(nextest) = Nextest::new("leak-timeout = { period = \"200ms\", result = \"fail\" }") else {
        eprintln!("not run: cargo-nextest is not installed");
        return;
    };
    let runs = tempfile::tempdir().expect("a directory");
    let mut command = nextest.command("leaks::victims::detaches_a_process");
    let output = command.env("VMTEST_RUN", runs.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("LEAK"), "{said}");
}

/// What only a VMM shows.
mod real {
    use super::*;

    /// A runner that waits for the end of a test's output calls a VMM that outlives it a leak.
    #[test]
    fn a_vmm_keeps_the_output_of_its_test_open() {
        let mut running = Victim::new("waits").start();
        running.wait_for("the machine is up");
        let output = fs::read_link(format!("/proc/self/fd/{}", running.output().as_raw_fd())).expect("it is a pipe");
        let vmms = running.host().processes();
        let vmms = vmms.iter().filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("qemu")
        });
        let holds = |pid: &i32| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
            fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| link == output)
        };
        let held: Vec<_> = vmms.map(holds).collect();
        assert_eq!(held, [true]);
        running.signal(Signal::SIGTERM);
        running.finish().assert_nothing_left();
    }
}
