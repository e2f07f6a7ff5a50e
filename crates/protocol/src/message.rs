//! What requests and replies share: a kind, a body, and how the two become a frame.

use core::fmt;

use zeroize::Zeroizing;

use crate::codec::{self, Body};
use crate::frame::{HEADER_LEN, Header, MAX_BODY_LEN};

/// The bytes of a frame, wiped on drop.
pub type Bytes = Zeroizing<Vec<u8>>;

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The body would be longer than [`MAX_BODY_LEN`].
    TooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is longer than 64 KiB")
    }
}

impl core::error::Error for EncodeError {}

/// Why the body of a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// This build has no message of that kind.
    UnknownKind(u16),
    /// The body does not hold what its kind says.
    Malformed,
    /// The body holds more than its kind says.
    TrailingBytes,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "message kind {kind:#06x} is unknown"),
            Self::Malformed => f.write_str("the message does not hold what its kind says"),
            Self::TrailingBytes => f.write_str("the message holds more than its kind says"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Room that is enough for all but the largest messages, so that most frames cost one small page.
const SMALL: usize = 4096;

/// Returns the frame of `body`. Written into room that never moves, for it may hold a secret.
pub(crate) fn to_frame(kind: u16, body: &impl Body) -> Result<Bytes, EncodeError> {
    let write: Write<'_> = &|frame| codec::encode(body, frame);
    to_frame_within(SMALL, kind, write).or_else(|_| to_frame_within(HEADER_LEN + MAX_BODY_LEN, kind, write))
}

/// Appends a body to a frame. Behind a pointer, so that there is one `to_frame_within` for all messages.
type Write<'a> = &'a dyn Fn(&mut Bytes) -> Result<(), EncodeError>;

fn to_frame_within(room: usize, kind: u16, write: Write<'_>) -> Result<Bytes, EncodeError> {
    let mut frame = Zeroizing::new(Vec::with_capacity(room));
    frame.extend_from_slice(&[0; HEADER_LEN]);
    write(&mut frame)?;
    let body_len = frame.len() - HEADER_LEN;
    if body_len > MAX_BODY_LEN {
        return Err(EncodeError::TooLong);
    }
    for (to, from) in frame.iter_mut().zip(Header { body_len, kind }.to_bytes()) {
        *to = from;
    }
    Ok(frame)
}

/// Defines an enum of messages with the number of each kind, its frame, and its reading.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident $(($body:ty))? = $kind:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($(#[$item_doc])* $item $(($body))?,)*
        }

        impl $name {
            /// The number of every kind, with its name.
            pub const KINDS: &[(u16, &'static str)] = &[$(($kind, $word)),*];

            /// Returns the number of this message's kind.
            #[must_use]
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$item { .. } => $kind,)* }
            }

            /// Returns the name of this message's kind, for logs.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$item { .. } => $word,)* }
            }

            /// Returns the whole frame.
            ///
            /// # Errors
            ///
            /// [`EncodeError::TooLong`](crate::EncodeError::TooLong) when the body does not fit.
            pub fn to_frame(&self) -> Result<$crate::Bytes, $crate::EncodeError> {
                match self { $(message_arm!(encode $item $(($body))? body) => message_arm!(frame $kind $(($body))? body),)* }
            }

            /// Reads the body of a frame.
            ///
            /// # Errors
            ///
            /// [`DecodeError::UnknownKind`](crate::DecodeError::UnknownKind) when this build has no such
            /// kind, else what is wrong with the body.
            pub fn from_body(kind: u16, body: &[u8]) -> Result<Self, $crate::DecodeError> {
                match kind {
                    $($kind => message_arm!(decode $item $(($body))? body),)*
                    _ => Err($crate::DecodeError::UnknownKind(kind)),
                }
            }
        }
    };
}

/// The parts in which a message with a body differs from one without.
macro_rules! message_arm {
    (encode $item:ident ($body:ty) $name:ident) => {
        Self::$item($name)
    };
    (encode $item:ident $name:ident) => {
        Self::$item
    };
    (frame $kind:literal ($body:ty) $name:ident) => {
        crate::message::to_frame($kind, $name)
    };
    (frame $kind:literal $name:ident) => {
        crate::message::to_frame($kind, &())
    };
    (decode $item:ident ($body:ty) $name:ident) => {
        crate::codec::decode::<$body>($name).map(Self::$item)
    };
    (decode $item:ident $name:ident) => {
        crate::codec::decode::<()>($name).map(|()| Self::$item)
    };
}

pub(crate) use {message_arm, messages};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_TOKEN_LEN, Page, Reply, Request, Secret, Token};

    fn token(len: usize) -> Reply {
        Reply::Token(Token {
            token: Secret::new("x".repeat(len)),
            profile: "p".repeat(64),
            url: "u".repeat(2048),
            username: Some("n".repeat(1024)),
            expires_at: Some(i64::MAX),
            expires_in_ms: Some(u64::MAX),
            ca_file: Some("c".repeat(4096)),
            warning: None,
        })
    }

    #[test]
    fn longest_token_fits_beside_everything_else() {
        let frame = token(MAX_TOKEN_LEN).to_frame().unwrap();
        assert_eq!(Reply::from_body(0x8012, &frame[HEADER_LEN..]), Ok(token(MAX_TOKEN_LEN)));
    }

    #[test]
    fn body_fills_a_frame_and_no_more() {
        // A length of more than 250 bytes takes three.
        let page = |body_len| Request::List(Page { after: "x".repeat(body_len - 3) });
        assert_eq!(page(MAX_BODY_LEN).to_frame().unwrap().len(), HEADER_LEN + MAX_BODY_LEN);
        assert_eq!(page(MAX_BODY_LEN + 1).to_frame(), Err(EncodeError::TooLong));
    }

    #[test]
    fn body_of_any_length_is_written_into_room_of_one_size() {
        for len in [0, SMALL, MAX_BODY_LEN / 2] {
            let frame = token(len).to_frame().unwrap();
            assert!(frame.capacity() == SMALL || frame.capacity() == HEADER_LEN + MAX_BODY_LEN);
        }
    }
}
