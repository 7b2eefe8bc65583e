//! Room for machines that join later.

use serde::{Deserialize, Serialize};

/// Machines that join while the test runs, for which room on the host is kept from its start. They need not be like
/// each other: what counts is the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// How many.
    pub nodes: u32,
    /// Memory of each in bytes; that of the test's nodes where it is `None`.
    pub memory: Option<u64>,
    /// Virtual CPUs of each; those of the test's nodes where it is `None`.
    pub cpus: Option<u32>,
    /// Size in bytes of the disk of each; that of the test's nodes where it is `None`.
    pub disk: Option<u64>,
}

impl Budget {
    /// Room for so many machines like the test's own.
    pub fn nodes(nodes: u32) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Each with so much memory, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Each with so many virtual CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Each with a disk of so many bytes.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }
}
