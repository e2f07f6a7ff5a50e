//! What wiping costs: `cargo bench -p dph-agent-secret`.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(unsafe_code, reason = "allocators are called by hand")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::{Duration, Instant};

use dph_agent_secret::{Pool, SecretMemory, ZeroingAllocator, wiped_stack};

const ROUNDS: u32 = 20_000;

fn main() {
    println!("allocate, write and free, beside the system's allocator");
    for len in [64, 1024, 16 * 1024, 64 * 1024, 1024 * 1024] {
        let (system, zeroing) = (churn(&System, len), churn(&ZeroingAllocator::new(), len));
        println!("{len:>8} bytes  {system:>10.1?}  {zeroing:>10.1?}  {:.2}", ratio(zeroing, system));
    }
    for memory in [SecretMemory::Memfd, SecretMemory::Encrypted] {
        let Ok(pool) = Pool::new(memory) else { continue };
        for len in [50, 2048, 48 * 1024] {
            let Ok(stored) = pool.store(&vec![1; len]) else { continue };
            let seen = each(|| stored.with(|bytes| assert_eq!(black_box(bytes).len(), len)));
            println!("{} of {len} bytes seen in {seen:.1?}", pool.kind());
        }
    }
    let nothing = || assert!(black_box(true));
    println!("the stack wiped after a call: {:.1?}", each(|| wiped_stack::wiping(nothing)));
    println!("a stack of its own: {:.1?}", each(|| assert!(wiped_stack::run(nothing).is_ok())));
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn churn(heap: &impl GlobalAlloc, len: usize) -> Duration {
    let layout = Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>());
    each(|| {
        // SAFETY: the layout is not empty.
        let block = unsafe { heap.alloc(layout) };
        assert!(!block.is_null());
        // SAFETY: the block has this length.
        unsafe { block.write_bytes(1, len) };
        black_box(block);
        // SAFETY: the block has this layout, and is not used any more.
        unsafe { heap.dealloc(block, layout) };
    })
}

/// Returns the least mean of ten rounds.
fn each(work: impl Fn()) -> Duration {
    let round = || {
        let start = Instant::now();
        (0..ROUNDS / 10).for_each(|_| work());
        start.elapsed() / (ROUNDS / 10)
    };
    (0..10).map(|_| round()).min().unwrap_or_default()
}
