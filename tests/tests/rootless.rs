//! Tests of a user who is not root: where they run, what else of their binary notices, and what a host can forbid.

use std::{
    env, fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rstest::rstest;
use rustix::fs::OFlags;
use vmtest_tests::{Victim, WITHOUT_RIGHTS};

/// What is run by a user without rights.
mod victims {
    use vmtest::{
        prelude::*,
        spec::{Fake, Reply},
    };

    #[vm_test(backend = "fake")]
    #[ignore = "run without rights"]
    async fn scripted(cluster: Cluster) -> Result {
        let node = cluster.add(NodeSpec::new("db").fake(Fake::new().on("true", Reply::default()))).await?;
        node.sh("true").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run without rights"]
    async fn isolated(_node: Node) {}

    #[vm_test]
    #[ignore = "run without rights"]
    async fn emulated(node: Node) -> Result {
        node.sh("true").await?;
        Ok(())
    }

    /// No test of machines, in a binary that has some.
    #[test]
    #[ignore = "run without rights"]
    fn plain() {
        for name in super::NAMESPACES {
            println!("{name} {}", super::namespace("self", name).display());
        }
        std::fs::write(std::env::var_os("WRITTEN").expect("it is told where"), "by a test").expect("it can write");
    }
}

const NAMESPACES: [&str; 3] = ["net", "mnt", "user"];

fn namespace(process: &str, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{name}")).expect("a process has namespaces")
}

#[test]
fn a_cluster_needs_no_rights() {
    Victim::without_rights("scripted").run().assert_passed().assert_nothing_left();
}

mod qemu {
    use super::*;

    #[test]
    fn a_machine_needs_no_rights() {
        let victim = Victim::without_rights("emulated").env("VMTEST_BACKEND", "qemu");
        victim.run().assert_passed().assert_nothing_left();
    }
}

#[test]
fn other_tests_of_the_binary_keep_their_network_and_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let written = dir.path().join("written");
    let ended = Victim::without_rights("plain").env("WRITTEN", &written).run().assert_passed();
    let seen = |name: &str| ended.text().contains(&format!("{name} {}", namespace("self", name).display()));
    assert_eq!(NAMESPACES.map(seen), [true, true, false], "{}", ended.text());
    let owner = |path: &Path| fs::metadata(path).expect("it is there").uid();
    assert_eq!(owner(&written), owner(dir.path()));
}

/// Starts this binary with these arguments and an output that takes nothing, looks at it when it has something to say,
/// and tells whether it is in the user namespace of this test.
fn stays_outside(args: &[&str]) -> bool {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    let output = writer.try_clone().expect("it can be duplicated");
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag can be set");
    loop {
        match writer.write(&[b'x'; 4096]) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("the pipe cannot be filled: {e}"),
        }
    }
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).expect("a flag can be set");
    let binary = env::current_exe().expect("a running test knows its binary");
    let mut command = Command::new(WITHOUT_RIGHTS[0]);
    command.args(&WITHOUT_RIGHTS[1..]).arg(binary).args(args).stdout(output).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    drop((command, writer));
    let pid = child.id().to_string();
    // Nobody tells when a process begins to wait: write(2) has the number 1, and so has the standard output.
    while !fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("1 0x1 ")) {
        assert!(child.try_wait().expect("a child can be waited for").is_none(), "it ended and has said nothing");
        std::thread::yield_now();
    }
    let outside = namespace(&pid, "user") == namespace("self", "user");
    // Now it has nobody to talk to, and ends.
    drop(reader);
    child.wait().expect("a child can be waited for");
    outside
}

#[test]
fn a_binary_that_is_asked_for_its_tests_is_left_alone() {
    assert!(stays_outside(&["--list"]));
    assert!(stays_outside(&["--list", "--format", "terse", "--ignored"]));
    // The same look at one that is to run them.
    assert!(!stays_outside(&["no_test_has_this_name"]));
}

#[test]
fn the_settings_can_keep_a_test_where_it_is() {
    let said = ["VMTEST_ROOTLESS=off keeps it from a user namespace", "unset that, or run the tests as root"];
    let victim = Victim::without_rights("scripted").env("VMTEST_ROOTLESS", "off");
    victim.run().assert_failed_with(&said).assert_nothing_left();
    let said = ["VMTEST_ROOTLESS: `no` is neither `on`, the default, nor `off`"];
    Victim::new("scripted").env("VMTEST_ROOTLESS", "no").run().assert_failed_with(&said).assert_nothing_left();
}

#[rstest]
#[case::namespaces(
    &["unshare", "-U", "-r"],
    "echo 0 >/proc/sys/user/max_user_namespaces",
    &["`user.max_user_namespaces` is 0: run `sudo sysctl -w user.max_user_namespaces=", "Or run the tests as root"],
)]
#[case::tun(
    &["unshare", "--mount"],
    // A file that neither this user may open nor one who is root in a namespace of this user's.
    "mount -t tmpfs none /dev/net && : >/dev/net/tun && chmod 600 /dev/net/tun &&
     { chown 65534 /dev/net/tun || mount --bind /etc/shadow /dev/net/tun; }",
    &["/dev/net/tun may not be opened: run `sudo chmod 666 /dev/net/tun`"],
)]
fn what_the_host_forbids_is_named_with_the_line_that_allows_it(
    #[case] wrapper: &[&str],
    #[case] setup: &str,
    #[case] said: &[&str],
) {
    let script = format!("{setup} && exec {} \"$0\" \"$@\"", WITHOUT_RIGHTS.join(" "));
    let words = [wrapper, &["sh", "-c", &script]].concat();
    Victim::within(&words, "scripted").run().assert_failed_with(said).assert_nothing_left();
}

#[test]
fn without_ids_for_them_machines_can_be_scripted() {
    let programs = tempfile::tempdir().expect("a temporary directory");
    let without = |name| {
        let script = format!("exec {} env PATH={} \"$0\" \"$@\"", WITHOUT_RIGHTS.join(" "), programs.path().display());
        Victim::within(&["sh", "-c", &script], name).run()
    };
    without("scripted").assert_passed().assert_nothing_left();
    let said = [
        "newuidmap and newgidmap are not installed",
        "run `sudo apt-get install -y uidmap",
        "give the machine replies",
    ];
    without("isolated").assert_failed_with(&said).assert_nothing_left();
}
