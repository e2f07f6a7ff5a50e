//! Random text for tokens, keys and request ids.

use std::fmt::Write as _;

use ring::rand::{SecureRandom as _, SystemRandom};

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Returns `N` random bytes.
#[expect(clippy::expect_used, reason = "a machine without random numbers cannot run TLS either")]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// Returns 32 random hex digits.
pub(crate) fn id() -> String {
    hex(&bytes::<16>())
}

/// Returns a random UUID.
pub(crate) fn uuid() -> String {
    let id = id();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| id.get(group).unwrap_or_default());
    groups.join("-")
}

/// Returns an API key in the form that Software Hub generates: 40 letters and digits.
#[must_use]
pub fn api_key() -> String {
    bytes::<40>()
        .iter()
        .filter_map(|byte| ALPHANUMERIC.get(usize::from(*byte) % ALPHANUMERIC.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

/// Returns `bytes` in lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
