//! What the agent answers.

use crate::code::ErrorCode;
use crate::codec::wire;
use crate::message::{message_arm, messages};
use crate::open_set::open_set;
use crate::request::{KeySourceKind, PlatformKind};
use crate::secret::Secret;

messages! {
    /// A reply.
    Reply {
        /// The request failed.
        Failure(Failure) = 0x8003 "failure",
        /// Answers `Ping` and `Ready`.
        Pong(Pong) = 0x8010 "pong",
        /// Answers `Token`.
        Token(Token) = 0x8012 "token",
        /// Answers `List`.
        Listing(Listing) = 0x8013 "listing",
        /// Answers `Status`.
        Statuses(Statuses) = 0x8014 "statuses",
        /// Answers `Prepare`.
        Prepared(Prepared) = 0x8015 "prepared",
        /// Answers `Add`.
        Added(Added) = 0x8016 "added",
        /// Answers `SetDefault`, `Forget`, `Remove`, `Refresh`, `Approve` and `Deny` with the profiles concerned.
        Done(Vec<String>) = 0x8017 "done",
        /// Answers `Stop`; the agent ends once its sessions have.
        Stopping = 0x801b "stopping",
        /// Answers `Lock`, `Unlock` and `LockState`.
        LockState(LockState) = 0x801c "lock-state",
        /// Answers `Revoke` and `Rotate`.
        Changed(Changed) = 0x8021 "changed",
        /// Answers `Migrate` and `MigrateWith`.
        Migrated(Migrated) = 0x8020 "migrated",
        /// Answers `AuditState`.
        AuditState(AuditState) = 0x8040 "audit-state",
        /// Answers `Zen`.
        Zen(ZenHeader) = 0x8050 "zen",
        /// Answers `Pending`.
        PendingList(PendingList) = 0x8030 "pending-list",
        /// Answers `Explain`.
        Explained(Explained) = 0x8033 "explained",
    }
}

wire! {
    /// Why a request failed.
    pub struct Failure {
        /// Decides the exit status.
        pub code: ErrorCode,
        /// What failed: a fragment without a full stop, never with a secret.
        pub message: String,
        /// The next step.
        pub hint: String,
        /// When trying again may help, in milliseconds from now.
        pub retry_after_ms: Option<u64>,
    }

    /// The agent is there.
    pub struct Pong {
        /// Its version, as in `Cargo.toml`.
        pub version: String,
        /// Its process.
        pub pid: u32,
    }

    /// A bearer token.
    pub struct Token {
        /// The token itself, at most [`MAX_TOKEN_LEN`](crate::MAX_TOKEN_LEN) bytes.
        pub token: Secret,
        /// The profile it belongs to.
        pub profile: String,
        /// Where the platform's API is called.
        pub url: String,
        /// The user, where the platform needs a name.
        pub username: Option<String>,
        /// When it ends by the wall clock, in seconds since 1970; absent: the platform did not say.
        pub expires_at: Option<i64>,
        /// Life that is left, in milliseconds.
        pub expires_in_ms: Option<u64>,
        /// The profile's `ca-file`.
        pub ca_file: Option<String>,
        /// Something the user should know.
        pub warning: Option<Warning>,
    }

    /// One page of profiles, by name.
    pub struct Listing {
        /// The entries.
        pub profiles: Vec<ProfileEntry>,
        /// The default profile.
        pub default: Option<String>,
        /// Ask again with `after` set to the last name.
        pub more: bool,
    }

    /// A profile in a list.
    pub struct ProfileEntry {
        /// Its name.
        pub name: String,
        /// Its platform.
        pub platform: PlatformKind,
        /// Where the platform's API is called.
        pub url: String,
        /// The user, where the platform needs a name.
        pub username: Option<String>,
        /// Where its key comes from.
        pub key_source: KeySourceKind,
    }

    /// The state of the agent and one page of its profiles.
    pub struct Statuses {
        /// The agent.
        pub agent: AgentStatus,
        /// The profiles; none while locked.
        pub profiles: Vec<ProfileStatus>,
        /// Ask again with `after` set to the last name.
        pub more: bool,
    }

    /// The state of the agent.
    pub struct AgentStatus {
        /// Its version, as in `Cargo.toml`.
        pub version: String,
        /// Its process.
        pub pid: u32,
        /// Where it listens.
        pub socket: String,
        /// Whether secrets are sealed.
        pub locked: bool,
        /// When it was started, in seconds since 1970.
        pub started_at: i64,
        /// How keys lie in memory.
        pub secret_memory: SecretMemory,
        /// Profiles in the configuration.
        pub profile_count: u32,
        /// Why the configuration file is not in force, where it is not.
        pub config_error: Option<String>,
    }

    /// The state of a profile.
    pub struct ProfileStatus {
        /// Its name, platform, URL, user and key source.
        pub entry: ProfileEntry,
        /// The key.
        pub key_state: KeyState,
        /// When the key was handed over or first read, in seconds since 1970.
        pub key_added_at: Option<i64>,
        /// When the key ends, in seconds since 1970, where known.
        pub key_expires_at: Option<i64>,
        /// The token.
        pub token_state: TokenState,
        /// Until when the held token is valid, in seconds since 1970.
        pub usable_until: Option<i64>,
        /// When the next token is bought, in seconds since 1970.
        pub next_refresh_at: Option<i64>,
        /// Tokens handed out.
        pub served: u64,
        /// Calls to the platform.
        pub exchanges: u64,
        /// What went wrong last, until something goes right.
        pub last_error: Option<LastError>,
    }

    /// What went wrong last.
    pub struct LastError {
        /// What kind of failure.
        pub code: ErrorCode,
        /// What failed.
        pub message: String,
        /// Since when, in seconds since 1970.
        pub since: i64,
        /// When it is tried again, in seconds since 1970.
        pub next_try_at: Option<i64>,
    }

    /// An `Add` that would work, so far.
    pub struct Prepared {
        /// The profile's name.
        pub profile: String,
        /// Whether it exists already.
        pub exists: bool,
        /// Its platform.
        pub platform: PlatformKind,
        /// Where the API is called, cleaned.
        pub url: String,
        /// Where tokens are bought.
        pub auth_url: String,
        /// The user, where the platform needs a name.
        pub username: Option<String>,
        /// Where the key will be kept or read.
        pub key_source: KeySourceKind,
        /// Whether `Add` must bring the key.
        pub wants_key: bool,
        /// The server's certificate, where one was seen.
        pub certificate: Option<Certificate>,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// A server's certificate.
    pub struct Certificate {
        /// Whose.
        pub subject: String,
        /// By whom.
        pub issuer: String,
        /// DNS names and addresses it is for.
        pub names: Vec<String>,
        /// `sha256:` and 64 hex digits over its DER form, as `tls-pin` takes it.
        pub sha256: String,
        /// End of its validity, in seconds since 1970.
        pub not_after: i64,
        /// Who vouches for it.
        pub trust: Trust,
    }

    /// A key was kept.
    pub struct Added {
        /// The profile's name.
        pub profile: String,
        /// A token was bought with it.
        pub verified: bool,
        /// Life of that token, in milliseconds.
        pub token_life_ms: Option<u64>,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// A key is somewhere else, or would be.
    pub struct Migrated {
        /// The profile's name.
        pub profile: String,
        /// The source that it was in, as it is written in the configuration.
        pub from: String,
        /// The source that it is in now.
        pub to: String,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// A key was changed at its platform, or would be.
    pub struct Changed {
        /// The profile's name.
        pub profile: String,
        /// What was done.
        pub outcome: ChangeOutcome,
        /// Until when tokens that were handed out before may be valid, in seconds since 1970.
        pub tokens_until: Option<i64>,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// One page of the requests that wait to be confirmed, by identifier.
    pub struct PendingList {
        /// The entries.
        pub requests: Vec<PendingRequest>,
        /// Ask again with `after` set to the last identifier.
        pub more: bool,
    }

    /// A request that waits to be confirmed.
    pub struct PendingRequest {
        /// What `Approve` and `Deny` call it.
        pub id: String,
        /// Whose token was asked for.
        pub profile: String,
        /// Who asks.
        pub process: Process,
        /// Since when, in seconds since 1970.
        pub since: i64,
        /// How long it waits from now on, in milliseconds.
        pub expires_in_ms: u64,
    }

    /// A process, as far as the agent can see it.
    #[derive(Default)]
    pub struct Process {
        /// Its number.
        pub pid: Option<u32>,
        /// The executable that it runs; of a script, the interpreter.
        pub exe: Option<String>,
        /// The systemd unit that it is in.
        pub unit: Option<String>,
        /// The executable of the process that started it.
        pub parent: Option<String>,
    }

    /// What a policy would say.
    pub struct Explained {
        /// The profile that is meant.
        pub profile: String,
        /// The process that was looked at.
        pub process: Process,
        /// What would be decided.
        pub verdict: Verdict,
        /// By which rule, and why.
        pub reason: String,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// A header that contains the key.
    pub struct ZenHeader {
        /// The value of the `Authorization` header.
        pub header: Secret,
        /// The profile it belongs to.
        pub profile: String,
        /// Where the platform's API is called.
        pub url: String,
    }

    /// How the lock stands.
    pub struct LockState {
        /// Whether the agent is locked.
        pub locked: bool,
        /// Whether a passphrase is set.
        pub has_passphrase: bool,
        /// What to tell the user, a line each.
        pub notes: Vec<String>,
    }

    /// How the audit log stands.
    pub struct AuditState {
        /// Whether it is written, and whether hand-outs depend on that.
        pub mode: AuditMode,
        /// Where it is.
        pub file: String,
        /// The hash of its last line, 64 hexadecimal digits, where one is known.
        pub head: Option<String>,
        /// Lines of the chain so far.
        pub lines: u64,
        /// Lines that could not be written since the agent started.
        pub lost: u64,
        /// Why it cannot be written now, where it cannot.
        pub error: Option<String>,
    }
}

open_set! {
    /// What becomes of the audit log.
    AuditMode {
        /// It is not written.
        OFF = 1 "off",
        /// It is written; what cannot be is reported and stops nobody.
        ON = 2 "on",
        /// A hand-out that cannot be recorded is refused.
        REQUIRED = 3 "required",
    }
}

open_set! {
    /// State of a key.
    KeyState {
        /// The agent has it.
        HELD = 1 "held",
        /// There is none.
        NONE = 2 "none",
        /// Its source cannot be read now.
        UNAVAILABLE = 3 "unavailable",
        /// The platform refused it.
        REJECTED = 4 "rejected",
        /// The configuration says something else than when it was given.
        ORIGIN_CHANGED = 5 "origin-changed",
        /// URL, certificate or answer is wrong.
        MISCONFIGURED = 6 "misconfigured",
        /// Being made invalid.
        REVOKING = 7 "revoking",
        /// Being replaced.
        ROTATING = 8 "rotating",
        /// A rotation ended without a working key.
        LOST = 9 "lost",
        /// Not read yet; the first token request does.
        UNREAD = 10 "unread",
    }
}

open_set! {
    /// State of a token.
    TokenState {
        /// There is none.
        NONE = 1 "none",
        /// One is being bought.
        FETCHING = 2 "fetching",
        /// Held and valid.
        FRESH = 3 "fresh",
        /// Held, and past its end.
        EXPIRED = 4 "expired",
    }
}

open_set! {
    /// How keys lie in memory at rest.
    SecretMemory {
        /// Ordinary memory of a process that cannot be read by others or dumped.
        UNDUMPABLE = 1 "undumpable",
        /// Memory that the kernel maps for nobody else.
        MEMFD = 2 "memfd",
        /// Encrypted in a locked page.
        ENCRYPTED = 3 "encrypted",
        /// Encrypted, in a page that limits forbid to lock: it may be swapped out.
        ENCRYPTED_SWAPPABLE = 4 "encrypted-swappable",
    }
}

open_set! {
    /// Who vouches for a certificate.
    Trust {
        /// The system's roots or the profile's `ca-file`.
        ROOTS = 1 "roots",
        /// The profile's `tls-pin`.
        PIN = 2 "pin",
        /// Nobody.
        NOBODY = 3 "nobody",
    }
}

open_set! {
    /// What a caller should know about a token that it got.
    Warning {
        /// The key is already refused: this token is the last one.
        KEY_REFUSED = 1 "key-refused",
        /// The configuration has changed: this token is the last one until `add`.
        ORIGIN_CHANGED = 2 "origin-changed",
    }
}

open_set! {
    /// What was done to a key at its platform.
    ChangeOutcome {
        /// It is invalid.
        REVOKED = 1 "revoked",
        /// It was invalid before.
        ALREADY_INVALID = 2 "already-invalid",
        /// Another one is in its place.
        ROTATED = 3 "rotated",
        /// Nothing: the wish was taken back.
        CANCELLED = 4 "cancelled",
        /// Nothing yet: only asked.
        PLANNED = 5 "planned",
    }
}

open_set! {
    /// What a policy says to a request.
    Verdict {
        /// It is answered.
        ALLOWED = 1 "allowed",
        /// It is refused.
        DENIED = 2 "denied",
        /// It waits until somebody confirms it.
        CONFIRM = 3 "confirm",
    }
}
