//! Disks that are kept from one run to the next.

use serde::{Deserialize, Serialize};

/// A disk that is kept by its name when the test is over, in the cache and for all tests of the same package: an ext4 that a
/// later test finds as it was left.
///
/// ```
/// # use vmtest::prelude::*;
/// let primary = NodeSpec::new("primary").volume(Volume::new("pgdata").size(4 << 30), "/var/lib/postgresql");
/// let reports = NodeSpec::new("reports").volume(Volume::new("archive").read_only(), "/srv/archive");
/// # drop((primary, reports));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub(crate) name: String,
    /// How large it shall be, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Whether the machine only reads it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
}

/// A volume of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// What is mounted.
    pub volume: Volume,
    /// Where the guest mounts it, absolute; by default `/volumes/<its name>`.
    pub at: Option<String>,
}

impl Volume {
    /// The volume of this name, which the machine writes. Its test has it alone: others that want it wait until that is over.
    /// It is made where there is none. Names hold letters, digits, `-` and `_`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), bytes: None, read_only: false }
    }

    /// How large it shall be, in bytes; 2 GiB for one that is made and of which nothing is said. One that is smaller grows before
    /// the machine boots. One that is larger is refused: what is kept never becomes smaller.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The machine only reads it, and so may others, of this test and of others, at the same time. It must be there.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T: Into<String>> From<T> for Volume {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}
