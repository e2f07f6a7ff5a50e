//! Memory for secrets: the one home of unsafe code that keeps them out of sight.
//!
//! - [`ZeroingAllocator`] wipes every block of the heap before it is given back.
//! - [`Pool`] keeps secrets at rest in memory that the kernel maps for nobody else, or encrypted.
//! - [`wiped_stack`] runs work on a stack that is wiped afterwards.
//! - `scan`, behind the feature of that name, looks for what is left of a secret in a process.

#![deny(unsafe_op_in_unsafe_fn)]

mod allocator;
mod mapping;
mod pool;
#[cfg(all(feature = "scan", target_os = "linux"))]
pub mod scan;
pub mod wiped_stack;

pub use allocator::ZeroingAllocator;
pub use pool::{Kind, MAX_SECRET_LEN, Pool, PoolError, SecretMemory, Stored};

/// Returns whether two texts are the same, in a time that does not tell where they differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(one, other).into()
}
