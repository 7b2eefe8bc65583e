//! What a machine of cloud-hypervisor is made of, in the words of its API: the part of them that we use.

use serde::Serialize;

/// The body of `vm.create`.
#[derive(Debug, Serialize)]
pub(super) struct VmConfig {
    pub(super) cpus: Cpus,
    pub(super) memory: Memory,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) balloon: Option<Balloon>,
    pub(super) payload: Payload,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) disks: Vec<Disk>,
    pub(super) net: Vec<Net>,
    pub(super) rng: Rng,
    pub(super) serial: Console,
    pub(super) console: Console,
    pub(super) vsock: Vsock,
    /// A device by which the guest's kernel tells that it panics.
    pub(super) pvpanic: bool,
    pub(super) landlock_enable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) landlock_rules: Vec<LandlockRule>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cpus {
    pub(super) boot_vcpus: u32,
    pub(super) max_vcpus: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// In bytes.
    pub(super) size: u64,
}

/// Holds the part of the memory that the guest is not to have.
#[derive(Debug, Serialize)]
pub(super) struct Balloon {
    /// In bytes.
    pub(super) size: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Payload {
    pub(super) kernel: String,
    pub(super) initramfs: String,
    pub(super) cmdline: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Disk {
    /// Its name, for one that is pulled out later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) path: String,
    pub(super) readonly: bool,
    /// Always given: a format that is guessed is one that a guest can change by what it writes.
    pub(super) image_type: ImageType,
    /// Whether what the guest discards is given back to the host, which from v51 on is asked of every disk unless told.
    pub(super) sparse: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limiter_config: Option<RateLimiter>,
}

/// What a disk can do in one go before it waits, and how fast it can again.
#[derive(Debug, Serialize)]
pub(super) struct RateLimiter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bandwidth: Option<TokenBucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ops: Option<TokenBucket>,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenBucket {
    /// Bytes or operations.
    pub(super) size: u64,
    /// In milliseconds, after which it is full again.
    pub(super) refill_time: u64,
}

#[derive(Debug, Serialize)]
pub(super) enum ImageType {
    Raw,
}

#[derive(Debug, Serialize)]
pub(super) struct Net {
    pub(super) tap: String,
    pub(super) mac: String,
    /// The address that the VMM gives the tap, for versions that give it one in any case.
    #[serde(flatten)]
    pub(super) address: Option<TapAddress>,
}

#[derive(Debug, Serialize)]
pub(super) struct TapAddress {
    pub(super) ip: String,
    pub(super) mask: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Rng {
    pub(super) src: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Console {
    pub(super) mode: ConsoleMode,
}

#[derive(Debug, Serialize)]
pub(super) enum ConsoleMode {
    /// The VMM's stdout.
    Tty,
    Off,
}

#[derive(Debug, Serialize)]
pub(super) struct Vsock {
    pub(super) cid: u64,
    pub(super) socket: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LandlockRule {
    pub(super) path: String,
    /// Of the letters `r` and `w`.
    pub(super) access: String,
}
