//! Descriptors that the runtime watches.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Has the current runtime watch the descriptor for being readable.
///
/// # Errors
/// What the kernel says, for a descriptor that cannot be polled.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and names the same file for as long as it lives, and the result owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}
