//! The heap, without what was in it.

#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::slice;

/// The system's allocator, but every block is wiped before it is given back.
///
/// `realloc` is the trait's own, which allocates, copies and gives back: the system's would leave the
/// old block behind as it was.
#[derive(Debug, Default)]
pub struct ZeroingAllocator<A = System>(A);

impl ZeroingAllocator {
    /// Returns the allocator, for a `#[global_allocator]`.
    pub const fn new() -> Self {
        Self(System)
    }
}

// SAFETY: what `A` gives is passed on as it is, and given back to it with the layout it was asked for.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ZeroingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `A`.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this size, and nobody else uses it any more.
        unsafe { block.write_bytes(0, layout.size()) };
        // SAFETY: as above, and all of it has just been written.
        let wiped = unsafe { slice::from_raw_parts(block, layout.size()) };
        // Without a reader the compiler may leave out what is written right before a block is freed.
        zeroize::optimization_barrier(wiped);
        // SAFETY: it came from `A`, with this layout.
        unsafe { self.0.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts the bytes that are not zero in the blocks that it gets back.
    #[derive(Default)]
    struct Witness {
        left: Cell<usize>,
        freed: Cell<usize>,
    }

    // SAFETY: every call is passed on to the system's allocator.
    unsafe impl GlobalAlloc for Witness {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller keeps the contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the tests below fill every block that they allocate.
            let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
            self.left.set(self.left.get() + bytes.iter().filter(|byte| **byte != 0).count());
            self.freed.set(self.freed.get() + layout.size());
            // SAFETY: it came from `System`, with this layout.
            unsafe { System.dealloc(block, layout) }
        }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<u8>(len).unwrap()
    }

    /// Returns a block of `len` bytes, all of them 7.
    fn filled(heap: &impl GlobalAlloc, len: usize) -> *mut u8 {
        // SAFETY: no test asks for an empty block.
        let block = unsafe { heap.alloc(layout(len)) };
        assert!(!block.is_null());
        // SAFETY: the block has this length.
        unsafe { block.write_bytes(7, len) };
        block
    }

    #[test]
    fn freed_block_is_wiped_whatever_its_size() {
        let heap = ZeroingAllocator::<Witness>::default();
        for len in [1, 7, 64, 4096, 48 * 1024, 3 << 20] {
            let block = filled(&heap, len);
            // SAFETY: the block has this layout, and is not used any more.
            unsafe { heap.dealloc(block, layout(len)) };
        }
        assert_eq!(heap.0.left.get(), 0);
        assert_eq!(heap.0.freed.get(), 1 + 7 + 64 + 4096 + 48 * 1024 + (3 << 20));
    }

    #[test]
    fn moved_block_leaves_nothing_where_it_was() {
        for (old, new) in [(64, 4096), (4096, 64), (1 << 20, 2 << 20)] {
            let heap = ZeroingAllocator::<Witness>::default();
            let block = filled(&heap, old);
            // SAFETY: the block has the old layout, and the new size is not zero.
            let moved = unsafe { heap.realloc(block, layout(old), new) };
            assert_eq!((heap.0.freed.get(), heap.0.left.get()), (old, 0));
            // SAFETY: both blocks had these many bytes, and they were copied.
            let kept = unsafe { slice::from_raw_parts(moved, old.min(new)) };
            assert!(kept.iter().all(|byte| *byte == 7));
            // SAFETY: the block has the new layout.
            unsafe { System.dealloc(moved, layout(new)) };
        }
    }

    #[test]
    fn zeroed_block_is_zero() {
        let heap = ZeroingAllocator::new();
        // SAFETY: the layout is not empty.
        let block = unsafe { heap.alloc_zeroed(layout(4096)) };
        // SAFETY: the block has this length and is initialised.
        assert!(unsafe { slice::from_raw_parts(block, 4096) }.iter().all(|byte| *byte == 0));
        // SAFETY: the block has this layout.
        unsafe { heap.dealloc(block, layout(4096)) };
    }
}
