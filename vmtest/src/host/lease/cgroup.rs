//! The memory that the cgroups of this process leave it, of version 2 and of version 1.

use std::{
    fs,
    path::{Path, PathBuf},
};

use procfs::process::Process;

/// What the tightest of a cgroup and those above it allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CgroupMemory {
    /// The least limit, in bytes.
    pub(super) limit: u64,
    /// The least that is left below a limit now, in bytes; files that the kernel can drop are left too.
    pub(super) available: u64,
}

/// What the files of a version are called.
struct Version {
    /// Of several limits the least holds. One that is not set is no number.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of `memory.stat` that count what can be dropped.
    droppable: &'static [&'static str],
}

const V2: Version = Version {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    droppable: &["inactive_file", "active_file"],
};
const V1: Version = Version {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    droppable: &["total_inactive_file", "total_active_file"],
};

impl CgroupMemory {
    /// That of this process; `None` where no cgroup limits it, or none can be seen.
    pub(super) fn of_this_process() -> Option<Self> {
        let process = Process::myself().ok()?;
        let (groups, mounts) = (process.cgroups().ok()?, process.mountinfo().ok()?);
        let found = mounts.into_iter().filter_map(|mount| {
            let (version, group) = if mount.fs_type == "cgroup2" {
                (&V2, groups.0.iter().find(|group| group.hierarchy == 0)?)
            } else if mount.fs_type == "cgroup" && mount.super_options.contains_key("memory") {
                (&V1, groups.0.iter().find(|group| group.controllers.iter().any(|name| name == "memory"))?)
            } else {
                return None;
            };
            tightest(version, &mount.mount_point, below(&mount.root, &group.pathname))
        });
        found.reduce(Self::tighter)
    }

    fn tighter(self, other: Self) -> Self {
        Self { limit: self.limit.min(other.limit), available: self.available.min(other.available) }
    }

    fn read(version: &Version, dir: &Path) -> Option<Self> {
        let limit = version.limits.iter().filter_map(|file| number(&dir.join(file))).min()?;
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let droppable = |line: &str| {
            let (name, bytes) = line.split_once(' ')?;
            bytes.parse::<u64>().ok().filter(|_| version.droppable.contains(&name))
        };
        let droppable: u64 = stat.lines().filter_map(droppable).sum();
        let usage = number(&dir.join(version.usage)).unwrap_or_default();
        Some(Self { limit, available: limit.saturating_sub(usage.saturating_sub(droppable)) })
    }
}

/// Where a cgroup is in a mount that shows the hierarchy from this root on; a container may see no more than its own.
fn below(root: &str, group: &str) -> PathBuf {
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    // A cgroup outside of the namespace's root is shown as `/../..`.
    if below.components().any(|part| part.as_os_str() == "..") { PathBuf::new() } else { below.to_owned() }
}

/// What the cgroup and all above it, up to the mount, allow together.
fn tightest(version: &Version, mount: &Path, group: PathBuf) -> Option<CgroupMemory> {
    let dirs = group.ancestors().map(|dir| mount.join(dir)).collect::<Vec<_>>();
    dirs.iter().filter_map(|dir| CgroupMemory::read(version, dir)).reduce(CgroupMemory::tighter)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tree(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_on_the_way_up_holds() {
        let root = tree(&[
            ("user/memory.max", format!("{}\n", 1000 * MIB)),
            ("user/memory.current", format!("{}\n", 900 * MIB)),
            ("user/memory.stat", format!("anon 5\ninactive_file {}\nactive_file {}\n", 300 * MIB, 50 * MIB)),
            ("user/job/memory.max", "max\n".into()),
            ("user/job/memory.high", format!("{}\n", 800 * MIB)),
            ("user/job/memory.current", format!("{}\n", 100 * MIB)),
            ("user/job/leaf/memory.max", "max\n".into()),
            ("other/memory.max", "1\n".into()),
        ]);
        let found = tightest(&V2, root.path(), "user/job/leaf".into());
        assert_eq!(found, Some(CgroupMemory { limit: 800 * MIB, available: 450 * MIB }));
        assert_eq!(tightest(&V2, root.path(), "elsewhere".into()), None);
    }

    #[test]
    fn version_1_has_other_names_for_the_same() {
        let root = tree(&[
            ("memory.limit_in_bytes", "9223372036854771712\n".into()),
            ("job/memory.limit_in_bytes", format!("{}\n", 512 * MIB)),
            ("job/memory.usage_in_bytes", format!("{}\n", 512 * MIB)),
            ("job/memory.stat", format!("inactive_file 1\ntotal_inactive_file {}\n", 12 * MIB)),
        ]);
        let found = tightest(&V1, root.path(), "job".into());
        assert_eq!(found, Some(CgroupMemory { limit: 512 * MIB, available: 12 * MIB }));
    }

    #[test]
    fn a_container_finds_itself_in_what_it_sees() {
        assert_eq!(below("/", "/user/job"), Path::new("user/job"));
        assert_eq!(below("/docker/1", "/docker/1/job"), Path::new("job"));
        assert_eq!(below("/docker/1", "/"), Path::new(""), "a namespace hides where it is");
        assert_eq!(below("/", "/../other"), Path::new(""));
    }
}
