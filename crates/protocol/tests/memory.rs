//! Decoding allocates in proportion to the bytes that are there, whatever they claim, and no memory
//! that is given back holds a secret.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "an allocator that looks on is an unsafe trait")]

mod samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use dph_agent_protocol::frame::HEADER_LEN;
use dph_agent_protocol::{MAX_TOKEN_LEN, Reply, Request, Secret, TokenRequest};
use proptest::collection::vec;
use proptest::prelude::*;

/// What a list may claim before its elements are read, as much again for those, and a text or two.
const MEMORY_PER_BYTE: usize = 2 * 24 + 2;

proptest! {
    #[test]
    fn arbitrary_bytes_allocate_in_proportion_to_their_number(body in vec(any::<u8>(), 0..100)) {
        check(&body)?;
    }

    /// Gets behind the fields that come before a list, which chance alone seldom does.
    #[test]
    fn golden_bodies_with_a_wild_length_allocate_in_proportion_to_their_number(
        sample: prop::sample::Index,
        at: prop::sample::Index,
        width in 0..3_usize,
        claim: [u8; 8],
    ) {
        let samples = samples::samples();
        let frame = sample.get(&samples).1.to_frame();
        let (before, _) = frame[HEADER_LEN..].split_at(at.index(frame.len() - HEADER_LEN + 1));
        check(&[before, &[0xfb + u8::try_from(width).unwrap()], &claim[..2 << width]].concat())?;
    }
}

fn check(body: &[u8]) -> Result<(), TestCaseError> {
    for (kind, name) in Request::KINDS {
        let allocated = allocated_by(|| Request::from_body(*kind, body).is_ok());
        prop_assert!(allocated <= MEMORY_PER_BYTE * body.len(), "{} took {}", name, allocated);
    }
    for (kind, name) in Reply::KINDS {
        let allocated = allocated_by(|| Reply::from_body(*kind, body).is_ok());
        prop_assert!(allocated <= MEMORY_PER_BYTE * body.len(), "{} took {}", name, allocated);
    }
    Ok(())
}

/// Returns how many bytes `work` asked for in all, those that it gave back included.
fn allocated_by<T>(work: impl FnOnce() -> T) -> usize {
    let before = ALLOCATED.get();
    drop(work());
    ALLOCATED.get() - before
}

const SECRET: &str = "correct-horse-battery-staple";

fn secret() -> Secret {
    Secret::new(SECRET.to_owned())
}

fn long_secret() -> Secret {
    let mut text = String::with_capacity(MAX_TOKEN_LEN);
    text.extend(std::iter::repeat_n('x', MAX_TOKEN_LEN - SECRET.len()));
    text.push_str(SECRET);
    Secret::new(text)
}

/// Returns whether memory that `work` gave back held the secret.
fn leaks(work: impl FnOnce()) -> bool {
    LEAKED.set(false);
    work();
    LEAKED.get()
}

#[test]
fn secret_in_memory_that_is_given_back_is_noticed() {
    assert!(leaks(|| drop(SECRET.to_owned())));
    assert!(!leaks(|| drop(secret())));
}

#[test]
fn message_with_a_secret_leaves_none_in_memory() {
    for rejected in [secret(), long_secret()] {
        let request = Request::Token(TokenRequest { rejected: Some(rejected), ..TokenRequest::default() });
        let (mut frame, mut read) = (None, None);
        assert!(!leaks(|| frame = request.to_frame().ok()), "writing it");
        let body = &frame.as_ref().unwrap()[HEADER_LEN..];
        assert!(!leaks(|| read = Request::from_body(request.kind(), body).ok()), "reading it");
        assert!(read.as_ref() == Some(&request));
        assert!(!leaks(|| drop((request, frame, read))), "dropping it");
    }
}

#[test]
fn secret_in_a_body_that_cannot_be_read_is_wiped() {
    let request = Request::Token(TokenRequest { rejected: Some(secret()), ..TokenRequest::default() });
    let mut frame = request.to_frame().unwrap();
    let truncated = &frame[HEADER_LEN..frame.len() - 1];
    assert!(!leaks(|| assert!(Request::from_body(request.kind(), truncated).is_err())));

    let at = frame.windows(SECRET.len()).position(|bytes| bytes == SECRET.as_bytes()).unwrap();
    // The secret and one byte more, which no UTF-8 has.
    frame[at - 1] += 1;
    frame[at + SECRET.len()] = 0xff;
    let not_text = &frame[HEADER_LEN..];
    assert!(!leaks(|| assert!(Request::from_body(request.kind(), not_text).is_err())));
}

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    static LEAKED: Cell<bool> = const { Cell::new(false) };
}

struct Watching;

#[global_allocator]
static WATCHING: Watching = Watching;

// SAFETY: every call is passed on to the system's allocator; looking on allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // Zeroed, so that `dealloc` may look at what was never written, too.
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc`, nobody uses it any more, and all of it is initialised.
        let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
        if block.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()) {
            LEAKED.set(true);
        }
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
