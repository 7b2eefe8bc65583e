//! Making a tap, for which the kernel has an ioctl and no netlink message.

use std::{fs::File, io, os::fd::AsRawFd};

use nix::libc;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, libc::TUNSETPERSIST);

/// Makes a tap of this name in the calling thread's network namespace, which stays when the descriptor is closed.
///
/// It has a virtio header, so that a VMM can pass offloaded packets through it, and one queue: Firecracker and QEMU
/// open it by its name and refuse one whose flags differ from theirs.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, `EBUSY` for a name that is taken.
pub(crate) fn make_persistent_tap(device: &File, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for the whole call and `request` is a valid, zero-terminated ifreq.
    unsafe { tun_set_iff(device.as_raw_fd(), &request)? };
    // SAFETY: the descriptor is open and attached to the tap made above; the argument is a plain integer.
    unsafe { tun_set_persist(device.as_raw_fd(), 1)? };
    Ok(())
}
