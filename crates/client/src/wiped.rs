//! Bytes that may hold a secret.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};

/// Bytes that are wiped on drop, all at once: one by one, as `zeroize` does it, takes longer than
/// all else that a token request does. Growing beyond the capacity leaves a copy behind.
pub(crate) struct Wiped(pub(crate) Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        let capacity = self.0.capacity();
        self.0.clear();
        self.0.resize(capacity, 0);
        // Nobody reads the zeros, so without this the compiler would leave them out.
        black_box(&mut self.0);
    }
}

impl Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
