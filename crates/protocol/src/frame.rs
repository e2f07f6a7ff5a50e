//! Header and body: split one frame off a buffer, put the header of one on.

use core::fmt;

/// Bytes of a header: body length `u32`, kind `u16`, both little endian.
pub const HEADER_LEN: usize = 6;

/// Longest body, in bytes. Checked before anything is allocated for it.
pub const MAX_BODY_LEN: usize = 64 * 1024;

/// The header of a frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the body that follows, at most [`MAX_BODY_LEN`].
    pub body_len: usize,
    /// What the body is.
    pub kind: u16,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The header announces a body longer than [`MAX_BODY_LEN`].
    BodyTooLong {
        /// What the header announced, in bytes.
        len: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::BodyTooLong { len } = self;
        write!(f, "a frame of {len} bytes is announced; at most {MAX_BODY_LEN} are allowed")
    }
}

impl core::error::Error for FrameError {}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`FrameError::BodyTooLong`] before a byte of the body is read or room for it is made.
    pub fn parse(bytes: [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [a, b, c, d, e, f] = bytes;
        let len = u32::from_le_bytes([a, b, c, d]);
        match usize::try_from(len) {
            Ok(body_len) if body_len <= MAX_BODY_LEN => {
                Ok(Self { body_len, kind: u16::from_le_bytes([e, f]) })
            }
            _ => Err(FrameError::BodyTooLong { len }),
        }
    }

    /// Returns the header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        #[expect(clippy::cast_possible_truncation, reason = "a body is at most 64 KiB")]
        let [a, b, c, d] = (self.body_len as u32).to_le_bytes();
        let [e, f] = self.kind.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

/// A whole frame at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: u16,
    /// The body, still encoded.
    pub body: &'a [u8],
}

/// Splits the first frame off `buffer` and returns it with the bytes behind it, or `None` while
/// it is not complete.
///
/// # Errors
///
/// [`FrameError::BodyTooLong`] as soon as the header is there.
pub fn split_frame(buffer: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let Header { body_len, kind } = Header::parse(*header)?;
    Ok(rest.split_at_checked(body_len).map(|(body, rest)| (Frame { kind, body }, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_its_bytes() {
        let header = Header { body_len: MAX_BODY_LEN, kind: 0x8012 };
        assert_eq!(header.to_bytes(), [0, 0, 1, 0, 0x12, 0x80]);
        assert_eq!(Header::parse(header.to_bytes()), Ok(header));
    }

    #[test]
    fn long_body_is_refused_by_its_header_alone() {
        let refused = Err(FrameError::BodyTooLong { len: 0x0001_0001 });
        assert_eq!(split_frame(&[1, 0, 1, 0, 0x10, 0]), refused);
    }

    #[test]
    fn bytes_behind_a_frame_are_left_for_the_next() {
        let buffer = [1, 0, 0, 0, 7, 0, 0xaa, 0xbb];
        let frame = Frame { kind: 7, body: &[0xaa] };
        assert_eq!(split_frame(&buffer), Ok(Some((frame, &[0xbb][..]))));
        assert_eq!(split_frame(&buffer[..6]), Ok(None));
    }
}
