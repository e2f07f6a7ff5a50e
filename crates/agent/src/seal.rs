//! Sealing: to a public key, which takes no passphrase, and opening with a private key that only the
//! passphrase brings back.

use std::fmt;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Length of keys, public and private.
const KEY_LEN: usize = 32;
const SALT_LEN: usize = 16;
/// What the keys of this file are derived for.
const PURPOSE: &[u8] = b"dph-agent sealed box 1";

/// Memory of a derivation, in KiB; less is cheap to guess at.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over it, at least.
const MIN_PASSES: u32 = 2;
/// Passes that a quick machine makes at most.
const MAX_PASSES: u32 = 16;
/// Time that a derivation should take.
const TARGET: Duration = Duration::from_millis(200);
/// A derivation that takes less gets more passes.
const TOO_QUICK: Duration = Duration::from_millis(100);

/// Most that a record may ask of this machine.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;

/// Why something was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not for this key or passphrase, or it is not as it was sealed.
    #[error("it does not open")]
    Closed,
    /// The parameters ask for what no version of this program does.
    #[error("its parameters are out of bounds")]
    Parameters,
    /// There was no memory for the derivation, or no chance to be had.
    #[error("the system has not enough memory or randomness")]
    System,
}

/// To whom everything is sealed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Public {
    key: [u8; KEY_LEN],
    /// Whether it was computed from the private half. What a file says may be somebody else's: whoever can write
    /// that file could have secrets sealed to himself.
    is_proven: bool,
}

impl PartialEq for Public {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Public {}

/// Opens what was sealed to its public half. A copy is wiped like the first when it is dropped.
#[derive(Clone)]
pub struct Private(StaticSecret);

/// A private key behind a passphrase, with all that is needed to derive its key again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPrivate {
    public: Public,
    #[serde(flatten)]
    cost: Cost,
    salt: Base64,
    private: Base64,
}

/// What a derivation by Argon2id costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// Bytes that are text in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Base64(Vec<u8>);

impl Public {
    /// Whether the private half was at hand since the agent started.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Seals `secret` so that only the private half opens it. Whoever opens it must name the same `context`.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn seal(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let once = Private::generate()?;
        let sender = once.public();
        let key = once.shared_with(self, &sender, self)?;
        let mut sealed = Vec::with_capacity(KEY_LEN + secret.len() + CHACHA20_POLY1305.tag_len());
        sealed.extend_from_slice(&sender.key);
        sealed.extend_from_slice(&encrypt(&key, context, secret)?);
        Ok(sealed)
    }
}

impl Private {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, SealError> {
        let bytes = Zeroizing::new(random::<KEY_LEN>()?);
        Ok(Self(StaticSecret::from(*bytes)))
    }

    /// Returns the half that everybody may know.
    pub fn public(&self) -> Public {
        Public { key: PublicKey::from(&self.0).to_bytes(), is_proven: true }
    }

    /// Opens what was sealed to the public half with the same `context`.
    ///
    /// # Errors
    ///
    /// When it was not, or is not as it was.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (sender, text) = sealed.split_first_chunk().ok_or(SealError::Closed)?;
        let sender = Public { key: *sender, is_proven: false };
        let key = self.shared_with(&sender, &sender, &self.public())?;
        decrypt(&key, context, text)
    }

    /// Seals this key behind a passphrase, at a cost that suits this machine. It takes as long as opening does.
    ///
    /// # Errors
    ///
    /// When the system has neither memory nor randomness for it.
    pub fn seal_with(&self, passphrase: &str) -> Result<SealedPrivate, SealError> {
        let salt = random::<SALT_LEN>()?;
        let (cost, key) = derive_tuned(passphrase, &salt)?;
        let mut sealed = SealedPrivate {
            public: self.public(),
            cost,
            salt: Base64(salt.to_vec()),
            private: Base64(Vec::new()),
        };
        sealed.private = Base64(encrypt(&key, &sealed.context(), self.0.as_bytes())?);
        Ok(sealed)
    }

    /// Returns the key that both ends of a box compute, and nobody else.
    fn shared_with(&self, other: &Public, sender: &Public, receiver: &Public) -> Result<Key, SealError> {
        let shared = self.0.diffie_hellman(&PublicKey::from(other.key));
        if !shared.was_contributory() {
            return Err(SealError::Closed);
        }
        let mut ends = [0; 2 * KEY_LEN];
        let (head, tail) = ends.split_at_mut(KEY_LEN);
        head.copy_from_slice(&sender.key);
        tail.copy_from_slice(&receiver.key);
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let derived = Salt::new(HKDF_SHA256, &ends).extract(shared.as_bytes());
        let filled = derived.expand(&[PURPOSE], HKDF_SHA256).and_then(|out| out.fill(&mut *key));
        filled.map_err(|_too_long| SealError::System)?;
        Ok(key)
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private([REDACTED])")
    }
}

impl SealedPrivate {
    /// Returns to whom everything is sealed.
    pub fn public(&self) -> Public {
        self.public
    }

    /// Opens the private key. That it opens is all that is known of a passphrase. Takes a tenth of a second
    /// and more.
    ///
    /// # Errors
    ///
    /// When the passphrase is another one, or the record is not as it was.
    pub fn open(&self, passphrase: &str) -> Result<Private, SealError> {
        let key = derive(self.cost, passphrase, &self.salt.0)?;
        let bytes = decrypt(&key, &self.context(), &self.private.0)?;
        let bytes: Zeroizing<[u8; KEY_LEN]> =
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_wrong_length| SealError::Closed)?);
        let private = Private(StaticSecret::from(*bytes));
        // The seal covers the public half, so that only a mistake of ours gets here.
        if private.public() == self.public { Ok(private) } else { Err(SealError::Closed) }
    }

    /// Takes note that `private` opens what is sealed to this.
    pub fn note_proof(&mut self, private: &Private) {
        self.public.is_proven |= private.public() == self.public;
    }

    /// Whether this program could have written it.
    ///
    /// # Errors
    ///
    /// When a derivation would take more than any machine should be asked for.
    pub fn check(&self) -> Result<(), SealError> {
        let Cost { memory_kib, passes } = self.cost;
        let fits = (MEMORY_KIB..=MOST_MEMORY_KIB).contains(&memory_kib)
            && (MIN_PASSES..=MOST_PASSES).contains(&passes)
            && self.salt.0.len() == SALT_LEN;
        if fits { Ok(()) } else { Err(SealError::Parameters) }
    }

    /// What must not be exchanged around the sealed key.
    fn context(&self) -> Vec<u8> {
        let Cost { memory_kib, passes } = self.cost;
        [PURPOSE, &self.public.key, &memory_kib.to_le_bytes(), &passes.to_le_bytes()].concat()
    }
}

type Key = Zeroizing<[u8; KEY_LEN]>;

/// Derives a key at the least cost, or, where this machine does that too quickly, at a higher one.
fn derive_tuned(passphrase: &str, salt: &[u8]) -> Result<(Cost, Key), SealError> {
    let least = Cost { memory_kib: MEMORY_KIB, passes: MIN_PASSES };
    let begin = Instant::now();
    let key = derive(least, passphrase, salt)?;
    let cost = Cost { passes: passes_for(begin.elapsed()), ..least };
    if cost == least { Ok((cost, key)) } else { Ok((cost, derive(cost, passphrase, salt)?)) }
}

/// Returns how many passes suit a machine that makes [`MIN_PASSES`] in `least`.
fn passes_for(least: Duration) -> u32 {
    if least >= TOO_QUICK {
        return MIN_PASSES;
    }
    let one_pass = (least / MIN_PASSES).as_micros().max(1);
    let passes = TARGET.as_micros() / one_pass;
    u32::try_from(passes).unwrap_or(MAX_PASSES).clamp(MIN_PASSES, MAX_PASSES)
}

fn derive(cost: Cost, passphrase: &str, salt: &[u8]) -> Result<Key, SealError> {
    let parameters = Params::new(cost.memory_kib, cost.passes, 1, Some(KEY_LEN));
    let parameters = parameters.map_err(|_out_of_bounds| SealError::Parameters)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|_no_memory| SealError::System)?;
    Ok(key)
}

/// Encrypts with a key that is used for nothing else.
fn encrypt(key: &Key, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut text = Vec::with_capacity(secret.len() + CHACHA20_POLY1305.tag_len());
    text.extend_from_slice(secret);
    cipher(key)?
        .seal_in_place_append_tag(only_nonce(), Aad::from(context), &mut text)
        .map_err(|_too_long| SealError::System)?;
    Ok(text)
}

fn decrypt(key: &Key, context: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut text = Zeroizing::new(text.to_vec());
    let opened = cipher(key)?.open_in_place(only_nonce(), Aad::from(context), &mut text);
    let len = opened.map_err(|_forged| SealError::Closed)?.len();
    text.truncate(len);
    Ok(text)
}

fn cipher(key: &Key) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &**key);
    Ok(LessSafeKey::new(key.map_err(|_wrong_length| SealError::System)?))
}

/// Every key of this file encrypts one text: a new key pair or a new salt makes it.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| SealError::System)?;
    Ok(bytes)
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        BASE64_STANDARD.encode(&bytes.0)
    }
}

impl TryFrom<String> for Base64 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD.decode(text).map(Self).map_err(|_invalid| "not base64")
    }
}

impl From<Public> for String {
    fn from(public: Public) -> Self {
        Base64(public.key.to_vec()).into()
    }
}

impl TryFrom<String> for Public {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = Base64::try_from(text)?.0;
        let key = bytes.try_into().map_err(|_bytes| "a public key has 32 bytes")?;
        Ok(Self { key, is_proven: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_to_the_public_half_is_opened_by_the_private_one_alone() {
        let private = Private::generate().unwrap();
        let sealed = private.public().seal(b"prod", b"the key").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"the key"));
        assert_eq!(*private.open(b"prod", &sealed).unwrap(), b"the key");
        assert_eq!(private.open(b"dev", &sealed).unwrap_err(), SealError::Closed, "another context");
        let other = Private::generate().unwrap();
        assert_eq!(other.open(b"prod", &sealed).unwrap_err(), SealError::Closed);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert!(private.open(b"prod", &forged).is_err(), "byte {at}");
        }
        assert!(private.open(b"prod", &sealed[..40]).is_err());
        assert!(private.open(b"prod", b"").is_err());
    }

    #[test]
    fn two_boxes_of_one_secret_differ() {
        let public = Private::generate().unwrap().public();
        assert_ne!(public.seal(b"", b"the key").unwrap(), public.seal(b"", b"the key").unwrap());
    }

    #[test]
    fn a_point_that_makes_no_secret_is_refused() {
        assert!(Public { key: [0; KEY_LEN], is_proven: true }.seal(b"", b"the key").is_err());
        assert!(Private::generate().unwrap().open(b"", &[0; 64]).is_err());
    }

    #[test]
    fn only_the_passphrase_opens_the_private_half() {
        let private = Private::generate().unwrap();
        let sealed = private.seal_with("correct horse").unwrap();
        sealed.check().unwrap();
        assert_eq!(sealed.open("correct horse").unwrap().public(), private.public());
        assert_eq!(sealed.open("hunter2").unwrap_err(), SealError::Closed);
        let other_half = Private::generate().unwrap().public();
        let exchanged = SealedPrivate { public: other_half, ..sealed };
        assert_eq!(exchanged.open("correct horse").unwrap_err(), SealError::Closed);
    }

    #[test]
    fn a_public_half_that_was_read_is_proven_by_the_private_one_alone() {
        let private = Private::generate().unwrap();
        let sealed = private.seal_with("correct horse").unwrap();
        assert!(sealed.public().is_proven());
        let mut read: SealedPrivate = serde_json::from_slice(&serde_json::to_vec(&sealed).unwrap()).unwrap();
        read.note_proof(&Private::generate().unwrap());
        assert!(!read.public().is_proven());
        read.note_proof(&read.open("correct horse").unwrap());
        assert!(read.public().is_proven());
    }

    #[test]
    fn a_record_that_asks_for_too_much_or_too_little_is_refused() {
        let empty = || Base64(vec![0; SALT_LEN]);
        let with = |memory_kib, passes| SealedPrivate {
            public: Public { key: [9; KEY_LEN], is_proven: false },
            cost: Cost { memory_kib, passes },
            salt: empty(),
            private: empty(),
        };
        assert_eq!(with(MEMORY_KIB, 2).check(), Ok(()));
        for (memory_kib, passes) in [(8, 2), (MEMORY_KIB, 1), (u32::MAX, 2), (MEMORY_KIB, u32::MAX)] {
            assert_eq!(with(memory_kib, passes).check(), Err(SealError::Parameters));
        }
    }

    #[test]
    fn a_quick_machine_makes_more_passes_and_a_slow_one_the_least() {
        let passes = |millis| passes_for(Duration::from_millis(millis));
        assert_eq!((passes(1000), passes(100), passes(50), passes(25)), (2, 2, 8, 16));
        assert_eq!(passes(0), MAX_PASSES);
    }
}
