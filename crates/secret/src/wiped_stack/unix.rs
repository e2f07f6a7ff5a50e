//! Threads on stacks of our own making. Those that the C library makes it also keeps, unwiped.

#![expect(unsafe_code, reason = "a thread on a given stack is only to be had from the C library")]

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;

#[cfg(not(target_vendor = "apple"))]
use libc::pthread_attr_setstack;
use libc::{pthread_attr_t, pthread_t};
use zeroize::zeroize_bytes;

use crate::mapping::Mapping;

#[cfg(target_vendor = "apple")]
unsafe extern "C" {
    /// Missing in `libc`, but in every release of the system.
    fn pthread_attr_setstack(attributes: *mut pthread_attr_t, lowest: *mut c_void, len: usize) -> c_int;
}

/// What threads have elsewhere; pages that are never touched cost nothing until they are wiped.
const STACK_LEN: usize = 1024 * 1024;

/// The largest page that there is.
const GUARD_LEN: usize = 64 * 1024;

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let outcome = Stack::map()?.run(work)?;
    Ok(outcome.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// A stack, wiped when dropped. It is not locked: little memory may be, and the pool needs it longer.
struct Stack(Mapping);

impl Stack {
    fn map() -> io::Result<Self> {
        let mapping = Mapping::private(GUARD_LEN + STACK_LEN)?;
        mapping.guard(GUARD_LEN)?;
        Ok(Self(mapping))
    }

    /// Runs `work` on a thread on this stack.
    fn run<F: FnOnce() -> T + Send, T: Send>(&mut self, work: F) -> io::Result<Outcome<T>> {
        let mut job = Job { work: Some(work), outcome: None };
        self.run_thread(start::<F, T>, (&raw mut job).cast())?;
        job.outcome.ok_or_else(|| io::Error::other("the thread ended early"))
    }

    /// Starts a thread that calls `start(argument)`, and waits for its end.
    fn run_thread(
        &mut self,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> io::Result<()> {
        let mut attributes = self.attributes()?;
        let mut thread = MaybeUninit::<pthread_t>::uninit();
        // SAFETY: all pointers outlive the call; the stack and the argument outlive the thread.
        let created =
            unsafe { libc::pthread_create(thread.as_mut_ptr(), &raw const attributes, start, argument) };
        // SAFETY: they were initialised, and are not used any more.
        let destroyed = unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
        debug_assert_eq!(destroyed, 0);
        succeeded(created)?;
        // SAFETY: it was written when the thread was made.
        let thread = unsafe { thread.assume_init() };
        // SAFETY: it is joined once, and asked for no answer.
        succeeded(unsafe { libc::pthread_join(thread, null_mut()) })
    }

    fn attributes(&self) -> io::Result<pthread_attr_t> {
        let mut attributes = MaybeUninit::<pthread_attr_t>::uninit();
        // SAFETY: the pointer outlives the call.
        succeeded(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: they have just been initialised.
        let mut attributes = unsafe { attributes.assume_init() };
        // SAFETY: the guard lies inside the mapping.
        let lowest = unsafe { self.0.start().add(GUARD_LEN) };
        // SAFETY: the stack is mapped, and used by nobody.
        succeeded(unsafe { pthread_attr_setstack(&raw mut attributes, lowest.as_ptr().cast(), STACK_LEN) })?;
        Ok(attributes)
    }

    fn wipe(&mut self) {
        zeroize_bytes(self.bytes_mut());
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: it lies inside, behind the guard; threads on it have been joined.
        unsafe { self.0.bytes_mut(GUARD_LEN..GUARD_LEN + STACK_LEN) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.wipe();
    }
}

struct Job<F, T> {
    work: Option<F>,
    outcome: Option<Outcome<T>>,
}

extern "C" fn start<F: FnOnce() -> T, T>(job: *mut c_void) -> *mut c_void {
    // SAFETY: `Stack::run` passes its job, and leaves it alone until this thread has ended.
    let job = unsafe { &mut *job.cast::<Job<F, T>>() };
    job.outcome = job.work.take().map(|work| catch_unwind(AssertUnwindSafe(work)));
    null_mut()
}

fn succeeded(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::pin::pin;
    use std::ptr;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::wiped_stack;

    const MARKER: [u8; 16] = *b"a marker, unlike";

    /// Leaves the marker in a frame that is `depth` frames of 1 KiB further down.
    #[inline(never)]
    fn leave_marker(depth: usize) {
        let mut frame = [0_u8; 1024];
        if depth == 0 {
            frame[..MARKER.len()].copy_from_slice(&MARKER);
        } else {
            leave_marker(depth - 1);
        }
        black_box(&mut frame);
    }

    fn holds_marker(stack: &mut Stack) -> bool {
        stack.bytes_mut().windows(MARKER.len()).any(|bytes| bytes == MARKER)
    }

    #[test]
    fn work_runs_on_the_stack() {
        let mut stack = Stack::map().unwrap();
        let address_of_a_local = || {
            let local = black_box(0_u8);
            ptr::from_ref(black_box(&local)).addr()
        };
        let local = stack.run(address_of_a_local).unwrap().unwrap();
        assert!(stack.bytes_mut().as_ptr_range().contains(&ptr::without_provenance(local)));
    }

    #[test]
    fn traces_of_work_are_wiped() {
        let mut stack = Stack::map().unwrap();
        stack.run(|| leave_marker(100)).unwrap().unwrap();
        assert!(holds_marker(&mut stack), "this test could not fail");
        stack.wipe();
        assert!(!holds_marker(&mut stack));
    }

    #[test]
    fn wiping_leaves_nothing_deep_or_shallow() {
        for depth in [0, 1, 10, 60] {
            let mut stack = Stack::map().unwrap();
            stack.run(|| wiped_stack::wiping(|| leave_marker(depth))).unwrap().unwrap();
            assert!(!holds_marker(&mut stack), "{depth}");
        }
    }

    #[test]
    fn polled_future_leaves_nothing() {
        let polled_with_traces = |wipe: bool| {
            let mut stack = Stack::map().unwrap();
            let poll = || {
                let left = async { leave_marker(20) };
                let mut context = Context::from_waker(Waker::noop());
                match wipe {
                    true => pin!(wiped_stack::Wiping::new(left)).poll(&mut context),
                    false => pin!(left).poll(&mut context),
                }
            };
            assert_eq!(stack.run(poll).unwrap().unwrap(), Poll::Ready(()));
            holds_marker(&mut stack)
        };
        assert!(polled_with_traces(false), "this test could not fail");
        assert!(!polled_with_traces(true));
    }

    #[test]
    fn work_returns_its_outcome() {
        let text = String::from("borrowed");
        assert_eq!(wiped_stack::run(|| text.len()).unwrap(), 8);
    }

    #[test]
    #[should_panic(expected = "as it was")]
    fn panic_comes_through_as_it_was() {
        drop(wiped_stack::run(|| panic!("as it was")));
    }
}
