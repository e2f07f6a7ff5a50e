//! Secrets at rest.

mod chunk;
mod cipher;
mod free;
#[cfg(target_os = "linux")]
mod hibernation;

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chunk::{Chunk, Slot};

/// Longest secret that a pool takes; a token has at most 48 KiB.
pub const MAX_SECRET_LEN: usize = 64 * 1024;

/// Room for hundreds of keys within the least limit on locked memory that is common, 64 KiB.
const FIRST_CHUNK_LEN: usize = 32 * 1024;

/// Which memory to keep secrets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecretMemory {
    /// `Memfd` where the kernel has it and the machine cannot hibernate, which it would forbid;
    /// else, and where limits forbid more of it, `Encrypted`.
    #[default]
    Auto,
    /// Memory that the kernel maps for nobody else, itself included, and never swaps out.
    Memfd,
    /// Encrypted under a key of this process; left out of core dumps and, if limits allow it, of the swap.
    Encrypted,
}

impl SecretMemory {
    /// Returns its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Memfd => "memfd",
            Self::Encrypted => "encrypted",
        }
    }
}

/// Which memory secrets are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of them in memory that the kernel maps for nobody else.
    Memfd,
    /// Encrypted, at least some.
    Encrypted,
}

impl Kind {
    /// Returns its name in configuration and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Encrypted => "encrypted",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a pool cannot be made, or cannot keep a secret.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// `Memfd` was asked for, and the kernel has none or limits forbid it.
    #[error("cannot get memory that the kernel maps for nobody else (`memfd_secret`)")]
    Memfd(#[source] io::Error),
    /// The system gives no memory.
    #[error("cannot map memory for secrets")]
    Map(#[source] io::Error),
    /// The system gives no key to encrypt with.
    #[error("the system has no random numbers")]
    Random,
    /// It is longer than [`MAX_SECRET_LEN`].
    #[error("a secret of {len} bytes is longer than {MAX_SECRET_LEN}")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// Keeps secrets at rest, all in one mapping as long as they fit. Clones share it.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: SecretMemory,
    chunks: Mutex<Vec<Arc<Chunk>>>,
}

impl Pool {
    /// Maps the first memory.
    ///
    /// # Errors
    ///
    /// When the memory that was asked for cannot be had. Memory that cannot be locked is no error;
    /// [`Self::is_locked`] tells.
    pub fn new(memory: SecretMemory) -> Result<Self, PoolError> {
        let forbids_memfd = memory == SecretMemory::Auto && hibernation_is_possible();
        let memory = if forbids_memfd { SecretMemory::Encrypted } else { memory };
        let first = map(memory, FIRST_CHUNK_LEN)?;
        Ok(Self(Arc::new(Shared { memory, chunks: Mutex::new(vec![Arc::new(first)]) })))
    }

    /// Returns the memory that secrets are kept in; the weaker, if there are both.
    pub fn kind(&self) -> Kind {
        if self.0.chunks().iter().any(|chunk| chunk.is_sealed()) { Kind::Encrypted } else { Kind::Memfd }
    }

    /// Returns whether all of the memory is kept out of the swap.
    pub fn is_locked(&self) -> bool {
        self.0.chunks().iter().all(|chunk| chunk.is_locked())
    }

    /// Copies a secret into the pool. The caller wipes its own.
    ///
    /// # Errors
    ///
    /// When it is too long, or the system gives no more memory.
    pub fn store(&self, secret: &[u8]) -> Result<Stored, PoolError> {
        if secret.len() > MAX_SECRET_LEN {
            return Err(PoolError::TooLong { len: secret.len() });
        }
        let mut slot = self.0.take(secret.len() + cipher::OVERHEAD)?;
        slot.put(secret);
        Ok(Stored { pool: Arc::clone(&self.0), slot })
    }
}

impl Shared {
    fn chunks(&self) -> MutexGuard<'_, Vec<Arc<Chunk>>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot, from a new mapping if those that there are have no room. Each is as large as all
    /// before it, so that there are few.
    fn take(&self, len: usize) -> Result<Slot, PoolError> {
        let mut chunks = self.chunks();
        if let Some(slot) = chunks.iter().find_map(|chunk| chunk.take(len)) {
            return Ok(slot);
        }
        let held = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        let needed = (2 * len).next_power_of_two();
        let chunk = Arc::new(map(self.memory, held.max(needed))?);
        let slot = chunk.take(len).ok_or_else(|| PoolError::Map(io::ErrorKind::OutOfMemory.into()));
        chunks.push(chunk);
        slot
    }

    /// Takes a slot for work that cannot fail in another way than for lack of memory.
    fn scratch(&self, len: usize) -> Slot {
        self.take(len).unwrap_or_else(|_out_of_memory| handle_alloc_error(layout(len)))
    }
}

fn layout(len: usize) -> Layout {
    Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>())
}

fn map(memory: SecretMemory, len: usize) -> Result<Chunk, PoolError> {
    match memory {
        SecretMemory::Auto => Chunk::secret(len).or_else(|_unavailable| Chunk::sealed(len)),
        SecretMemory::Memfd => Chunk::secret(len).map_err(PoolError::Memfd),
        SecretMemory::Encrypted => Chunk::sealed(len),
    }
}

#[cfg(target_os = "linux")]
fn hibernation_is_possible() -> bool {
    hibernation::is_possible()
}

/// Elsewhere there is no memory that would forbid it.
#[cfg(not(target_os = "linux"))]
fn hibernation_is_possible() -> bool {
    false
}

/// A secret in a [`Pool`], which it keeps alive; wiped when dropped. Compared in constant time.
pub struct Stored {
    pool: Arc<Shared>,
    slot: Slot,
}

impl Stored {
    /// Lets `work` see the secret: where it lies, or opened into the pool's memory and wiped afterwards.
    ///
    /// In a forked child it panics or ends the process, for the secret was not inherited. Work that is
    /// cut short by a panic leaves no secret behind in the pool, either.
    pub fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        self.slot.with(|len| self.pool.scratch(len), work)
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.with(|one| other.with(|other| crate::equal(one, other)))
    }
}

impl Eq for Stored {}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored([REDACTED])")
    }
}
