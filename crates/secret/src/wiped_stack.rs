//! Work on secrets, and no trace of it on a stack.
//!
//! What a function leaves below its caller's frame stays there until something else is written over it,
//! and the threads of a runtime seldom go that deep again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use zeroize::zeroize_stack;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as sys;

/// Twice as deep as an exchange over TLS was seen to go: 52 KiB, or 154 KiB without optimisation.
const DEPTH: usize = if cfg!(debug_assertions) { 320 * 1024 } else { 128 * 1024 };

/// Runs `work` on a stack of its own, waits for it, and wipes the stack.
///
/// What `work` takes by value, and what it returns, also lies in the caller's frame: secrets go in and
/// out by reference.
///
/// # Errors
///
/// When the system gives no memory for a stack, or no thread.
///
/// # Panics
///
/// When `work` does.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    sys::run(work)
}

/// Runs `work` on this stack, then wipes what it and its calls left there, as far as work goes down.
///
/// As much stack must be left: 128 KiB, or 320 KiB without optimisation. A panic leaves it as it is.
pub fn wiping<T>(work: impl FnOnce() -> T) -> T {
    wiping_below::<DEPTH, T>(work)
}

pub(crate) fn wiping_below<const LEN: usize, T>(work: impl FnOnce() -> T) -> T {
    let outcome = in_a_frame_of_its_own(work);
    zeroize_stack::<LEN>();
    outcome
}

/// Keeps the frame of `work` out of the caller's, which is not wiped.
#[inline(never)]
fn in_a_frame_of_its_own<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// A future that leaves nothing on the stack of the thread that polls it.
#[derive(Debug)]
pub struct Wiping<F>(Pin<Box<F>>);

impl<F: Future> Wiping<F> {
    /// Wraps `future`, whose state moves to the heap.
    pub fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Wiping<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        wiping(|| self.0.as_mut().poll(context))
    }
}

#[cfg(windows)]
mod sys {
    use std::{io, panic, thread};

    const STACK_LEN: usize = 1024 * 1024;

    /// A part of it is in use when the rest is wiped.
    const WIPED_LEN: usize = STACK_LEN - 64 * 1024;

    /// Windows places stacks itself, and gives them back with the thread.
    pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let wiped = || super::wiping_below::<WIPED_LEN, T>(work);
            let thread = thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, wiped)?;
            Ok(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
        })
    }
}
