//! What can be read of a process that handles secrets, seen from its parent.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::any::Any;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use dph_agent_secret::{
    Kind, MAX_SECRET_LEN, Pool, PoolError, SecretMemory, Stored, ZeroingAllocator, scan, wiped_stack,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

#[global_allocator]
static HEAP: ZeroingAllocator = ZeroingAllocator::new();

/// Names the part that this test binary plays when it was started by itself.
const PART: &str = "DPH_AGENT_SECRET_PART";

const MARKER_LEN: usize = 40;

/// Not a test: the other process.
#[test]
fn other_process() {
    let Ok(part) = std::env::var(PART) else { return };
    match part.as_str() {
        "no-limit-left" => with_nothing_locked(),
        "small-limit" => with_little_locked(),
        part => handle_a_secret(part),
    }
}

/// Takes the marker from standard input, does with it what `part` says, and stays until the input ends.
fn handle_a_secret(part: &str) {
    let mut marker = vec![0; MARKER_LEN];
    assert_eq!(rustix::io::read(rustix::stdio::stdin(), &mut *marker).unwrap(), MARKER_LEN);
    let stored = |memory, marker: Vec<u8>| Pool::new(memory).unwrap().store(&marker).unwrap();
    let held: Box<dyn Any> = match part {
        "heap" => Box::new(marker),
        "memfd" => Box::new(stored(SecretMemory::Memfd, marker)),
        "encrypted" => Box::new(stored(SecretMemory::Encrypted, marker)),
        "used" => Box::new(used(stored(SecretMemory::Encrypted, marker))),
        "moved" => moved(marker),
        "stack" => copied_to_a_stack(marker),
        part => panic!("there is no part {part}"),
    };
    rustix::io::write(rustix::stdio::stderr(), b"ready\n").unwrap();
    assert_eq!(rustix::io::read(rustix::stdio::stdin(), &mut [0]).unwrap(), 0);
    drop(held);
}

fn used(stored: Stored) -> Stored {
    (0..100).for_each(|_| stored.with(|bytes| assert_eq!(black_box(bytes).len(), MARKER_LEN)));
    stored
}

/// Moves the marker from block to block.
fn moved(mut marker: Vec<u8>) -> Box<dyn Any> {
    for len in 6..22 {
        marker.resize(1 << len, 0);
        black_box(&mut marker);
    }
    marker.truncate(MARKER_LEN);
    marker.shrink_to_fit();
    drop(black_box(marker));
    Box::new(())
}

fn copied_to_a_stack(marker: Vec<u8>) -> Box<dyn Any> {
    let copy = || {
        let copy: [u8; MARKER_LEN] = marker.as_slice().try_into().unwrap();
        black_box(&copy);
    };
    wiped_stack::run(copy).unwrap();
    Box::new(())
}

/// A process that plays a part, and ends with this value.
struct Other(Child);

impl Other {
    fn playing(part: &str, marker: &[u8]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut other = Self(child.unwrap());
        other.0.stdin.as_mut().unwrap().write_all(marker).unwrap();
        let mut line = String::new();
        BufReader::new(other.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        other
    }

    fn scan(&self, needle: &[u8]) -> scan::Scan {
        let scan = scan::process(self.0.id(), &[needle]).unwrap();
        assert!(scan.read > 1 << 20, "hardly anything was read: {scan:?}");
        scan
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let ended = self.0.wait().unwrap();
        assert!(ended.success() || std::thread::panicking(), "{ended}");
    }
}

/// Returns bytes that are in no other memory, and change with `salt`.
fn marker(salt: u8) -> Vec<u8> {
    let start = (u64::from(std::process::id()) << 8 | u64::from(salt)) | 1;
    let next =
        |it: &u64| Some(it.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    let words = std::iter::successors(Some(start), next).skip(8);
    words.map(|word| word.to_be_bytes()[0] | 1).take(MARKER_LEN).collect()
}

#[test]
fn marker_in_plain_memory_is_found() {
    let marker = marker(1);
    let scan = Other::playing("heap", &marker).scan(&marker);
    assert!(scan.found.iter().any(|it| it.len == MARKER_LEN && it.mapping.contains("rw")), "{scan:?}");
}

#[test]
fn marker_in_the_pool_is_not_found() {
    for (salt, part) in [(2, "encrypted"), (3, "used"), (4, "memfd")] {
        if part == "memfd" && Pool::new(SecretMemory::Memfd).is_err() {
            eprintln!("SKIPPED: this kernel has no memfd_secret");
            continue;
        }
        let marker = marker(salt);
        let scan = Other::playing(part, &marker).scan(&marker);
        assert_eq!(scan.found, [], "{part}");
        let refused = scan.unreadable.iter().any(|(mapping, _)| mapping.contains("secretmem"));
        assert_eq!(refused, part == "memfd", "{part}: {:?}", scan.unreadable);
    }
}

#[test]
fn block_that_was_moved_and_freed_leaves_nothing() {
    let marker = marker(5);
    assert_eq!(Other::playing("moved", &marker).scan(&marker).found, []);
}

#[test]
fn stack_of_its_own_leaves_nothing() {
    let marker = marker(6);
    assert_eq!(Other::playing("stack", &marker).scan(&marker).found, []);
}

#[test]
fn pool_works_where_no_memory_may_be_locked() {
    drop(Other::playing("no-limit-left", &[]));
}

fn with_nothing_locked() {
    limit_locked_memory(0);
    let pool = Pool::new(SecretMemory::Auto).unwrap();
    assert_eq!((pool.kind(), pool.is_locked()), (Kind::Encrypted, false));
    pool.store(b"key").unwrap().with(|bytes| assert_eq!(bytes, b"key"));
    assert!(matches!(Pool::new(SecretMemory::Memfd), Err(PoolError::Memfd(_))));
    rustix::io::write(rustix::stdio::stderr(), b"ready\n").unwrap();
}

#[test]
fn pool_grows_beyond_what_may_be_locked_unless_that_was_asked_for() {
    drop(Other::playing("small-limit", &[]));
}

fn with_little_locked() {
    limit_locked_memory(64 * 1024);
    let pool = Pool::new(SecretMemory::Auto).unwrap();
    let (key, kind) = (pool.store(b"key").unwrap(), pool.kind());
    let token = pool.store(&[7; MAX_SECRET_LEN]).unwrap();
    assert_eq!((pool.kind(), pool.is_locked()), (Kind::Encrypted, false));
    key.with(|bytes| assert_eq!(bytes, b"key"));
    token.with(|bytes| assert_eq!(bytes, [7; MAX_SECRET_LEN]));
    drop((pool, key, token));

    if kind == Kind::Memfd {
        let pool = Pool::new(SecretMemory::Memfd).unwrap();
        assert!(matches!(pool.store(&[7; MAX_SECRET_LEN]), Err(PoolError::Memfd(_))));
        assert_eq!((pool.kind(), pool.is_locked()), (Kind::Memfd, true));
    }
    rustix::io::write(rustix::stdio::stderr(), b"ready\n").unwrap();
}

fn limit_locked_memory(len: u64) {
    // Root may lock what it likes unless it gives that up.
    let mut rights = capabilities(None).unwrap();
    rights.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, rights).unwrap();
    setrlimit(Resource::Memlock, Rlimit { current: Some(len), maximum: Some(len) }).unwrap();
}
