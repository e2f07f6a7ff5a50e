//! What the vault knows of its lock, and what it seals when that falls.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dph_agent_platform::ApiKey;
use dph_agent_protocol::Secret;
use dph_agent_secret::Pool;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;
use zeroize::Zeroizing;

use crate::binding::Binding;
use crate::clock::Steady;
use crate::config::ProfileName;
use crate::error::Problem;
use crate::freshness::Bought;
use crate::kept_key::KeptKey;
use crate::key_end::Told;
use crate::keyhole::wrong_passphrase;
use crate::lock::{AutoLock, Event, Lock, Record, RecordFile};
use crate::seal::{Private, Public, SealError, SealedPrivate};
use crate::vault::HeldKey;

/// Room that JSON takes beside key and token.
const MARGIN: usize = 16 * 1024;

/// The lock with its record.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) lock: Lock,
    pub(crate) record: Record,
    /// Why the record cannot be believed: the agent stays locked, and the record as it is.
    fault: Option<Problem>,
    file: RecordFile,
    /// Counts what was written.
    serial: u64,
    /// Whether the agent is locked, for those who wait for that.
    pub(crate) tell: watch::Sender<bool>,
}

impl Keeper {
    /// Reads the record.
    pub(crate) fn new(file: RecordFile, now: Steady) -> Self {
        let loaded = file.load();
        let fault = loaded.as_ref().err().map(Problem::from);
        if let Some(fault) = &fault {
            error!(problem = fault.message, hint = fault.hint, "the lock's record cannot be understood");
        }
        let record = loaded.unwrap_or(Record { locked: true, key: None });
        let lock = Lock::at_start(record.locked, now);
        Self { lock, record, fault, file, serial: 0, tell: watch::Sender::new(lock.is_locked()) }
    }

    /// Moves the lock, and tells those who wait for it.
    pub(crate) fn happened(&mut self, event: Event, now: Steady, auto: AutoLock) {
        self.lock = self.lock.next(event, now, auto);
        let is_locked = self.lock.is_locked();
        self.tell.send_if_modified(|told| std::mem::replace(told, is_locked) != is_locked);
    }

    /// Returns whether the agent is locked, and the key that opens it.
    pub(crate) fn keys_place(&self) -> Result<(bool, Option<SealedPrivate>), Problem> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok((self.lock.is_locked(), self.record.key.clone())),
        }
    }

    /// Makes sure that `key` opens this lock, which proves that what is sealed to it is for its user.
    pub(crate) fn fits(&mut self, key: Option<&Private>) -> Result<(), Problem> {
        let (_, sealed) = self.keys_place()?;
        if key.map(Private::public) != sealed.as_ref().map(SealedPrivate::public) {
            return Err(wrong_passphrase("the passphrase was changed meanwhile"));
        }
        if let Some((sealed, key)) = self.record.key.as_mut().zip(key) {
            sealed.note_proof(key);
        }
        Ok(())
    }

    /// Writes the record on a thread where it holds up nobody.
    pub(crate) fn save(&mut self, locked: bool) -> JoinHandle<io::Result<()>> {
        self.record.locked = locked;
        self.serial += 1;
        let (file, serial, record) = (self.file.clone(), self.serial, self.record.clone());
        spawn_blocking(move || file.save(serial, &record))
    }
}

/// What a profile holds that must not lie open while the agent is locked.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) key: Option<HeldKey>,
    pub(crate) token: Option<Bought>,
}

/// The same in JSON, which is sealed.
#[derive(Serialize, Deserialize)]
struct Contents {
    key: Option<Key>,
    token: Option<Token>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    text: Text,
    binding: Binding,
    added_at: i64,
    until: Option<Duration>,
    told: Option<Told>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    text: Text,
    sent: Duration,
    life: Option<Duration>,
}

type Text = Zeroizing<String>;

impl Held {
    /// Seals what is held, or drops it where that cannot be done. Profiles cannot be exchanged.
    pub(crate) fn seal(self, to: Public, name: &ProfileName) -> Option<Vec<u8>> {
        if self.key.is_none() && self.token.is_none() {
            return None;
        }
        let contents = Contents::from(self);
        // Room for all of it: growing would leave a copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(contents.room()));
        let written = serde_json::to_writer(&mut *text, &contents).map_err(|_unwritten| SealError::System);
        let sealed = written.and_then(|()| to.seal(name.as_str().as_bytes(), &text));
        sealed.inspect_err(|error| error!(profile = %name, %error, "dropped the secrets, not sealed")).ok()
    }

    /// Opens what was sealed.
    pub(crate) fn open(sealed: &[u8], key: &Private, name: &ProfileName, pool: &Pool) -> Option<Self> {
        let text = key.open(name.as_str().as_bytes(), sealed);
        let text =
            text.inspect_err(|error| error!(profile = %name, %error, "cannot open the secrets")).ok()?;
        serde_json::from_slice::<Contents>(&text).ok()?.into_held(pool).ok()
    }
}

impl From<Held> for Contents {
    fn from(Held { key, token }: Held) -> Self {
        let text = |text: &str| Zeroizing::new(text.to_owned());
        Self {
            key: key.map(|HeldKey { key, binding, added_at, until, told }| Key {
                text: text(key.expose().expose()),
                binding,
                added_at,
                until: until.map(|until| until.0),
                told,
            }),
            token: token.map(|Bought { token, sent, life }| Token {
                text: text(token.expose()),
                sent: sent.0,
                life,
            }),
        }
    }
}

impl Contents {
    /// Returns how long the JSON is at most. Escaping makes six bytes of one at worst.
    fn room(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.text.len());
        let token = self.token.as_ref().map_or(0, |token| token.text.len());
        MARGIN + 6 * (key + token)
    }

    fn into_held(self, pool: &Pool) -> Result<Held, Problem> {
        let key = match self.key {
            None => None,
            Some(Key { text, binding, added_at, until, told }) => {
                let key = KeptKey::new(pool, &ApiKey::new(text.as_str().to_owned()))?;
                Some(HeldKey { key: Arc::new(key), binding, added_at, until: until.map(Steady), told })
            }
        };
        let token = self.token.map(|Token { text, sent, life }| Bought {
            token: Secret::new(text.as_str().to_owned()),
            sent: Steady(sent),
            life,
        });
        Ok(Held { key, token })
    }
}
