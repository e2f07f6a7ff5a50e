//! `MIN` and `CURRENT`, the frozen bytes of hello, and how a connection settles on a version.

use crate::frame::{HEADER_LEN, Header};

/// Oldest version that this build reads and writes.
pub const MIN: u16 = 1;

/// Version that this build prefers.
pub const CURRENT: u16 = 1;

/// Kind of a client's hello.
pub const HELLO: u16 = 0x0001;
/// Kind of the agent's hello when the versions meet.
pub const WELCOME: u16 = 0x8001;
/// Kind of the agent's hello when they do not; the frame behind the client's hello is discarded.
pub const VERSION_MISMATCH: u16 = 0x8002;

/// Body of a client's hello: magic, `min`, `current`, `encoded`.
pub const HELLO_LEN: usize = 10;
/// Body of the agent's hello: magic and two numbers.
pub const HELLO_REPLY_LEN: usize = 8;

const MAGIC: [u8; 4] = *b"DPHA";

/// A client's hello. Its bytes are frozen for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version that the client speaks.
    pub min: u16,
    /// Newest version that the client speaks.
    pub current: u16,
    /// Version in which the frame behind this hello is encoded.
    pub encoded: u16,
}

/// The agent's answer to a hello. Its bytes are frozen for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloReply {
    /// Both speak `version`; everything from now on is in it, the frame behind hello included.
    Welcome {
        /// The version agreed on.
        version: u16,
        /// Newest version that the agent speaks, for display.
        current: u16,
    },
    /// The agent cannot read the frame behind hello, and has discarded it.
    Mismatch {
        /// Oldest version that the agent speaks.
        min: u16,
        /// Newest version that the agent speaks.
        max: u16,
    },
}

impl Hello {
    /// What this build says, with the frame behind it in the newest version.
    pub const OURS: Self = Self { min: MIN, current: CURRENT, encoded: CURRENT };

    /// Returns the whole frame.
    #[must_use]
    pub fn to_frame(self) -> [u8; HEADER_LEN + HELLO_LEN] {
        let mut out = [0; HEADER_LEN + HELLO_LEN];
        let header = Header { body_len: HELLO_LEN, kind: HELLO }.to_bytes();
        let words = [self.min, self.current, self.encoded].map(u16::to_le_bytes);
        for (to, from) in out.iter_mut().zip(header.iter().chain(&MAGIC).chain(words.as_flattened())) {
            *to = *from;
        }
        out
    }

    /// Reads the body of a hello, or returns `None` for bytes that are not one.
    #[must_use]
    pub fn parse(kind: u16, body: &[u8]) -> Option<Self> {
        let [a, b, c, d, min0, min1, cur0, cur1, enc0, enc1] = *<&[u8; HELLO_LEN]>::try_from(body).ok()?;
        (kind == HELLO && [a, b, c, d] == MAGIC).then_some(Self {
            min: u16::from_le_bytes([min0, min1]),
            current: u16::from_le_bytes([cur0, cur1]),
            encoded: u16::from_le_bytes([enc0, enc1]),
        })
    }

    /// Returns how an agent that speaks [`MIN`] to [`CURRENT`] answers.
    #[must_use]
    pub fn answer(self) -> HelloReply {
        if (MIN..=CURRENT).contains(&self.encoded) {
            HelloReply::Welcome { version: self.encoded, current: CURRENT }
        } else {
            HelloReply::Mismatch { min: MIN, max: CURRENT }
        }
    }
}

impl HelloReply {
    /// Returns the whole frame.
    #[must_use]
    pub fn to_frame(self) -> [u8; HEADER_LEN + HELLO_REPLY_LEN] {
        let (kind, first, second) = match self {
            Self::Welcome { version, current } => (WELCOME, version, current),
            Self::Mismatch { min, max } => (VERSION_MISMATCH, min, max),
        };
        let mut out = [0; HEADER_LEN + HELLO_REPLY_LEN];
        let header = Header { body_len: HELLO_REPLY_LEN, kind }.to_bytes();
        let words = [first, second].map(u16::to_le_bytes);
        for (to, from) in out.iter_mut().zip(header.iter().chain(&MAGIC).chain(words.as_flattened())) {
            *to = *from;
        }
        out
    }

    /// Reads the agent's answer, or returns `None` for bytes that are not one.
    #[must_use]
    pub fn parse(kind: u16, body: &[u8]) -> Option<Self> {
        let [a, b, c, d, x0, x1, y0, y1] = *<&[u8; HELLO_REPLY_LEN]>::try_from(body).ok()?;
        let (x, y) = (u16::from_le_bytes([x0, x1]), u16::from_le_bytes([y0, y1]));
        match kind {
            _ if [a, b, c, d] != MAGIC => None,
            WELCOME => Some(Self::Welcome { version: x, current: y }),
            VERSION_MISMATCH => Some(Self::Mismatch { min: x, max: y }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_the_frame_behind_hello_decides_the_answer() {
        let answer = |encoded| Hello { min: 0, current: u16::MAX, encoded }.answer();
        assert_eq!(answer(MIN), HelloReply::Welcome { version: MIN, current: CURRENT });
        assert_eq!(answer(CURRENT), HelloReply::Welcome { version: CURRENT, current: CURRENT });
        let mismatch = HelloReply::Mismatch { min: MIN, max: CURRENT };
        assert_eq!(answer(MIN - 1), mismatch);
        assert_eq!(answer(CURRENT + 1), mismatch);
    }

    #[test]
    fn other_kinds_lengths_and_magics_are_no_hello() {
        let frame = Hello::OURS.to_frame();
        let body = &frame[HEADER_LEN..];
        assert_eq!(Hello::parse(HELLO, body), Some(Hello::OURS));
        assert_eq!(Hello::parse(WELCOME, body), None);
        assert_eq!(Hello::parse(HELLO, &body[..HELLO_LEN - 1]), None);
        assert_eq!(Hello::parse(HELLO, &[body, &[0]].concat()), None);
        assert_eq!(Hello::parse(HELLO, b"SSHA\x01\0\x01\0\x01\0"), None);
        assert_eq!(HelloReply::parse(WELCOME, b"SSHA\x01\0\x01\0"), None);
        assert_eq!(HelloReply::parse(HELLO, b"DPHA\x01\0\x01\0"), None);
    }
}
