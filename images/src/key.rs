//! What tells images apart.

use blake3::{Hash, Hasher};

/// How many hexadecimal digits of a hash are a key: a chance of one in a million that among six million images two are alike.
const DIGITS: usize = 16;

/// The key of what has this hash.
pub(crate) fn short(hash: Hash) -> String {
    hash.to_hex()[..DIGITS].to_owned()
}

/// The key of what a hasher was given.
pub(crate) fn short_of(hasher: &Hasher) -> String {
    short(hasher.finalize())
}
