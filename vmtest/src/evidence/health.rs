//! What a guest's kernel says when something is wrong with it.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::spec::Allow;

/// What a line of a console, or the end of a machine, is a sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Sign {
    /// The machine has ended, and the test did not ask for it.
    Ended,
    /// The kernel panicked.
    Panic,
    /// The kernel did something that it may not, and went on.
    Oops,
    /// The kernel found itself in a state that cannot be.
    Bug,
    /// A processor did nothing else for many seconds.
    Lockup,
    /// A task has waited for minutes in the kernel.
    HungTask,
    /// The kernel killed a process for its memory.
    Oom,
    /// A file system or its disk has an error.
    FilesystemError,
    /// A process has crashed.
    Segfault,
}

/// The words of each sign. The first row that has its words in a line counts.
const WORDS: [(Sign, &[&str]); 8] = [
    (Sign::Panic, &["Kernel panic - not syncing"]),
    (Sign::Segfault, &[": segfault at ", "] general protection fault ip:", "] trap invalid opcode ip:"]),
    (Sign::Lockup, &["BUG: soft lockup", "hard LOCKUP"]),
    (
        Sign::Oops,
        &[
            "Oops: ",
            "general protection fault",
            "Unable to handle kernel ",
            "BUG: unable to handle",
            "BUG: kernel NULL",
        ],
    ),
    (Sign::Bug, &["kernel BUG at ", "] BUG: "]),
    (Sign::HungTask, &[" blocked for more than "]),
    (Sign::Oom, &["Out of memory: Killed process", "out of memory: Killed process", " invoked oom-killer: "]),
    (
        Sign::FilesystemError,
        &[
            "EXT4-fs error",
            "Remounting filesystem read-only",
            "Buffer I/O error",
            "I/O error, dev ",
            "): Corruption ",
            "BTRFS error",
        ],
    ),
];

impl Sign {
    /// What this line is a sign of, if it is one.
    ///
    /// Stalls of RCU are none: under emulation on a busy host they come and go.
    pub(crate) fn of(line: &str) -> Option<Self> {
        WORDS.iter().find(|(_, words)| words.iter().any(|words| line.contains(words))).map(|(sign, _)| *sign)
    }

    /// What lets it pass. `None` for what does not fail a test by itself: a panic fails it in another way, and the end of
    /// a machine may be what the test is about.
    pub(crate) fn allowed_by(self) -> Option<Allow> {
        match self {
            Self::Ended | Self::Panic => None,
            Self::Oops => Some(Allow::Oops),
            Self::Bug => Some(Allow::Bug),
            Self::Lockup => Some(Allow::Lockup),
            Self::HungTask => Some(Allow::HungTask),
            Self::Oom => Some(Allow::Oom),
            Self::FilesystemError => Some(Allow::FilesystemError),
            Self::Segfault => Some(Allow::Segfault),
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the machine ended by itself",
            Self::Panic => "a kernel panic",
            Self::Oops => "an oops of the kernel",
            Self::Bug => "a bug of the kernel",
            Self::Lockup => "a locked-up processor",
            Self::HungTask => "a hung task",
            Self::Oom => "an out-of-memory kill",
            Self::FilesystemError => "an error of a file system",
            Self::Segfault => "a crashed process",
        })
    }
}

/// A sign that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// When, on the clock of the timeline.
    pub(crate) at: Duration,
    pub(crate) node: String,
    pub(crate) sign: Sign,
    pub(crate) line: String,
    pub(crate) allowed: bool,
}

impl Finding {
    /// Whether it fails its test.
    pub(crate) fn fails(&self) -> bool {
        !self.allowed && self.sign.allowed_by().is_some()
    }
}

/// Why these findings fail a test; `None` where none does.
pub(crate) fn complaint(findings: &[Finding]) -> Option<String> {
    /// The rest is on the console.
    const SHOWN: usize = 5;
    let failing: Vec<_> = findings.iter().filter(|finding| finding.fails()).collect();
    let first = failing.first()?;
    let allow = first.sign.allowed_by()?;
    let mut text = format!("node `{}`: its kernel has reported {}", first.node, first.sign);
    for finding in failing.iter().take(SHOWN) {
        text += &format!("\n  {} at {:.3} s: {}", finding.node, finding.at.as_secs_f64(), finding.line);
    }
    if failing.len() > SHOWN {
        text += &format!("\n  and {} more", failing.len() - SHOWN);
    }
    Some(text + &format!("\n  if this is what the test is about, write `allow(\"{allow}\")`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_kernels_are_told_from_others() {
        for (line, sign) in [
            ("[   12.1] Kernel panic - not syncing: sysrq triggered crash", Some(Sign::Panic)),
            ("[   12.1] db[311]: segfault at 0 ip 000055 sp 00007f error 4 in db[55+1]", Some(Sign::Segfault)),
            ("[   12.1] traps: db[311] general protection fault ip:55 sp:7f error:0", Some(Sign::Segfault)),
            (
                "[   12.1] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
                Some(Sign::Oops),
            ),
            ("[   12.1] BUG: kernel NULL pointer dereference, address: 0000000000000008", Some(Sign::Oops)),
            ("[   12.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [db:311]", Some(Sign::Lockup)),
            ("[   12.1] BUG: scheduling while atomic: db/311/0x00000002", Some(Sign::Bug)),
            ("[   12.1] kernel BUG at mm/slub.c:448!", Some(Sign::Bug)),
            ("[   12.1] INFO: task db:311 blocked for more than 120 seconds.", Some(Sign::HungTask)),
            ("[   12.1] Out of memory: Killed process 311 (db) total-vm:1kB", Some(Sign::Oom)),
            ("[   12.1] Memory cgroup out of memory: Killed process 311 (db)", Some(Sign::Oom)),
            ("[   12.1] db invoked oom-killer: gfp_mask=0xcc0", Some(Sign::Oom)),
            ("[   12.1] EXT4-fs error (device vda): ext4_lookup:1855: inode #2", Some(Sign::FilesystemError)),
            ("[   12.1] EXT4-fs (vda): mounted filesystem with ordered data mode", None),
            ("[   12.1] rcu: INFO: rcu_sched self-detected stall on CPU", None),
            ("debug: the panic button works", None),
        ] {
            assert_eq!(Sign::of(line), sign, "{line}");
        }
    }

    #[test]
    fn what_is_allowed_fails_nothing() {
        let finding = |sign, allowed| Finding {
            at: Duration::from_millis(1500),
            node: "db".into(),
            sign,
            line: "the line".into(),
            allowed,
        };
        assert_eq!(complaint(&[finding(Sign::Oom, true), finding(Sign::Panic, false)]), None);
        for (sign, word) in [
            (Sign::Oops, "oops"),
            (Sign::Bug, "bug"),
            (Sign::Lockup, "lockup"),
            (Sign::HungTask, "hung-task"),
            (Sign::Oom, "oom"),
            (Sign::FilesystemError, "filesystem-error"),
            (Sign::Segfault, "segfault"),
        ] {
            let said = complaint(&[finding(sign, false)]).unwrap();
            assert!(said.contains(&format!("write `allow(\"{word}\")`")), "{said}");
        }
        let said = "node `db`: its kernel has reported an out-of-memory kill\n  db at 1.500 s: the line\n  \
                    if this is what the test is about, write `allow(\"oom\")`";
        assert_eq!(complaint(&[finding(Sign::Ended, false), finding(Sign::Oom, false)]).unwrap(), said);
    }
}
