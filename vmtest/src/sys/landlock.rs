//! Asking for Landlock, for which there is no wrapper.

use nix::libc;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;

/// The version of the Landlock interface of this kernel; `None` where it has none, or it is switched off.
pub(crate) fn landlock_version() -> Option<u32> {
    // SAFETY: with this flag the kernel takes no pointer and makes nothing; it returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    u32::try_from(version).ok()
}
