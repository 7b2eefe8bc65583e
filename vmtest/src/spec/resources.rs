//! What machines take from their host.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign},
};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// An amount of each thing of which a host has only so much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Room on disk in bytes.
    pub disk: u64,
}

impl Resources {
    /// Nothing of anything.
    pub const NONE: Self = Self { memory: 0, cpus: 0, disk: 0 };

    /// What is left of it without the other; nothing where the other is more.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            cpus: self.cpus.saturating_sub(other.cpus),
            disk: self.disk.saturating_sub(other.disk),
        }
    }

    /// Whether the other has as much of everything.
    #[must_use]
    pub fn fits_in(self, other: Self) -> bool {
        self.without(other) == Self::NONE
    }

    /// What it has of those things of which the other has some.
    #[must_use]
    pub fn of_what(self, other: Self) -> Self {
        Self {
            memory: if other.memory > 0 { self.memory } else { 0 },
            cpus: if other.cpus > 0 { self.cpus } else { 0 },
            disk: if other.disk > 0 { self.disk } else { 0 },
        }
    }

    /// So many times it.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self {
            memory: self.memory.saturating_mul(count.into()),
            cpus: self.cpus.saturating_mul(count),
            disk: self.disk.saturating_mul(count.into()),
        }
    }
}

impl Add for Resources {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cpus: self.cpus.saturating_add(other.cpus),
            disk: self.disk.saturating_add(other.disk),
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::NONE, Add::add)
    }
}

/// `768 MiB of memory, 3 CPUs`: what there is none of is left out.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
        let memory = (self.memory > 0).then(|| format!("{} of memory", size(self.memory)));
        let cpus = (self.cpus > 0).then(|| format!("{} CPU{}", self.cpus, if self.cpus == 1 { "" } else { "s" }));
        let disk = (self.disk > 0).then(|| format!("{} of disk", size(self.disk)));
        let parts: Vec<_> = [memory, cpus, disk].into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A size with its unit, such as `1.5GiB`, in bytes. A bare number is none: nobody can tell its unit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let size = text.parse().ok().filter(|_| text.contains(|c: char| c.is_ascii_alphabetic()));
    size.map(|size: ByteSize| size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_has_less_of_everything() {
        let host = Resources { memory: 8 << 30, cpus: 8, disk: 1 << 40 };
        assert!(host.fits_in(host) && Resources::NONE.fits_in(host));
        for more in [
            Resources { memory: 9 << 30, ..Resources::NONE },
            Resources { cpus: 9, ..Resources::NONE },
            Resources { disk: 2 << 40, ..Resources::NONE },
        ] {
            assert!(!more.fits_in(host), "{more}");
        }
    }

    #[test]
    fn people_read_what_there_is() {
        assert_eq!(Resources { memory: 768 << 20, cpus: 3, disk: 0 }.to_string(), "768.0 MiB of memory, 3 CPUs");
        assert_eq!(Resources { memory: 0, cpus: 1, disk: 8 << 30 }.to_string(), "1 CPU, 8.0 GiB of disk");
        assert_eq!(Resources::NONE.to_string(), "nothing");
    }

    #[test]
    fn too_much_stays_too_much() {
        let all = Resources { memory: u64::MAX, cpus: u32::MAX, disk: u64::MAX };
        assert_eq!(all + all, all);
        assert_eq!(all.times(3), all);
    }
}
