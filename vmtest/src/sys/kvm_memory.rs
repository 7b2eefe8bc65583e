//! One page of memory for the guest of the KVM probe.

use std::{io, num::NonZeroUsize, ptr::NonNull};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::{
    libc::c_void,
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
};

/// The size of a page, of which the probe's guest has one.
const PAGE: usize = 4096;

/// A page that a guest sees at its address 0 for as long as this value lives.
#[derive(Debug)]
pub(crate) struct GuestPage(NonNull<c_void>);

impl GuestPage {
    /// Maps a page, puts the code at its start and shows it to the guest.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn with_code(vm: &VmFd, code: &[u8]) -> io::Result<Self> {
        let size = NonZeroUsize::new(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        if code.len() > PAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let page = Self(unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE)? });
        // SAFETY: the mapping is a writable page of its own and the code, checked above, fits into it.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.0.as_ptr().cast::<u8>(), code.len()) };
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: PAGE as u64,
            userspace_addr: page.0.as_ptr() as u64,
        };
        // SAFETY: the region is the page mapped above, which the caller keeps until the guest has stopped.
        unsafe { vm.set_user_memory_region(region)? };
        Ok(page)
    }
}

impl Drop for GuestPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `with_code` and nothing else unmaps it.
        let unmapped = unsafe { munmap(self.0, PAGE) };
        debug_assert_eq!(unmapped, Ok(()), "a page that was mapped can be unmapped");
    }
}
