//! A key at rest: in memory that nobody else can read, and in the clear only while it is used.

use std::fmt;

use dph_agent_platform::ApiKey;
use dph_agent_protocol::{ErrorCode, SecretMemory};
use dph_agent_secret::{Kind, Pool, PoolError, Stored, equal};

use crate::error::{Chain, Problem};

/// A key in the pool.
pub struct KeptKey(Stored);

impl KeptKey {
    /// Copies a key into the pool.
    ///
    /// # Errors
    ///
    /// When the system gives no memory for it.
    pub fn new(pool: &Pool, key: &ApiKey) -> Result<Self, Problem> {
        pool.store(key.expose().as_bytes()).map(Self).map_err(|error| no_room(&error))
    }

    /// Returns the key in the clear, for one use.
    pub fn expose(&self) -> ApiKey {
        // What was stored is the text of a key.
        ApiKey::new(self.0.with(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }
}

impl PartialEq for KeptKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.with(|one| other.0.with(|two| equal(one, two)))
    }
}

impl fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptKey([REDACTED])")
    }
}

/// Returns how keys lie in memory, as `status` says it.
pub fn secret_memory(pool: &Pool) -> SecretMemory {
    match pool.kind() {
        Kind::Memfd => SecretMemory::MEMFD,
        Kind::Encrypted if pool.is_locked() => SecretMemory::ENCRYPTED,
        Kind::Encrypted => SecretMemory::ENCRYPTED_SWAPPABLE,
    }
}

fn no_room(error: &PoolError) -> Problem {
    Problem::new(
        ErrorCode::FAILED,
        format!("cannot keep the key: {}", Chain(error)),
        "look at the system's memory and limits",
    )
}
