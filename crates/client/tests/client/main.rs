//! The real command against an agent that says what the test wants.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the agent of a test knows what it is asked")]

mod adding;
mod command_line;
#[path = "../fake/mod.rs"]
mod fake;
mod finding;
mod looking;
mod session;
mod token;

use dph_agent_protocol::{
    ErrorCode, Failure, KeySourceKind, PlatformKind, ProfileEntry, Reply, Secret, Token,
};
use fake::Outcome;

pub(crate) fn token() -> Token {
    Token {
        token: Secret::new("eyJ.abc.def".into()),
        profile: "prod".into(),
        url: "https://cpd.example.com".into(),
        username: Some("alice".into()),
        expires_at: Some(1_800_000_000),
        expires_in_ms: Some(3_599_900),
        ca_file: Some("/etc/ca.pem".into()),
        warning: None,
    }
}

pub(crate) fn failure(code: ErrorCode) -> Reply {
    Reply::Failure(Failure {
        code,
        message: "it \u{1b}[31mfailed".into(),
        hint: "mend it".into(),
        retry_after_ms: Some(1500),
    })
}

pub(crate) fn entry(name: &str) -> ProfileEntry {
    ProfileEntry {
        name: name.into(),
        platform: PlatformKind::SOFTWARE_HUB,
        url: "https://cpd.example.com".into(),
        username: Some("alice".into()),
        key_source: KeySourceKind::SESSION,
    }
}

pub(crate) fn ok(stdout: &str) -> Outcome {
    Outcome { status: 0, stdout: stdout.into(), stderr: String::new() }
}
