//! What tells images apart.

use blake3::Hash;

/// How many hexadecimal digits of a hash are a key: there is a chance of one in a million that two of six million images are alike.
const DIGITS: usize = 16;

/// The key of what has this hash.
pub(crate) fn short(hash: Hash) -> String {
    hash.to_hex()[..DIGITS].to_owned()
}
