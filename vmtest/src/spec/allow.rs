//! What a test lets pass.

use serde::{Deserialize, Serialize};

/// Something that fails a test unless the test allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Allow {
    /// A panic on a task or thread of the cluster other than the body's own.
    TaskPanic,
}
