//! QEMU: with KVM where it runs guest code, else by emulation, which runs anywhere.

mod commands;
mod hotplug;
mod machine;
mod probe;
mod qmp;
mod render;
mod saving;
mod sizes;

pub(super) use machine::Qemu;
use probe::{QemuFacts, probe};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor, through the kernel.
    Kvm,
    /// QEMU's own translation.
    Tcg,
}
