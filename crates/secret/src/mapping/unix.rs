//! Pages on Unix.

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, MlockFlags, madvise, mlock_with};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::Mapping;

impl Mapping {
    fn address(&self) -> *mut c_void {
        self.start.as_ptr().cast()
    }
}

pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without an address the kernel chooses one where nothing is.
    let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE) }?;
    not_null(start)
}

#[cfg(target_os = "linux")]
pub(super) fn map_secret(len: usize) -> io::Result<NonNull<u8>> {
    use rustix::mm::mmap;

    let file = memfd_secret()?;
    rustix::fs::ftruncate(&file, len as u64)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without an address the kernel chooses one where nothing is.
    let start = unsafe { mmap(null_mut(), len, access, MapFlags::SHARED, &file, 0) }?;
    not_null(start)
}

#[cfg(target_os = "linux")]
fn memfd_secret() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;

    // SAFETY: the call takes flags and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let Some(file) = i32::try_from(answer).ok().filter(|file| *file >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(file) })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn map_secret(_: usize) -> io::Result<NonNull<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn not_null(start: *mut c_void) -> io::Result<NonNull<u8>> {
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

pub(super) fn unmap(mapping: &Mapping) {
    // SAFETY: the pages are ours, and with the mapping goes the last way to reach them.
    let unmapped = unsafe { munmap(mapping.address(), mapping.len) };
    debug_assert!(unmapped.is_ok());
}

/// Locks pages as they are touched, so that room that is not used yet costs no memory.
#[cfg(target_os = "linux")]
pub(super) fn lock(mapping: &Mapping) -> io::Result<()> {
    // SAFETY: the pages are ours, and locking them changes nothing in them.
    Ok(unsafe { mlock_with(mapping.address(), mapping.len, MlockFlags::ONFAULT) }?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn lock(mapping: &Mapping) -> io::Result<()> {
    // SAFETY: the pages are ours, and locking them changes nothing in them.
    Ok(unsafe { rustix::mm::mlock(mapping.address(), mapping.len) }?)
}

pub(super) fn guard(mapping: &Mapping, len: usize) -> io::Result<()> {
    debug_assert!(len <= mapping.len);
    // SAFETY: the pages are ours, and no reference to them exists yet.
    Ok(unsafe { mprotect(mapping.address(), len, MprotectFlags::empty()) }?)
}

#[cfg(target_os = "linux")]
pub(super) fn exclude_from_dumps(mapping: &Mapping) -> io::Result<()> {
    advise(mapping, Advice::LinuxDontDump)
}

#[cfg(target_os = "linux")]
pub(super) fn keep_from_children(mapping: &Mapping) -> io::Result<()> {
    advise(mapping, Advice::LinuxDontFork)
}

#[cfg(target_os = "linux")]
pub(super) fn wipe_on_fork(mapping: &Mapping) -> io::Result<()> {
    advise(mapping, Advice::LinuxWipeOnFork)
}

#[cfg(target_os = "linux")]
fn advise(mapping: &Mapping, advice: Advice) -> io::Result<()> {
    // SAFETY: the pages are ours, and none of the advice given here changes them in this process.
    Ok(unsafe { madvise(mapping.address(), mapping.len, advice) }?)
}

// Other systems have no such advice; there the limit on core dumps has to do.
#[cfg(not(target_os = "linux"))]
pub(super) fn exclude_from_dumps(_: &Mapping) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep_from_children(_: &Mapping) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn wipe_on_fork(_: &Mapping) -> io::Result<()> {
    Ok(())
}
