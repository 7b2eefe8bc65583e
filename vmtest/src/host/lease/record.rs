//! What a claim says, in its file and to whoever waits for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::Resources;

/// Version of the format; a reader refuses a newer one.
pub(super) const VERSION: u32 = 1;

/// The content of a claim's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) holder: Holder,
    /// What it waits for, beside what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waits: Option<Waits>,
}

/// A cluster that holds its share while it waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waits {
    /// Higher than that of everybody who waited when it began to.
    pub(super) order: u64,
    #[serde(flatten)]
    pub(super) more: Resources,
}

/// A cluster that holds a share of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The test's path.
    pub test: String,
    /// The process that it runs in.
    pub pid: u32,
    /// Its share.
    #[serde(flatten)]
    pub holds: Resources,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (pid {}) holds {}", self.test, self.pid, self.holds)
    }
}

/// Why a cluster has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// What it waits for.
    pub wants: Resources,
    /// All that machines may take on this host.
    pub budget: Resources,
    /// Who holds a share now.
    pub holders: Vec<Holder>,
    /// How many clusters wait before this one.
    pub ahead: usize,
}

/// What people read, in one line.
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holders: Vec<_> = self.holders.iter().map(Holder::to_string).collect();
        let all = self.budget.of_what(self.wants);
        write!(f, "waits for {}, of {all} in all: {}", self.wants, holders.join("; "))?;
        match self.ahead {
            0 => Ok(()),
            1 => f.write_str("; one more cluster waits before it"),
            more => write!(f, "; {more} more clusters wait before it"),
        }
    }
}
