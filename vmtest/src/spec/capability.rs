//! What the machines of one backend can do and those of another cannot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The table of capabilities. A new one is a row here and one in the macro's table of the same name; which backends have
/// it says `hypervisor::potential`.
macro_rules! table {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Something that the machines of some backends can do, and that a test can require: see
        /// [`ClusterSpec::requires`](super::ClusterSpec::requires).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Capability {
            $($(#[$doc])* $variant,)*
        }

        impl Capability {
            /// All capabilities.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in `requires(..)`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

table! {
    /// A machine has a kernel of its own, with a command line, and as many CPUs and as much memory as it was given.
    OwnKernel = "own_kernel",
    /// A machine can be told to do something wrong: [`NodeSpec::fake`](super::NodeSpec::fake).
    Faults = "faults",
    /// A machine can run machines itself: [`NodeSpec::nested`](super::NodeSpec::nested).
    Nested = "nested",
    /// A machine has a vsock, by which its host reaches it without a network.
    Vsock = "vsock",
    /// A machine can be saved while it runs, and go back to that: [`Node::snapshot`](crate::Node::snapshot).
    Snapshot = "snapshot",
    /// A machine can be given CPUs and memory while it runs: [`Node::set_cpus`](crate::Node::set_cpus) and
    /// [`Node::set_memory`](crate::Node::set_memory).
    Resize = "resize",
    /// The disks of a machine can be slowed down: [`NodeSpec::disk_rate`](super::NodeSpec::disk_rate) and
    /// [`NodeSpec::disk_iops`](super::NodeSpec::disk_iops).
    DiskRate = "disk_rate",
    /// Disks can be plugged into a machine while it runs: [`Node::attach`](crate::Node::attach).
    Hotplug = "hotplug",
    /// A machine has a device by which its kernel tells that it panics, also where its console shows nothing of it.
    PanicDevice = "panic_device",
    /// A machine has a screen, which can be looked at: [`Node::screenshot`](crate::Node::screenshot).
    Screenshot = "screenshot",
    /// A machine can be started by firmware and the boot loader of its disk: [`NodeSpec::firmware`](super::NodeSpec::firmware).
    Firmware = "firmware",
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
