//! Secrets as they lie in memory that others might read: ChaCha20-Poly1305.

#![expect(clippy::expect_used, reason = "only a pool's own memory is opened, and its bounds are known")]

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::wiped_stack;

/// Length of a key.
pub(super) const KEY_LEN: usize = 32;

/// Length of what proves that a text is as it was sealed.
const TAG_LEN: usize = 16;

/// By how much a sealed secret is longer than the secret.
pub(super) const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// More stack than the cipher uses; it leaves its key there, and the ends of texts.
const STACK_LEN: usize = 16 * 1024;

/// Seals `secret` into all of `into`, which is longer by [`OVERHEAD`].
///
/// A `serial` must not come twice with one key; a count does that better than chance.
pub(super) fn seal(key: &[u8], serial: u64, secret: &[u8], into: &mut [u8]) {
    let (head, tail) = into.split_at_mut(NONCE_LEN);
    let (text, tag) = tail.split_at_mut(secret.len());
    head.split_at_mut(size_of::<u64>()).0.copy_from_slice(&serial.to_le_bytes());
    text.copy_from_slice(secret);
    wiped_stack::wiping_below::<STACK_LEN, _>(|| {
        let sealed = cipher(key).seal_in_place_separate_tag(nonce(head), Aad::empty(), text);
        tag.copy_from_slice(sealed.expect("a pool's secrets are shorter than the cipher allows").as_ref());
    });
}

/// Returns how much room it takes to open `sealed`.
pub(super) fn room_to_open(sealed: &[u8]) -> usize {
    sealed.len() - NONCE_LEN
}

/// Opens `sealed` in `room`, and returns the part of it that is the secret.
pub(super) fn open<'room>(key: &[u8], sealed: &[u8], room: &'room mut [u8]) -> &'room [u8] {
    let (head, tail) = sealed.split_at(NONCE_LEN);
    room.copy_from_slice(tail);
    wiped_stack::wiping_below::<STACK_LEN, _>(|| {
        let opened = cipher(key).open_in_place(nonce(head), Aad::empty(), room);
        opened.expect("nothing but a pool writes to its memory")
    })
}

fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the cipher's length"))
}

fn nonce(head: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(head).expect("the head is as long as a nonce")
}
