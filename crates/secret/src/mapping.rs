//! Memory straight from the operating system.

#![expect(unsafe_code, reason = "memory of our own making is only reached through pointers")]

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

#[cfg(unix)]
use unix as sys;
#[cfg(windows)]
use windows as sys;

/// Pages of this process alone, zero at first. It is given back as it is: who wrote to it wipes it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: whoever reaches into it promises that nobody else is there.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps ordinary memory that is left out of core dumps.
    pub(crate) fn private(len: usize) -> io::Result<Self> {
        let mapping = Self { start: sys::map(len)?, len };
        sys::exclude_from_dumps(&mapping)?;
        Ok(mapping)
    }

    /// Maps memory that not even the kernel maps, that no debugger reads and no child inherits.
    pub(crate) fn secret(len: usize) -> io::Result<Self> {
        let mapping = Self { start: sys::map_secret(len)?, len };
        sys::keep_from_children(&mapping)?;
        Ok(mapping)
    }

    /// Keeps it out of the swap.
    pub(crate) fn lock(&self) -> io::Result<()> {
        sys::lock(self)
    }

    /// Makes it read as zeros in forked children.
    pub(crate) fn wipe_on_fork(&self) -> io::Result<()> {
        sys::wipe_on_fork(self)
    }

    /// Lets every access to the first `len` bytes end the process.
    #[cfg(unix)]
    pub(crate) fn guard(&self, len: usize) -> io::Result<()> {
        sys::guard(self, len)
    }

    #[cfg(unix)]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns a part of it.
    ///
    /// # Safety
    ///
    /// The part lies inside, is not guarded, and nobody else writes to it meanwhile.
    pub(crate) unsafe fn bytes(&self, part: Range<usize>) -> &[u8] {
        debug_assert!(part.end <= self.len);
        // SAFETY: the caller promises that it lies inside.
        let start = unsafe { self.start.add(part.start) };
        // SAFETY: it is initialised, since the system gives zeros; the caller promises the rest.
        unsafe { slice::from_raw_parts(start.as_ptr(), part.len()) }
    }

    /// Returns a part of it, to be written.
    ///
    /// # Safety
    ///
    /// The part lies inside, is not guarded, and nobody else reads or writes it meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub(crate) unsafe fn bytes_mut(&self, part: Range<usize>) -> &mut [u8] {
        debug_assert!(part.end <= self.len);
        // SAFETY: the caller promises that it lies inside.
        let start = unsafe { self.start.add(part.start) };
        // SAFETY: it is initialised, since the system gives zeros; the caller promises the rest.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), part.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        sys::unmap(self);
    }
}
