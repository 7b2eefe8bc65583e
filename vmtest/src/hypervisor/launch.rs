//! What launching one machine takes, as data: what `render` makes and `launch` uses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Files that are opened before the VMM starts, to be read by it, and handed to it under these descriptors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<OpenFile>,
    /// What is asked of the VMM over its API, in this order, for its machine to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) api: Vec<ApiCall>,
    /// Unix sockets that the VMM makes itself, in the node's folder; one that is left from before is in its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) own_sockets: Vec<String>,
    /// Files that the VMM writes from their beginning, in the node's folder; they are there and empty when it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) own_files: Vec<String>,
    /// The file that receives the serial console from its first byte.
    pub(crate) console: String,
    /// Whether the VMM writes the serial console to its stdout, for want of a way to append it to a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) console_is_stdout: bool,
    /// The file that receives the VMM's own output.
    pub(crate) log: String,
    /// Whether the machine goes on where it was saved, so that nothing is seen of a boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) goes_on: bool,
    /// Whether all threads of the VMM share one CPU of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) one_cpu: bool,
    /// For a machine without a VMM, the root directory in which the program is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<RootPlan>,
}

/// A call of a VMM's API, over HTTP or as a command of QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiCall {
    /// `GET`, `PUT` or `PATCH`, or QEMU's `execute`.
    pub(crate) method: String,
    /// The path, from the root, or the command's name.
    pub(crate) path: String,
    /// What is sent, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Value>,
}

/// The root directory of a machine that is namespaces of this host's kernel; names are in the node's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootPlan {
    /// The machine's host name.
    pub(crate) hostname: String,
    /// Directories that lie over each other as the root, the topmost first; what the machine changes stays in memory.
    pub(crate) layers: Vec<String>,
    /// Its disks.
    pub(crate) disks: Vec<DirectoryPlan>,
    /// The file with the id of its boot.
    pub(crate) boot_id: String,
}

/// A directory that stands for a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryPlan {
    /// Its name in the node's folder.
    pub(crate) path: String,
    /// Where the machine finds it.
    pub(crate) at: String,
    /// Whether the machine cannot write to it.
    pub(crate) read_only: bool,
}

/// A file that is open before the VMM runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    /// Its path, from the node's folder.
    pub(crate) path: String,
    /// The descriptor under which the VMM finds it.
    pub(crate) fd: i32,
}

/// A unix socket that listens before the VMM runs, so that connecting never has to wait for the file to appear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListeningSocket {
    /// File name in the node's folder.
    pub(crate) path: String,
    /// The descriptor under which the VMM finds it.
    pub(crate) fd: i32,
}
