//! Whose ids are which, inside and outside of a user namespace.

use std::{fs, ops::Range};

use rustix::process::geteuid;

/// The ids that a fake machine gets: above those that distributions, containers and systemd hand out (systemd,
/// `UIDS-GIDS.md`), so that nothing of the host belongs to them, and as many as a machine can have users.
pub(crate) const MACHINE_IDS: Range<u32> = 0x7000_0000..0x7001_0000;

/// The user id by which others know the user of this process: in a namespace where one user alone is root, that user's
/// own. Two users who are both root of such a namespace must not share directories.
pub(crate) fn caller() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(&map, geteuid().as_raw())
}

/// From a map as the kernel shows it. A range of ids is that of a container, whose users are told apart inside.
fn outside(map: &str, inside: u32) -> u32 {
    let outside = |line: &str| match line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().as_deref()
    {
        Ok(&[first, outside, 1]) if first == inside => Some(outside),
        _ => None,
    };
    map.lines().find_map(outside).unwrap_or(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_namespace_of_one_user_is_that_user() {
        assert_eq!(outside("         0       1000          1\n", 0), 1000);
        assert_eq!(outside("0 1000 1\n1879048192 100000 65536\n", 0), 1000);
        for map in ["0 0 4294967295\n", "0 100000 65536\n", ""] {
            assert_eq!(outside(map, 0), 0, "{map}");
        }
    }
}
