//! What `dph-agent` and its clients say to each other: values and bytes, no I/O.
//!
//! A connection starts with one [hello](Hello), which settles the [version] of all that
//! follows. After it each side sends [frames](frame): a header written by hand and a body written
//! by the one module that knows the codec. `PROTOCOL.md`, beside this crate's `Cargo.toml`, is the
//! specification, complete enough to write a client in another language.
#![forbid(unsafe_code)]

mod code;
mod codec;
pub mod frame;
mod message;
mod open_set;
mod reply;
mod request;
mod secret;
pub mod version;

use core::time::Duration;

pub use code::ErrorCode;
pub use message::{Bytes, DecodeError, EncodeError};
pub use reply::{
    Added, AgentStatus, AuditMode, AuditState, Certificate, ChangeOutcome, Changed, Explained, Failure,
    KeyState, LastError, Listing, LockState, Migrated, PendingList, PendingRequest, Pong, Prepared, Process,
    ProfileEntry, ProfileStatus, Reply, SecretMemory, Statuses, Token, TokenState, Trust, Verdict, Warning,
    ZenHeader,
};
pub use request::{
    Add, AddFor, Approve, ChangeKey, ChangeMode, Deny, Explain, Kept, KeySourceKind, Lock, Migrate,
    MigrateWith, Page, PlatformKind, Prepare, RefreshMode, Request, Selector, Settings, StatusRequest,
    TokenRequest, Unlock, Waiting, Zen,
};
pub use secret::Secret;
pub use version::{Hello, HelloReply};

/// Longest token that fits into a reply, in bytes; a longer one is [`ErrorCode::TOKEN_TOO_LARGE`].
pub const MAX_TOKEN_LEN: usize = 48 * 1024;

/// Longest time that a request may ask the agent to wait, in milliseconds (ten minutes).
pub const MAX_DEADLINE_MS: u32 = 600_000;

/// Entries on one page of a list; fewer when the frame would become too long.
pub const PAGE_LEN: usize = 16;

/// Requests that a client may have sent on one connection before it takes their replies.
pub const MAX_READ_AHEAD: usize = 16;

/// Time that a client has, from connecting, to settle the version.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which a frame must be complete once its first byte is there.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a client has to take a reply before its connection is closed.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which a connection is closed on which nothing was asked and nothing is pending.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
