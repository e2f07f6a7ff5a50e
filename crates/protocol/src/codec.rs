//! The only file that knows bincode: bodies of messages to bytes and back.
//!
//! The crate is no longer maintained and decodes carelessly by default, so this is all the use we
//! make of it: memory in proportion to the bytes that are there, whatever a length claims; no bytes
//! left over; no recursive types; no collections of empty elements.

use bincode::de::read::Reader;
use bincode::de::{Decoder, DecoderImpl};
use bincode::enc::Encoder;
use bincode::{Decode, Encode, config, error};
use zeroize::{Zeroize, Zeroizing};

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

/// Memory that a byte of a body may cost once it is read. What costs most is an empty text in a
/// list: one byte, and a `String` in a `Vec`.
const MEMORY_PER_BYTE: usize = 24;
const MEMORY: usize = MEMORY_PER_BYTE * MAX_BODY_LEN;

const CONFIG: config::Configuration<config::LittleEndian, config::Varint, config::Limit<MEMORY>> =
    config::standard().with_limit::<MEMORY>();

/// Appends the body of `value` to `out`, which never grows beyond its capacity: growing would
/// leave a copy of a secret behind.
pub(crate) fn encode(value: &impl Body, out: &mut Zeroizing<Vec<u8>>) -> Result<(), EncodeError> {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), error::EncodeError> {
            if self.0.capacity() - self.0.len() < bytes.len() {
                return Err(error::EncodeError::UnexpectedEnd);
            }
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::encode_into_writer(value, Append(out), CONFIG).map_err(|_full| EncodeError::TooLong)
}

/// Reads a value that fills `body` to the last byte.
pub(crate) fn decode<T: Body>(body: &[u8]) -> Result<T, DecodeError> {
    struct Rest<'a>(&'a [u8]);
    impl Reader for Rest<'_> {
        fn read(&mut self, to: &mut [u8]) -> Result<(), error::DecodeError> {
            let (from, rest) = self.0.split_at_checked(to.len()).ok_or(error::DecodeError::LimitExceeded)?;
            to.copy_from_slice(from);
            self.0 = rest;
            Ok(())
        }
    }
    let mut decoder = DecoderImpl::new(Rest(body), CONFIG, ());
    // The limit is a constant, for the longest body. What a shorter one cannot need is used up here.
    let unneeded = MEMORY.saturating_sub(MEMORY_PER_BYTE * body.len());
    let value = decoder.claim_bytes_read(unneeded).and_then(|()| T::decode(&mut decoder));
    match value {
        Ok(value) if decoder.reader().0.is_empty() => Ok(value),
        Ok(_) => Err(DecodeError::TrailingBytes),
        Err(_) => Err(DecodeError::Malformed),
    }
}

impl Encode for Secret {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), error::EncodeError> {
        self.expose().encode(encoder)
    }
}

impl<C> Decode<C> for Secret {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, error::DecodeError> {
        String::from_utf8(Vec::decode(decoder)?).map(Self::new).map_err(|error| {
            let inner = error.utf8_error();
            error.into_bytes().zeroize();
            error::DecodeError::Utf8 { inner }
        })
    }
}

bincode::impl_borrow_decode!(Secret);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_forms_of_an_integer_are_read() {
        for body in [&[5][..], &[0xfb, 5, 0], &[0xfc, 5, 0, 0, 0]] {
            assert_eq!(decode::<u32>(body), Ok(5));
        }
    }

    #[test]
    fn forms_wider_than_the_type_are_malformed() {
        assert_eq!(decode::<u16>(&[0xfc, 5, 0, 0, 0]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u32>(&[0xfd, 5, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(&[&[0xfe, 5][..], &[0; 15]].concat()), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(&[0xff]), Err(DecodeError::Malformed));
    }

    #[test]
    fn bytes_that_are_no_flag_are_malformed() {
        assert_eq!(decode::<bool>(&[2]), Err(DecodeError::Malformed));
        assert_eq!(decode::<Option<bool>>(&[2, 0]), Err(DecodeError::Malformed));
    }

    #[test]
    fn text_that_is_not_utf_8_is_malformed() {
        assert_eq!(decode::<String>(&[1, 0xff]), Err(DecodeError::Malformed));
        assert_eq!(decode::<Secret>(&[2, b'x', 0xff]), Err(DecodeError::Malformed));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        assert_eq!(decode::<()>(&[0]), Err(DecodeError::TrailingBytes));
        assert_eq!(decode::<bool>(&[1, 0]), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn buffer_that_is_full_does_not_grow() {
        let mut out = Zeroizing::new(Vec::with_capacity(16));
        let before = out.as_ptr();
        let text = "x".repeat(out.capacity());
        assert_eq!(encode(&text, &mut out), Err(EncodeError::TooLong));
        assert_eq!(out.as_ptr(), before);
    }
}
