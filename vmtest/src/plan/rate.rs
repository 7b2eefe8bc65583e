//! How much a machine sends and receives at most.

use serde::{Deserialize, Serialize};

/// Below this the handshake of SSH, 5 kB each way, takes most of a second.
const MIN_BITS: u64 = 64_000;
/// Beyond this no counter of the kernel is sure to hold what may wait.
const MAX_BITS: u64 = 100_000_000_000;
/// The share of a second's bytes that may pass at once: less, and the kernel's timer would limit high rates further.
const BURSTS_A_SECOND: u64 = 100;
/// The share of a second's bytes that may wait: 50 ms, what routers at the ends of such lines have at least.
const QUEUES_A_SECOND: u64 = 20;
/// Frames that may wait at least: TCP begins with so many (RFC 6928).
const LEAST_FRAMES: u32 = 10;
/// An Ethernet header with a VLAN tag.
const FRAME_HEADER: u32 = 18;

/// A limit for a machine's port, in each direction; what the kernel's `tbf` is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatePlan {
    /// Bits a second.
    pub bits: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
    /// Bytes that may wait to pass; what comes then is dropped.
    pub queue: u32,
    /// The interface through which the machine's own frames are led, because an interface limits only what leaves it.
    pub ifb: String,
}

impl RatePlan {
    /// Whether there can be such a rate.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(bits: u64) -> Result<(), String> {
        if (MIN_BITS..=MAX_BITS).contains(&bits) {
            return Ok(());
        }
        Err(format!("a `rate` of {bits} bits a second: it can be {MIN_BITS} to {MAX_BITS}"))
    }

    /// For an interface of a network with this MTU; `place` ends the names of its links.
    pub(super) fn new(bits: u64, mtu: u32, place: &str) -> Self {
        let frame = mtu.saturating_add(FRAME_HEADER);
        let bytes = bits / 8;
        let at_least = |bytes: u64, least: u32| u32::try_from(bytes).unwrap_or(u32::MAX).max(least);
        Self {
            bits,
            burst: at_least(bytes / BURSTS_A_SECOND, frame),
            queue: at_least(bytes / QUEUES_A_SECOND, frame.saturating_mul(LEAST_FRAMES)),
            ifb: format!("ifb{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_whole_frames_pass() {
        let plan = |bits, burst, queue| RatePlan { bits, burst, queue, ifb: "ifb3".into() };
        assert_eq!(RatePlan::new(64_000, 1500, "3"), plan(64_000, 1518, 15_180));
        assert_eq!(RatePlan::new(10_000_000, 1500, "3"), plan(10_000_000, 12_500, 62_500));
        assert_eq!(RatePlan::new(10_000_000, 65_521, "3"), plan(10_000_000, 65_539, 655_390));
        assert_eq!(RatePlan::new(MAX_BITS, 1500, "3"), plan(MAX_BITS, 125_000_000, 625_000_000));
        for bits in [0, MIN_BITS - 1, MAX_BITS + 1] {
            assert!(RatePlan::check(bits).unwrap_err().contains("it can be 64000 to 100000000000"));
        }
    }
}
