//! Whatever decodes as a reply survives being encoded and decoded again.
#![no_main]

use dph_agent_protocol::Reply;
use dph_agent_protocol::frame::split_frame;
use libfuzzer_sys::fuzz_target;

// A kind and a body, so that no mutation is wasted on the length.
fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first_chunk() else { return };
    let Ok(reply) = Reply::from_body(u16::from_le_bytes(*kind), body) else { return };
    let bytes = reply.to_frame().unwrap();
    let (frame, _) = split_frame(&bytes).unwrap().unwrap();
    // Never longer than what was read: the shortest form of every number is written.
    assert!(frame.body.len() <= body.len());
    assert_eq!(Reply::from_body(frame.kind, frame.body), Ok(reply));
});
