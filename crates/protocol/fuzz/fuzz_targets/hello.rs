//! Only the bytes that a hello is written as are read as one, from either side.
#![no_main]

use dph_agent_protocol::frame::split_frame;
use dph_agent_protocol::{Hello, HelloReply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|buffer: &[u8]| {
    let Ok(Some((frame, rest))) = split_frame(buffer) else { return };
    let (whole, _) = buffer.split_at(buffer.len() - rest.len());
    if let Some(hello) = Hello::parse(frame.kind, frame.body) {
        assert_eq!(hello.to_frame(), whole);
        let answer = hello.answer().to_frame();
        let (answer, _) = split_frame(&answer).unwrap().unwrap();
        assert_eq!(HelloReply::parse(answer.kind, answer.body), Some(hello.answer()));
    }
    if let Some(reply) = HelloReply::parse(frame.kind, frame.body) {
        assert_eq!(reply.to_frame(), whole);
    }
});
