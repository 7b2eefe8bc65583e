//! A network that stands for the host's, so that nothing is changed in that.

use std::{fs::File, os::fd::AsRawFd, process::Command, thread};

use nix::sched::{CloneFlags, unshare};

use crate::Victim;

/// A network namespace that lives as long as this value. Its loopback is up, and nothing else is in it.
#[derive(Debug)]
pub struct StandIn {
    held: File,
}

impl StandIn {
    /// A new one.
    ///
    /// # Panics
    /// Without the right to make one.
    #[expect(clippy::new_without_default, reason = "it asks the kernel for something")]
    pub fn new() -> Self {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network can be made");
            File::open("/proc/thread-self/ns/net").expect("a network can be held")
        };
        let held = thread::spawn(inside).join().expect("it can be made");
        let host = Self { held };
        host.sh("ip link set lo up");
        host
    }

    /// The program that runs another one in it, with its argument.
    fn wrapper(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/fd/{}", std::process::id(), self.held.as_raw_fd())]
    }

    /// A victim whose host's network this is.
    #[track_caller]
    pub fn victim(&self, name: &str) -> Victim {
        self.victim_within(&[], name)
    }

    /// The same, started by another program, which gets the test binary and its arguments behind its own.
    #[track_caller]
    pub fn victim_within(&self, wrapper: &[&str], name: &str) -> Victim {
        Victim::within(&[&self.wrapper().each_ref().map(String::as_str), wrapper].concat(), name)
    }

    /// Whether these commands succeed in it, and what they print.
    ///
    /// # Panics
    /// When they cannot be started.
    pub fn try_sh(&self, commands: &str) -> (bool, String) {
        let [program, at] = self.wrapper();
        let output = Command::new(program).args([&at, "sh", "-c", commands]).output().expect("it starts");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// What these commands print in it.
    ///
    /// # Panics
    /// When they fail.
    pub fn sh(&self, commands: &str) -> String {
        let (succeeded, printed) = self.try_sh(commands);
        assert!(succeeded, "{commands}: {printed}");
        printed
    }

    /// Has bridges in it keep what passes between their ports from the filters, which in a new network they do not where
    /// the module `br_netfilter` is loaded.
    pub fn bridges_ask_no_filters(&self) {
        self.sh("cd /proc/sys/net/bridge 2>/dev/null && echo 0 >bridge-nf-call-iptables || true");
    }

    /// Everything that a run could leave in it, as text.
    pub fn everything(&self) -> String {
        self.sh("ip -o link; ip -o addr; ip neigh show nud all; ip route show table all; ip -6 route show table all; \
                 nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; grep -c @vmtest /proc/net/unix || true")
    }
}
