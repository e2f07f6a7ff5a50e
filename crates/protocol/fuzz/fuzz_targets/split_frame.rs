//! Frames split off one after the other are the buffer itself, and no frame is found too early.
#![no_main]

use dph_agent_protocol::frame::{HEADER_LEN, Header, split_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|buffer: &[u8]| {
    let mut left = buffer;
    while let Ok(Some((frame, rest))) = split_frame(left) {
        let (whole, _) = left.split_at(left.len() - rest.len());
        let header = Header { body_len: frame.body.len(), kind: frame.kind };
        assert_eq!(whole, [&header.to_bytes(), frame.body].concat());
        assert_eq!(split_frame(&whole[..whole.len() - 1]), Ok(None));
        left = rest;
    }
    if let Some(header) = left.first_chunk()
        && let Ok(header) = Header::parse(*header)
    {
        assert!(left.len() - HEADER_LEN < header.body_len);
    }
});
