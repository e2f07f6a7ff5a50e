//! The only file that knows bincode: bodies of messages to bytes and back.
//!
//! The crate is no longer maintained and decodes carelessly by default, so this is all the use we
//! make of it: a limit on what a length may claim, no bytes left over, no recursive types, no
//! collections of empty elements.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::{Decode, Encode, config};
use zeroize::Zeroizing;

use crate::frame::MAX_BODY_LEN;
use crate::message::{DecodeError, EncodeError};
use crate::secret::Secret;

/// Defines types that travel in a body.
macro_rules! wire {
    ($($item:item)*) => {
        $(
            #[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
            $item
        )*
    };
}

pub(crate) use wire;

/// What a body can hold.
pub(crate) trait Body: Encode + Decode<()> {}
impl<T: Encode + Decode<()>> Body for T {}

const CONFIG: config::Configuration<config::LittleEndian, config::Varint, config::Limit<{ MAX_BODY_LEN }>> =
    config::standard().with_limit::<{ MAX_BODY_LEN }>();

/// Appends the body of `value` to `out`, which never grows beyond its capacity: growing would
/// leave a copy of a secret behind.
pub(crate) fn encode(value: &impl Body, out: &mut Zeroizing<Vec<u8>>) -> Result<(), EncodeError> {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            if self.0.capacity() - self.0.len() < bytes.len() {
                return Err(bincode::error::EncodeError::UnexpectedEnd);
            }
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::encode_into_writer(value, Append(out), CONFIG).map_err(|_| EncodeError::TooLong)
}

/// Reads a value that fills `body` to the last byte.
pub(crate) fn decode<T: Body>(body: &[u8]) -> Result<T, DecodeError> {
    let (value, read) = bincode::decode_from_slice(body, CONFIG).map_err(|_| DecodeError::Malformed)?;
    if read == body.len() { Ok(value) } else { Err(DecodeError::TrailingBytes) }
}

impl Encode for Secret {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.expose().encode(encoder)
    }
}

impl<C> Decode<C> for Secret {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        String::decode(decoder).map(Self::new)
    }
}

bincode::impl_borrow_decode!(Secret);
