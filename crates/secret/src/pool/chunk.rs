//! One mapping of a pool, and the slots in it.

#![expect(unsafe_code, reason = "slots share a mapping whose parts the compiler cannot tell apart")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::zeroize_bytes;

use super::PoolError;
use super::cipher::{self, KEY_LEN};
use super::free::Free;
use crate::mapping::Mapping;

/// Slots begin at multiples of this, so that freed room fits the next secret more often.
const UNIT: usize = 64;

/// Memory that slots are taken from.
#[derive(Debug)]
pub(super) struct Chunk {
    mapping: Mapping,
    form: Form,
    locked: bool,
    free: Mutex<Free>,
}

#[derive(Debug)]
enum Form {
    /// As they are, in memory that nobody else can read.
    Plain,
    /// Encrypted, with the key at the start of the mapping.
    Sealed { seals: AtomicU64 },
}

impl Chunk {
    /// Maps memory that the kernel maps for nobody else.
    pub(super) fn secret(len: usize) -> io::Result<Self> {
        let mapping = Mapping::secret(len)?;
        let free = Mutex::new(Free::new(0..len));
        // Such pages are never swapped out.
        Ok(Self { mapping, form: Form::Plain, locked: true, free })
    }

    /// Maps memory in which secrets lie encrypted; locked, if limits allow it.
    pub(super) fn sealed(len: usize) -> Result<Self, PoolError> {
        let mapping = Mapping::private(len).map_err(PoolError::Map)?;
        mapping.wipe_on_fork().map_err(PoolError::Map)?;
        let locked = mapping.lock().is_ok();
        // SAFETY: the mapping is longer than a key, and nobody else knows it yet.
        let key = unsafe { mapping.bytes_mut(0..KEY_LEN) };
        SystemRandom::new().fill(key).map_err(|_unspecified| PoolError::Random)?;
        let free = Mutex::new(Free::new(UNIT..len));
        Ok(Self { mapping, form: Form::Sealed { seals: AtomicU64::new(0) }, locked, free })
    }

    pub(super) fn len(&self) -> usize {
        self.mapping.len()
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.form, Form::Sealed { .. })
    }

    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    /// Takes a slot of `len` bytes, if there is room.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Option<Slot> {
        let start = self.free().take(whole_units(len))?.start;
        Some(Slot { chunk: Arc::clone(self), start, len })
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a sealed chunk; nobody writes to it between the chunk's making and its end.
    fn key(&self) -> &[u8] {
        // SAFETY: it lies inside, and slots begin behind it.
        unsafe { self.mapping.bytes(0..KEY_LEN) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.is_sealed() {
            // SAFETY: it lies inside, and whoever drops a chunk is alone with it.
            zeroize_bytes(unsafe { self.mapping.bytes_mut(0..KEY_LEN) });
        }
    }
}

fn whole_units(len: usize) -> usize {
    len.max(1).next_multiple_of(UNIT)
}

/// Some bytes of a chunk that are nobody else's; wiped when given back.
#[derive(Debug)]
pub(super) struct Slot {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl Slot {
    /// Puts `secret`, which is shorter by [`cipher::OVERHEAD`], into all of the slot.
    pub(super) fn put(&mut self, secret: &[u8]) {
        let chunk = Arc::clone(&self.chunk);
        match &chunk.form {
            Form::Plain => self.bytes_mut().split_at_mut(secret.len()).0.copy_from_slice(secret),
            Form::Sealed { seals } => {
                let serial = seals.fetch_add(1, Ordering::Relaxed);
                cipher::seal(chunk.key(), serial, secret, self.bytes_mut());
            }
        }
    }

    /// Lets `work` see what was put in, for which `scratch` makes a slot of a length if one is needed.
    pub(super) fn with<T>(&self, scratch: impl FnOnce(usize) -> Self, work: impl FnOnce(&[u8]) -> T) -> T {
        let bytes = self.bytes();
        match self.chunk.form {
            Form::Plain => work(bytes.split_at(self.len - cipher::OVERHEAD).0),
            Form::Sealed { .. } => {
                let mut room = scratch(cipher::room_to_open(bytes));
                work(cipher::open(self.chunk.key(), bytes, room.bytes_mut()))
            }
        }
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the range was free until this slot took it, and is written through this slot alone.
        unsafe { self.chunk.mapping.bytes(self.range()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this slot is borrowed by nobody else.
        unsafe { self.chunk.mapping.bytes_mut(self.range()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        zeroize_bytes(self.bytes_mut());
        self.chunk.free().give(self.start..self.start + whole_units(self.len));
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;

    use super::*;

    const LEN: usize = 32 * 1024;
    const SECRET: &[u8] = b"correct horse battery staple";

    fn both() -> [Arc<Chunk>; 2] {
        [Arc::new(Chunk::secret(LEN).unwrap()), Arc::new(Chunk::sealed(LEN).unwrap())]
    }

    fn holding(chunk: &Arc<Chunk>, secret: &[u8]) -> Slot {
        let mut slot = chunk.take(secret.len() + cipher::OVERHEAD).unwrap();
        slot.put(secret);
        slot
    }

    /// All of the chunk's memory that slots may lie in.
    fn memory(chunk: &Chunk) -> &[u8] {
        let start = if chunk.is_sealed() { UNIT } else { 0 };
        // SAFETY: the tests are alone with their chunks.
        unsafe { chunk.mapping.bytes(start..LEN) }
    }

    /// What the kernel says about the chunk's pages.
    fn flags(chunk: &Chunk) -> Vec<String> {
        let start = format!("{:x}-", chunk.mapping.start().as_ptr().addr());
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = ours.filter_map(|line| line.strip_prefix("VmFlags: ")).next().unwrap();
        flags.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn pages_are_left_out_of_dumps_and_of_the_swap() {
        for chunk in both() {
            let flags = flags(&chunk);
            assert!(flags.contains(&"dd".to_owned()), "{flags:?}");
            assert_eq!(chunk.is_locked(), flags.contains(&"lo".to_owned()), "{flags:?}");
        }
    }

    #[test]
    fn children_inherit_no_secret() {
        let [plain, sealed] = both().map(|chunk| flags(&chunk));
        assert!(plain.contains(&"dc".to_owned()), "{plain:?}");
        assert!(sealed.contains(&"wf".to_owned()), "{sealed:?}");
    }

    #[test]
    fn forked_child_finds_zeros_in_place_of_the_key() {
        let chunk = Arc::new(Chunk::sealed(LEN).unwrap());
        let _slot = holding(&chunk, SECRET);
        assert!(chunk.key().iter().any(|byte| *byte != 0));
        // SAFETY: the child only reads memory and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let wiped = chunk.key().iter().chain(memory(&chunk)).all(|byte| *byte == 0);
            // SAFETY: it returns to nobody.
            unsafe { libc::_exit(i32::from(!wiped)) };
        }
        let mut status = -1;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }

    #[test]
    fn sealed_secret_lies_nowhere_in_the_clear() {
        let chunk = Arc::new(Chunk::sealed(LEN).unwrap());
        let slot = holding(&chunk, SECRET);
        let held = |memory: &[u8]| memory.windows(8).any(|bytes| SECRET.windows(8).any(|it| it == bytes));
        assert!(!held(memory(&chunk)));
        let scratch = |len| chunk.take(len).unwrap();
        slot.with(scratch, |bytes| {
            assert_eq!(bytes, SECRET);
            assert!(held(memory(&chunk)), "this test could not fail");
        });
        assert!(!held(memory(&chunk)));
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let chunk = Arc::new(Chunk::sealed(LEN).unwrap());
        let (one, other) = (holding(&chunk, SECRET), holding(&chunk, SECRET));
        assert_ne!(one.bytes(), other.bytes());
    }

    #[test]
    fn dropped_slot_is_wiped_and_its_room_taken_again() {
        for chunk in both() {
            let slot = holding(&chunk, SECRET);
            let start = slot.start;
            assert!(memory(&chunk).iter().any(|byte| *byte != 0));
            drop(slot);
            assert!(memory(&chunk).iter().all(|byte| *byte == 0));
            assert_eq!(holding(&chunk, SECRET).start, start);
        }
    }
}
