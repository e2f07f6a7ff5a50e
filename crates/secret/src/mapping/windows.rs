//! Pages on Windows, which neither forks nor dumps a process that does not ask for it.

use std::io;
use std::ptr::{NonNull, null};

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, VirtualAlloc, VirtualFree, VirtualLock,
};

use super::Mapping;

pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: without an address the system chooses one where nothing is.
    let start = unsafe { VirtualAlloc(null(), len, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE) };
    NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)
}

pub(super) fn map_secret(_: usize) -> io::Result<NonNull<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn unmap(mapping: &Mapping) {
    // SAFETY: the pages are ours, and with the mapping goes the last way to reach them.
    let freed = unsafe { VirtualFree(mapping.start.as_ptr().cast(), 0, MEM_RELEASE) };
    debug_assert_ne!(freed, 0);
}

pub(super) fn lock(mapping: &Mapping) -> io::Result<()> {
    // SAFETY: the pages are ours, and locking them changes nothing in them.
    match unsafe { VirtualLock(mapping.start.as_ptr().cast(), mapping.len) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(super) fn exclude_from_dumps(_: &Mapping) -> io::Result<()> {
    Ok(())
}

pub(super) fn keep_from_children(_: &Mapping) -> io::Result<()> {
    Ok(())
}

pub(super) fn wipe_on_fork(_: &Mapping) -> io::Result<()> {
    Ok(())
}
