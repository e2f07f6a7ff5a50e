//! Another crate reads and writes every golden file as bincode does: the way out, proven.
//!
//! The types below mirror the library's, name by name, so that both print alike.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::mem_forget, reason = "wincode's derive disarms its drop guards so")]

mod samples;

use std::fmt;

use samples::samples;
use wincode::config::{self, Configuration};
use wincode::{SchemaRead, SchemaWrite};

/// Decodes `body` as `T` and returns how the value prints and how it is encoded again.
macro_rules! reread {
    ($T:ty, $body:expr) => {{
        let codec = Configuration::default().with_varint_encoding();
        let value: $T = config::deserialize_exact($body, codec).unwrap();
        (format!("{value:?}"), config::serialize(&value, codec).unwrap())
    }};
}

fn reread(kind: u16, body: &[u8]) -> Option<(String, Vec<u8>)> {
    Some(match kind {
        0x0011 | 0x0017 => reread!(Selector, body),
        0x0012 => reread!(TokenRequest, body),
        0x0013 => reread!(Page, body),
        0x0014 => reread!(StatusRequest, body),
        0x0015 => reread!(Prepare, body),
        0x0016 => reread!(Add, body),
        0x0018 | 0x0019 => reread!(Kept, body),
        0x001a => reread!(Waiting, body),
        0x001c => reread!(Lock, body),
        0x001d => reread!(Unlock, body),
        0x0030 => reread!(Page, body),
        0x0031 => reread!(Approve, body),
        0x0032 => reread!(Deny, body),
        0x0033 => reread!(Explain, body),
        0x0050 => reread!(Zen, body),
        0x8003 => reread!(Failure, body),
        0x8010 => reread!(Pong, body),
        0x8012 => reread!(Token, body),
        0x8013 => reread!(Listing, body),
        0x8014 => reread!(Statuses, body),
        0x8015 => reread!(Prepared, body),
        0x8016 => reread!(Added, body),
        0x8017 => reread!(Vec<String>, body),
        0x801c => reread!(LockState, body),
        0x001f => reread!(AddFor, body),
        0x0020 => reread!(Migrate, body),
        0x0023 => reread!(MigrateWith, body),
        0x8020 => reread!(Migrated, body),
        0x8040 => reread!(AuditState, body),
        0x0021 | 0x0022 => reread!(ChangeKey, body),
        0x8021 => reread!(Changed, body),
        0x8050 => reread!(ZenHeader, body),
        0x8030 => reread!(PendingList, body),
        0x8033 => reread!(Explained, body),
        _ => return None,
    })
}

#[test]
fn wincode_reads_and_writes_every_golden_file_as_bincode_does() {
    for (name, message) in samples() {
        let path = format!("{}/tests/golden/v1/{name}.bin", env!("CARGO_MANIFEST_DIR"));
        let frame = std::fs::read(path).unwrap();
        let (kind, body) = (u16::from_le_bytes([frame[4], frame[5]]), &frame[6..]);
        let Some((printed, bytes)) = reread(kind, body) else {
            assert!(body.is_empty() || body.starts_with(b"DPHA"), "{name} has no mirror");
            continue;
        };
        let ours = format!("{message:?}");
        assert!(ours.ends_with(&format!("({printed}))")), "{name}: {printed} is not {ours}");
        assert_eq!(bytes, body, "{name}");
    }
}

macro_rules! mirror {
    ($($name:ident { $($field:ident: $of:ty,)* })*) => {
        $(#[derive(Debug, SchemaRead, SchemaWrite)] struct $name { $($field: $of,)* })*
    };
}

macro_rules! numbers {
    ($($name:ident)*) => { $(#[derive(Debug, SchemaRead, SchemaWrite)] struct $name(u16);)* };
}

#[derive(SchemaRead, SchemaWrite)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

numbers! {
    AuditMode ChangeMode ChangeOutcome ErrorCode KeySourceKind KeyState PlatformKind RefreshMode SecretMemory TokenState Trust Verdict Warning
}

mirror! {
    Selector { profile: Option<String>, for_url: Option<String>, }
    TokenRequest {
        selector: Selector,
        min_ttl_ms: Option<u64>,
        new: bool,
        rejected: Option<Secret>,
        deadline_ms: u32,
    }
    Page { after: String, }
    StatusRequest { selector: Selector, page: Page, }
    Settings {
        platform: Option<PlatformKind>,
        url: Option<String>,
        auth_url: Option<String>,
        username: Option<String>,
        scope: Option<String>,
        ca_file: Option<String>,
        tls_pin: Option<String>,
        proxy: Option<String>,
        key_source: Option<String>,
        refresh: Option<RefreshMode>,
    }
    Prepare {
        profile: Option<String>,
        settings: Settings,
        replace: bool,
        trust_server: bool,
        reach: bool,
        deadline_ms: u32,
    }
    Add {
        profile: String,
        settings: Settings,
        key: Option<Secret>,
        replace: bool,
        verify: bool,
        deadline_ms: u32,
    }
    AddFor { add: Add, ttl_ms: u64, }
    Migrate { selector: Selector, to: String, dry_run: bool, deadline_ms: u32, }
    MigrateWith { migrate: Migrate, passphrase: Secret, }
    Kept { selector: Selector, all: bool, dry_run: bool, }
    Waiting { selector: Selector, all: bool, deadline_ms: u32, }
    Lock { passphrase: Option<Secret>, new_passphrase: Option<Secret>, deadline_ms: u32, }
    Unlock { passphrase: Option<Secret>, deadline_ms: u32, }
    Approve { id: String, passphrase: Option<Secret>, deadline_ms: u32, }
    Deny { id: String, }
    Explain { pid: u32, selector: Selector, }
    Zen { selector: Selector, deadline_ms: u32, }

    Failure { code: ErrorCode, message: String, hint: String, retry_after_ms: Option<u64>, }
    Pong { version: String, pid: u32, }
    Token {
        token: Secret,
        profile: String,
        url: String,
        username: Option<String>,
        expires_at: Option<i64>,
        expires_in_ms: Option<u64>,
        ca_file: Option<String>,
        warning: Option<Warning>,
    }
    Listing { profiles: Vec<ProfileEntry>, default: Option<String>, more: bool, }
    ProfileEntry {
        name: String,
        platform: PlatformKind,
        url: String,
        username: Option<String>,
        key_source: KeySourceKind,
    }
    Statuses { agent: AgentStatus, profiles: Vec<ProfileStatus>, more: bool, }
    AgentStatus {
        version: String,
        pid: u32,
        socket: String,
        locked: bool,
        started_at: i64,
        secret_memory: SecretMemory,
        profile_count: u32,
        config_error: Option<String>,
    }
    ProfileStatus {
        entry: ProfileEntry,
        key_state: KeyState,
        key_added_at: Option<i64>,
        key_expires_at: Option<i64>,
        token_state: TokenState,
        usable_until: Option<i64>,
        next_refresh_at: Option<i64>,
        served: u64,
        exchanges: u64,
        last_error: Option<LastError>,
    }
    LastError { code: ErrorCode, message: String, since: i64, next_try_at: Option<i64>, }
    Prepared {
        profile: String,
        exists: bool,
        platform: PlatformKind,
        url: String,
        auth_url: String,
        username: Option<String>,
        key_source: KeySourceKind,
        wants_key: bool,
        certificate: Option<Certificate>,
        notes: Vec<String>,
    }
    Certificate {
        subject: String,
        issuer: String,
        names: Vec<String>,
        sha256: String,
        not_after: i64,
        trust: Trust,
    }
    PendingList { requests: Vec<PendingRequest>, more: bool, }
    PendingRequest { id: String, profile: String, process: Process, since: i64, expires_in_ms: u64, }
    Process { pid: Option<u32>, exe: Option<String>, unit: Option<String>, parent: Option<String>, }
    Explained { profile: String, process: Process, verdict: Verdict, reason: String, notes: Vec<String>, }
    ZenHeader { header: Secret, profile: String, url: String, }
    LockState { locked: bool, has_passphrase: bool, notes: Vec<String>, }
    Migrated { profile: String, from: String, to: String, notes: Vec<String>, }
    ChangeKey { selector: Selector, mode: ChangeMode, deadline_ms: u32, }
    Changed { profile: String, outcome: ChangeOutcome, tokens_until: Option<i64>, notes: Vec<String>, }
    AuditState {
        mode: AuditMode,
        file: String,
        head: Option<String>,
        lines: u64,
        lost: u64,
        error: Option<String>,
    }
    Added { profile: String, verified: bool, token_life_ms: Option<u64>, notes: Vec<String>, }
}
