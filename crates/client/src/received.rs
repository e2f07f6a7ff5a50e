//! Bytes from the agent, split into frames.

use std::io::{self, Read};

use dph_agent_protocol::frame::{HEADER_LEN, Header};

use crate::wiped::Wiped;

/// Room for most answers; a longer one gets the room that its header asks for.
const ROOM: usize = 4096;

/// Bytes from the agent, which may hold a secret: they stay where they are, and are wiped.
pub(crate) struct Received {
    bytes: Wiped,
    /// Where the next frame starts.
    start: usize,
    /// Where the bytes that have arrived end.
    end: usize,
}

impl Received {
    /// Returns room with nothing in it.
    pub(crate) fn new() -> Self {
        Self { bytes: Wiped(vec![0; ROOM]), start: 0, end: 0 }
    }

    /// Returns kind and body of the next frame.
    pub(crate) fn frame(&mut self, source: &mut dyn Read) -> io::Result<(u16, &[u8])> {
        self.fill(HEADER_LEN, source)?;
        let header = self.rest().first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let Header { body_len, kind } = Header::parse(*header)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        self.start += HEADER_LEN;
        self.fill(body_len, source)?;
        let body = self.start..self.start + body_len;
        self.start = body.end;
        Ok((kind, self.bytes.get(body).unwrap_or_default()))
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads until `len` bytes are there.
    fn fill(&mut self, len: usize, source: &mut dyn Read) -> io::Result<()> {
        self.make_room(len);
        while self.rest().len() < len {
            match source.read(self.bytes.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn make_room(&mut self, len: usize) {
        if self.start + len <= self.bytes.len() {
            return;
        }
        let mut bytes = Wiped(vec![0; len.max(ROOM)]);
        for (to, from) in bytes.iter_mut().zip(self.rest()) {
            *to = *from;
        }
        *self = Self { bytes, start: 0, end: self.end - self.start };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
        [&Header { body_len: body.len(), kind }.to_bytes(), body].concat()
    }

    /// Gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let one = room.len().min(1);
            self.0.read(&mut room[..one])
        }
    }

    #[test]
    fn frames_are_found_however_the_bytes_arrive() {
        let long = vec![7; 3 * ROOM];
        let bytes =
            [frame(1, b"one"), frame(2, b""), frame(3, &long), frame(4, &long), frame(5, b"end")].concat();
        let expected = [(1, &b"one"[..]), (2, b""), (3, &long), (4, &long), (5, b"end")];
        let sources: [Box<dyn Read>; 2] = [Box::new(&bytes[..]), Box::new(Trickle(&bytes))];
        for mut source in sources {
            let mut received = Received::new();
            for frame in expected {
                assert_eq!(received.frame(&mut source).unwrap(), frame);
            }
            assert_eq!(received.frame(&mut source).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn length_beyond_the_limit_is_refused_before_room_is_made() {
        let mut received = Received::new();
        let error = received.frame(&mut &[0xff_u8; 6][..]).unwrap_err();
        assert_eq!((error.kind(), received.bytes.len()), (io::ErrorKind::InvalidData, ROOM));
    }
}
