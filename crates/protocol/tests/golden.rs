//! Every message of version 1, as bytes that never change: `tests/golden/v1/*.bin`.
//!
//! The files are append-only. One that breaks means that the change is wrong, not the file. A new
//! sample gets its file from `DPH_BLESS=1 cargo test -p dph-agent-protocol --test golden`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dph_agent_protocol::frame::split_frame;
use dph_agent_protocol::{Reply, Request};
use samples::samples;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Returns the file's bytes; writes it first if it is missing and `DPH_BLESS` is set.
fn golden(name: &str, frame: &[u8]) -> Vec<u8> {
    let path = folder().join(name).with_extension("bin");
    if std::env::var_os("DPH_BLESS").is_some() && !path.exists() {
        fs::write(&path, frame).unwrap();
    }
    fs::read(&path).map_err(|error| format!("{name}: {error}")).unwrap()
}

#[test]
fn every_message_has_the_bytes_of_its_golden_file_and_is_read_from_them() {
    for (name, message) in samples() {
        let frame = message.to_frame();
        let bytes = golden(&name, &frame);
        assert_eq!(bytes, *frame, "{name}");
        let (frame, rest) = split_frame(&bytes).unwrap().unwrap();
        assert_eq!(message.parse_alike(frame.kind, frame.body), message, "{name}");
        assert!(rest.is_empty(), "{name}");
    }
}

#[test]
fn no_golden_file_lost_its_message() {
    let names: BTreeSet<_> = samples().into_iter().map(|(name, _)| format!("{name}.bin")).collect();
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "{name} is in no sample");
    }
}

#[test]
fn every_kind_has_a_sample() {
    let sampled: BTreeSet<u16> = samples()
        .iter()
        .map(|(_, message)| u16::from_le_bytes(*message.to_frame()[4..].first_chunk().unwrap()))
        .collect();
    for (kind, name) in Request::KINDS.iter().chain(Reply::KINDS) {
        assert!(sampled.contains(kind), "{name} has no sample");
    }
}
