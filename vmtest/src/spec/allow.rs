//! What a test lets pass.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that fails a test unless the test allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Allow {
    /// A panic on a task or thread of the cluster other than the body's own.
    TaskPanic,
    /// A guest's kernel reports an oops.
    Oops,
    /// A guest's kernel reports a bug of its own.
    Bug,
    /// A guest's kernel reports a processor that is locked up.
    Lockup,
    /// A guest's kernel reports a task that has been blocked for minutes.
    HungTask,
    /// A guest's kernel kills a process for its memory.
    Oom,
    /// A guest's kernel reports an error of a file system or a disk.
    FilesystemError,
    /// A process of a guest crashes.
    Segfault,
}

/// As a test writes it.
impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaskPanic => "task-panic",
            Self::Oops => "oops",
            Self::Bug => "bug",
            Self::Lockup => "lockup",
            Self::HungTask => "hung-task",
            Self::Oom => "oom",
            Self::FilesystemError => "filesystem-error",
            Self::Segfault => "segfault",
        })
    }
}
