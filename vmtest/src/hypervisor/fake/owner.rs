//! Who is root in a fake machine, as this host knows it.

use std::{fs, io, os::unix::fs::MetadataExt};

use rustix::process::{getegid, geteuid};

/// The first of the ids that a machine gets from a process that may choose: above those that distributions, containers
/// and systemd hand out (systemd, `UIDS-GIDS.md`), so that nothing of the host belongs to them.
const FIRST: u32 = 0x7000_0000;
/// As many ids as a machine can have users.
const COUNT: u32 = 1 << 16;
/// The capability with which other ids than one's own can be mapped.
const CAP_SETUID: u32 = 7;

/// The ids of this host that a machine's own are mapped to: a range of nobody's ids, else the one of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    count: u32,
}

impl Owner {
    /// The ids that this process can give.
    ///
    /// # Errors
    /// When a machine's root would be that of the host: its settings ask for no capability, only for who owns them.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(read);
        let owner = Self::choose(&read("/proc/self/status"), maps.each_ref().map(String::as_str));
        if fs::metadata("/proc/sys/kernel")?.uid() == owner.uid {
            return Err(io::Error::other("without CAP_SETUID, root in a machine would be root of the host"));
        }
        Ok(owner)
    }

    fn choose(status: &str, maps: [&str; 2]) -> Self {
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
        if capabilities & (1 << CAP_SETUID) != 0 && maps.iter().all(|map| has_range(map)) {
            return Self { uid: FIRST, gid: FIRST, count: COUNT };
        }
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), count: 1 }
    }

    /// The id of the machine's root, for files that shall belong to it.
    pub(super) fn root(self) -> u32 {
        self.uid
    }

    /// Maps the ids of a process that waits in its new user namespace.
    ///
    /// # Errors
    /// When the kernel refuses the map.
    pub(super) fn map(self, pid: i32) -> io::Result<()> {
        if self.count == 1 {
            // Without it an ordinary user may not map a group.
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        fs::write(format!("/proc/{pid}/uid_map"), format!("0 {} {}", self.uid, self.count))?;
        fs::write(format!("/proc/{pid}/gid_map"), format!("0 {} {}", self.gid, self.count))
    }
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
    fn a_range_is_taken_where_it_may_and_can_be() {
        let (root, user) = ("CapEff:\t000001ffffffffff\n", "CapEff:\t0000000000000000\n");
        let (all, one) = ("0 0 4294967295\n", "0 1000 1\n");
        assert_eq!(Owner::choose(root, [all, all]).root(), FIRST);
        for (status, maps) in [(user, [all, all]), (root, [one, one]), (root, [all, one]), ("", ["", ""])] {
            assert_eq!(Owner::choose(status, maps).count, 1);
        }
    }
}
