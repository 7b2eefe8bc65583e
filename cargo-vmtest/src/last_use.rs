//! How long ago something in the cache was used.

use std::time::{Duration, SystemTime};

/// How long nobody has used it since then, in seconds since 1970.
pub(crate) fn not_used_for(used: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(used))
}

/// The same for people, in the largest unit that says enough.
pub(crate) fn age(used: u64) -> String {
    match not_used_for(used).as_secs() / 60 {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes @ 120..2880 => format!("{} h", minutes / 60),
        minutes => format!("{} days", minutes / 1440),
    }
}
