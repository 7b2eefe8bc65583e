//! Random numbers of the kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// This many random bytes.
///
/// # Errors
/// What the kernel says.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // Fewer than 256 bytes come all at once, or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}
