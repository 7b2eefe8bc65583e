//! What launching one machine takes, as data: what `render` makes and `launch` uses.

use serde::{Deserialize, Serialize};

/// Everything needed to start one VMM, relative to its node's folder.
///
/// Golden-tested without any hypervisor. Paths are relative because the VMM's working directory is the node's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaunchPlan {
    /// The VMM's binary, absolute.
    pub(crate) program: String,
    /// Its arguments, without the program's own name.
    pub(crate) args: Vec<String>,
    /// Listening unix sockets that are made before the VMM starts and handed to it under these descriptors.
    pub(crate) sockets: Vec<ListeningSocket>,
    /// The file that receives the serial console from its first byte.
    pub(crate) console: String,
    /// The file that receives the VMM's own output.
    pub(crate) log: String,
}

/// A unix socket that listens before the VMM runs, so that connecting never has to wait for the file to appear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListeningSocket {
    /// File name in the node's folder.
    pub(crate) path: String,
    /// The descriptor under which the VMM finds it.
    pub(crate) fd: i32,
}
