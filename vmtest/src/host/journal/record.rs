//! The lines of a journal.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::host::{LOCK, ProcessId};

/// The file in the run directory.
pub(crate) const JOURNAL: &str = "journal.jsonl";
/// Version of the format; a reader refuses a newer one and leaves the run alone.
pub(super) const VERSION: u32 = 3;

/// Something that a run changes on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Effect {
    /// A network interface in the run's own network namespace, which the kernel removes with the run's last thread.
    Link {
        /// Its name there.
        name: String,
    },
    /// A network interface in the network of whoever started the test, where the kernel does not remove it with the run.
    HostLink {
        /// Its name there, which begins with [`host_prefix`] of the run.
        name: String,
        /// The inode of that network namespace.
        namespace: u64,
    },
    /// A table of packet filters there.
    HostTable {
        /// Its name, which is the id of the run, alone or with a word behind it.
        name: String,
        /// The inode of that network namespace.
        namespace: u64,
    },
    /// That this network forwards for the way out of the run's own.
    HostForwarding {
        /// The inode of that network namespace.
        namespace: u64,
    },
    /// The folder of a node in the run directory.
    NodeDir {
        /// Its name, which is the node's.
        name: String,
    },
    /// A folder for a scratch disk, in the cache: disks are large, and run directories may be in memory.
    Scratch {
        /// Its path, `<cache>/scratch/<id of the run>/<position of the node>`.
        path: PathBuf,
    },
    /// A VMM.
    Process {
        /// The node that it runs.
        node: String,
    },
    /// Another program that works for the cluster: its way out, for example.
    Helper {
        /// The program.
        name: String,
    },
}

/// What the names of all runs' interfaces begin with in somebody else's network.
pub(crate) const HOST_LINKS: &str = "vt";

/// What the names of a run's interfaces begin with there: no other run has the same.
pub(crate) fn host_prefix(run: &str) -> String {
    format!("{HOST_LINKS}{run}")
}

/// The longest name of an interface: the kernel has room for one byte more, which ends it.
const LINK_NAME: usize = 15;

impl Effect {
    /// Whether it is a process, which is ended before anything that it uses is taken away.
    pub(crate) fn is_process(&self) -> bool {
        matches!(self, Self::Process { .. } | Self::Helper { .. })
    }

    /// Whether this can be the name of an interface that the run has made in somebody else's network.
    pub(crate) fn is_host_link(run: &Path, name: &str) -> bool {
        let suffix = id_of(run).and_then(|id| name.strip_prefix(&host_prefix(id)));
        name.len() <= LINK_NAME && suffix.is_some_and(is_plain)
    }

    /// Whether this can be the name of a table of packet filters that the run has made in somebody else's network.
    pub(crate) fn is_host_table(run: &Path, name: &str) -> bool {
        let suffix = id_of(run).and_then(|id| name.strip_prefix(id));
        let word = |suffix: &str| suffix.strip_prefix('-').is_some_and(|word| !word.is_empty() && is_plain(word));
        suffix.is_some_and(|suffix| suffix.is_empty() || word(suffix))
    }

    /// The folder that this name means in a run directory; `None` for a name that leads anywhere else.
    pub(crate) fn node_dir(run: &Path, name: &str) -> Option<PathBuf> {
        let mut parts = Path::new(name).components();
        let single = matches!(parts.next(), Some(Component::Normal(part)) if part == name) && parts.next().is_none();
        (single && ![LOCK, JOURNAL].contains(&name)).then(|| run.join(name))
    }

    /// The folder of the run's scratch disks around this one of them, where the path is `scratch/<id of the
    /// run>/<name>` in whichever directory and nothing else.
    pub(crate) fn scratch_of_run<'a>(path: &'a Path, run: &Path, scratch: &str) -> Option<&'a Path> {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let of_run = path.parent().filter(|of_run| of_run.file_name() == run.file_name())?;
        let in_place = of_run.parent().is_some_and(|above| above.ends_with(scratch));
        (path.is_absolute() && in_place && path.components().all(plain)).then_some(of_run)
    }
}

fn id_of(run: &Path) -> Option<&str> {
    run.file_name()?.to_str()
}

fn is_plain(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { name } => write!(f, "link `{name}`"),
            Self::HostLink { name, .. } => write!(f, "link `{name}` in the host's network"),
            Self::HostTable { name, .. } => write!(f, "packet filters `{name}` in the host's network"),
            Self::HostForwarding { .. } => write!(f, "forwarding in the host's network"),
            Self::NodeDir { name } => write!(f, "folder `{name}`"),
            Self::Scratch { path } => write!(f, "scratch disk {}", path.display()),
            Self::Process { node } => write!(f, "VMM of `{node}`"),
            Self::Helper { name } => write!(f, "helper `{name}`"),
        }
    }
}

/// The first line of a journal: who owns the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// Format version.
    pub(crate) version: u32,
    /// The test's path.
    pub(crate) test: String,
    /// The owner.
    pub(crate) owner: ProcessId,
    /// Milliseconds since the epoch.
    pub(crate) at: u64,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line.
    Begin(Begin),
    /// The effect is about to happen.
    Intent {
        /// Number of the effect in this journal, from 0.
        id: u32,
        /// What will happen.
        effect: Effect,
    },
    /// The effect has happened.
    Done {
        /// The effect's number.
        id: u32,
        /// For a process, which one it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<ProcessId>,
    },
    /// The effect has been undone.
    Released {
        /// The effect's number.
        id: u32,
    },
}

impl Record {
    /// Its line, with the end of it.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a record is plain data");
        line.push(b'\n');
        line
    }

    /// Its `type`, and the `kind` of the effect that it is about, as they stand in a journal.
    pub(super) fn names(&self, entries: &[Entry]) -> Vec<String> {
        let word = |value: serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let effect = match self {
            Self::Begin(_) => None,
            Self::Intent { effect, .. } => Some(effect),
            Self::Done { id, .. } | Self::Released { id } => {
                entries.iter().find(|entry| entry.id == *id).map(|entry| &entry.effect)
            }
        };
        let kind = effect.map(|effect| word(serde_json::json!(effect), "kind"));
        [word(serde_json::json!(self), "type")].into_iter().chain(kind).collect()
    }
}

/// An effect that is not released: something that may be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    pub(crate) effect: Effect,
    pub(crate) process: Option<ProcessId>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.effect.fmt(f)?;
        self.process.as_ref().map_or(Ok(()), |process| write!(f, ", process {}", process.pid))
    }
}
