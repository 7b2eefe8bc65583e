//! Who is root in a fake machine, as this host knows it.

use std::{fs, io};

use crate::host::{Entrance, MACHINE_IDS, entrance, has_capabilities};

/// The first id, and how many there are.
const FIRST: u32 = MACHINE_IDS.start;
const COUNT: u32 = MACHINE_IDS.end - FIRST;
/// The capabilities with which other ids than one's own can be mapped.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// The ids of this host that a machine's own are mapped to: a range of nobody's ids. With the caller's own id alone a
/// machine's root would be the caller, whom the host's settings may belong to, and its SSH server could not log anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(());

impl Owner {
    /// The ids that this process can give.
    ///
    /// # Errors
    /// When it may not give them, or does not have them itself.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(read);
        if may_give(&read("/proc/self/status"), maps.each_ref().map(String::as_str)) {
            return Ok(Self(()));
        }
        if let Some(Entrance::Entered { no_range: Some(why) }) = entrance() {
            return Err(io::Error::other(format!("its root would be you, because {why}")));
        }
        Err(io::Error::other(format!(
            "root in a machine would be root of the host, because this process has no CAP_SETUID and CAP_SETGID, or no ids \
             from {FIRST} on"
        )))
    }

    /// The id of the machine's root, for files that shall belong to it.
    pub(super) fn root(self) -> u32 {
        FIRST
    }

    /// Maps the ids of a process that waits in its new user namespace.
    ///
    /// # Errors
    /// When the kernel refuses the map.
    pub(super) fn map(self, pid: i32) -> io::Result<()> {
        let map = format!("0 {FIRST} {COUNT}");
        fs::write(format!("/proc/{pid}/uid_map"), &map)?;
        fs::write(format!("/proc/{pid}/gid_map"), &map)
    }
}

fn may_give(status: &str, maps: [&str; 2]) -> bool {
    has_capabilities(status, &[CAP_SETUID, CAP_SETGID]) && maps.iter().all(|map| has_range(map))
}

/// Whether the ids of the range exist in the namespace of this map.
fn has_range(map: &str) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) => {
                first <= u64::from(FIRST) && u64::from(FIRST + COUNT) <= first + count
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_given_by_who_may_and_has_them() {
        let (root, user) = ("CapEff:\t000001ffffffffff\n", "CapEff:\t0000000000000000\n");
        let (all, one, container) = ("0 0 4294967295\n", "0 1000 1\n", "0 100000 65536\n");
        assert!(may_give(root, [all, all]));
        for (status, maps) in
            [(user, [all, all]), (root, [one, one]), (root, [all, one]), (root, [container, container]), ("", ["", ""])]
        {
            assert!(!may_give(status, maps), "{status:?} {maps:?}");
        }
    }
}
