//! One of every message, and several where options and lists differ: what the golden files hold.
#![allow(dead_code, reason = "each test file that includes this one uses its own part")]

use dph_agent_protocol::{
    Add, AddFor, Added, AgentStatus, Approve, AuditMode, AuditState, Bytes, Certificate, ChangeKey,
    ChangeMode, ChangeOutcome, Changed, Deny, ErrorCode, Explain, Explained, Failure, Hello, HelloReply,
    Kept, KeySourceKind, KeyState, LastError, Listing, Lock, LockState, Migrate, MigrateWith, Migrated, Page,
    PendingList, PendingRequest, PlatformKind, Pong, Prepare, Prepared, Process, ProfileEntry, ProfileStatus,
    RefreshMode, Reply, Request, Secret, SecretMemory, Selector, Settings, StatusRequest, Statuses, Token,
    TokenRequest, TokenState, Trust, Unlock, Verdict, Waiting, Warning, Zen, ZenHeader,
};

/// All that can stand in a frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Hello(Hello),
    HelloReply(HelloReply),
    Request(Request),
    Reply(Reply),
}

impl Message {
    pub(crate) fn to_frame(&self) -> Bytes {
        match self {
            Self::Hello(hello) => Bytes::new(hello.to_frame().to_vec()),
            Self::HelloReply(reply) => Bytes::new(reply.to_frame().to_vec()),
            Self::Request(request) => request.to_frame().unwrap(),
            Self::Reply(reply) => reply.to_frame().unwrap(),
        }
    }

    /// Reads a frame as what `self` is.
    pub(crate) fn parse_alike(&self, kind: u16, body: &[u8]) -> Self {
        match self {
            Self::Hello(_) => Self::Hello(Hello::parse(kind, body).unwrap()),
            Self::HelloReply(_) => Self::HelloReply(HelloReply::parse(kind, body).unwrap()),
            Self::Request(_) => Self::Request(Request::from_body(kind, body).unwrap()),
            Self::Reply(_) => Self::Reply(Reply::from_body(kind, body).unwrap()),
        }
    }
}

/// Returns every sample with the name of its golden file.
pub(crate) fn samples() -> Vec<(String, Message)> {
    let hellos = [("hello", Hello::OURS), ("hello-range", Hello { min: 1, current: 300, encoded: 2 })];
    let hello_replies = [
        ("welcome", HelloReply::Welcome { version: 1, current: 1 }),
        ("welcome-newer-agent", HelloReply::Welcome { version: 1, current: 300 }),
        ("version-mismatch", HelloReply::Mismatch { min: 2, max: 3 }),
    ];
    let named = |prefix: &str, name: &str, message| (format!("{prefix}{name}"), message);
    hellos
        .map(|(name, hello)| named("", name, Message::Hello(hello)))
        .into_iter()
        .chain(hello_replies.map(|(name, reply)| named("", name, Message::HelloReply(reply))))
        .chain(requests().into_iter().map(|(name, it)| named("request-", name, Message::Request(it))))
        .chain(replies().into_iter().map(|(name, it)| named("reply-", name, Message::Reply(it))))
        .collect()
}

fn requests() -> Vec<(&'static str, Request)> {
    vec![
        ("ping", Request::Ping),
        ("ready", Request::Ready(Selector::default())),
        ("ready-for-url", Request::Ready(for_url())),
        ("token", Request::Token(token_request())),
        ("token-bare", Request::Token(TokenRequest::default())),
        ("token-new", Request::Token(TokenRequest { new: true, ..token_request() })),
        (
            "token-rejected",
            Request::Token(TokenRequest { rejected: secret("eyJ.old.sig"), ..token_request() }),
        ),
        ("list", Request::List(Page::default())),
        ("list-after", Request::List(Page { after: text("prod") })),
        ("status", Request::Status(StatusRequest::default())),
        (
            "status-one",
            Request::Status(StatusRequest { selector: prod(), page: Page { after: text("dev") } }),
        ),
        ("prepare", Request::Prepare(prepare())),
        ("prepare-bare", Request::Prepare(prepare_bare())),
        ("add", Request::Add(add())),
        ("add-bare", Request::Add(add_bare())),
        ("set-default", Request::SetDefault(prod())),
        ("forget", Request::Forget(Kept { selector: prod(), all: false, dry_run: false })),
        ("forget-all", Request::Forget(Kept { selector: Selector::default(), all: true, dry_run: true })),
        ("remove", Request::Remove(Kept { selector: for_url(), all: false, dry_run: true })),
        ("remove-all", Request::Remove(Kept { selector: Selector::default(), all: true, dry_run: false })),
        ("refresh", Request::Refresh(Waiting { selector: prod(), all: false, deadline_ms: 29_800 })),
        (
            "refresh-all",
            Request::Refresh(Waiting { selector: Selector::default(), all: true, deadline_ms: 0 }),
        ),
        ("stop", Request::Stop),
        (
            "lock",
            Request::Lock(Lock {
                passphrase: secret("hunter2"),
                new_passphrase: secret("correct horse"),
                deadline_ms: 29_800,
            }),
        ),
        ("lock-bare", Request::Lock(Lock::default())),
        ("unlock", Request::Unlock(Unlock { passphrase: secret("correct horse"), deadline_ms: 29_800 })),
        ("unlock-bare", Request::Unlock(Unlock::default())),
        ("lock-state", Request::LockState),
        ("add-for", Request::AddFor(AddFor { add: add(), ttl_ms: 28_800_000 })),
        (
            "migrate",
            Request::Migrate(Migrate {
                selector: prod(),
                to: text("sealed"),
                dry_run: true,
                deadline_ms: 29_800,
            }),
        ),
        (
            "migrate-with",
            Request::MigrateWith(MigrateWith {
                migrate: Migrate {
                    selector: for_url(),
                    to: text("file:/home/alice/key"),
                    dry_run: false,
                    deadline_ms: 29_800,
                },
                passphrase: Secret::new(text("correct horse")),
            }),
        ),
        ("audit-state", Request::AuditState),
        ("rotate", Request::Rotate(ChangeKey { selector: for_url(), mode: ChangeMode::TRY, deadline_ms: 0 })),
        (
            "revoke",
            Request::Revoke(ChangeKey { selector: prod(), mode: ChangeMode::WAIT, deadline_ms: 29_800 }),
        ),
        ("zen", Request::Zen(Zen { selector: prod(), deadline_ms: 29_800 })),
        ("zen-bare", Request::Zen(Zen::default())),
        ("pending", Request::Pending(Page::default())),
        ("pending-after", Request::Pending(Page { after: text("4q7m2k") })),
        (
            "approve",
            Request::Approve(Approve {
                id: text("4q7m2k"),
                passphrase: secret("correct horse"),
                deadline_ms: 29_800,
            }),
        ),
        ("approve-bare", Request::Approve(Approve { id: text("4q7m2k"), ..Approve::default() })),
        ("deny", Request::Deny(Deny { id: text("4q7m2k") })),
        ("explain", Request::Explain(Explain { pid: 4242, selector: prod() })),
        ("explain-default", Request::Explain(Explain { pid: 1, selector: Selector::default() })),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    vec![
        ("failure", Reply::Failure(failure(Some(1500)))),
        ("failure-bare", Reply::Failure(failure(None))),
        // Both sides of every border between two lengths of an integer.
        ("failure-after-250", Reply::Failure(failure(Some(250)))),
        ("failure-after-251", Reply::Failure(failure(Some(251)))),
        ("failure-after-65535", Reply::Failure(failure(Some(65_535)))),
        ("failure-after-65536", Reply::Failure(failure(Some(65_536)))),
        ("failure-after-4294967295", Reply::Failure(failure(Some(4_294_967_295)))),
        ("failure-after-4294967296", Reply::Failure(failure(Some(4_294_967_296)))),
        ("failure-unknown-code", Reply::Failure(Failure { code: ErrorCode(65_535), ..failure(None) })),
        ("pong", Reply::Pong(Pong { version: text("0.1.0"), pid: 4242 })),
        ("token", Reply::Token(token())),
        ("token-bare", Reply::Token(token_bare())),
        ("listing", Reply::Listing(listing())),
        ("listing-empty", Reply::Listing(Listing { profiles: Vec::new(), default: None, more: false })),
        ("statuses", Reply::Statuses(statuses())),
        ("statuses-locked", Reply::Statuses(statuses_locked())),
        ("prepared", Reply::Prepared(prepared())),
        ("prepared-bare", Reply::Prepared(prepared_bare())),
        ("added", Reply::Added(added())),
        ("added-bare", Reply::Added(added_bare())),
        ("done", Reply::Done(vec![text("dev"), text("prod")])),
        ("done-none", Reply::Done(Vec::new())),
        ("stopping", Reply::Stopping),
        (
            "lock-state",
            Reply::LockState(LockState { locked: true, has_passphrase: true, notes: vec![text("a note")] }),
        ),
        (
            "lock-state-open",
            Reply::LockState(LockState { locked: false, has_passphrase: false, notes: Vec::new() }),
        ),
        (
            "migrated",
            Reply::Migrated(Migrated {
                profile: text("prod"),
                from: text("file:/home/alice/key"),
                to: text("keyring"),
                notes: vec![text("a note")],
            }),
        ),
        ("audit-state", Reply::AuditState(audit_state())),
        (
            "changed",
            Reply::Changed(Changed {
                profile: text("prod"),
                outcome: ChangeOutcome::REVOKED,
                tokens_until: Some(1_800_000_000),
                notes: vec![text("a note")],
            }),
        ),
        ("audit-state-off", Reply::AuditState(audit_state_off())),
        (
            "zen",
            Reply::Zen(ZenHeader {
                header: Secret::new(text("ZenApiKey YWxpY2U6czNjcmV0")),
                profile: text("prod"),
                url: text("https://cpd.example.com"),
            }),
        ),
        ("pending-list", Reply::PendingList(pending_list())),
        ("pending-list-empty", Reply::PendingList(PendingList { requests: Vec::new(), more: false })),
        ("explained", Reply::Explained(explained())),
        ("explained-bare", Reply::Explained(explained_bare())),
    ]
}

fn prod() -> Selector {
    Selector { profile: Some(text("prod")), for_url: None }
}

fn for_url() -> Selector {
    Selector { profile: None, for_url: Some(text("https://cpd.example.com/data")) }
}

fn token_request() -> TokenRequest {
    TokenRequest {
        selector: prod(),
        min_ttl_ms: Some(300_000),
        new: false,
        rejected: None,
        deadline_ms: 29_800,
    }
}

fn settings() -> Settings {
    Settings {
        platform: Some(PlatformKind::SOFTWARE_HUB),
        url: Some(text("https://cpd.example.com")),
        auth_url: Some(text("https://login.example.com")),
        username: Some(text("zoë")),
        scope: Some(text("services/1234")),
        ca_file: Some(text("/etc/ssl/corp.pem")),
        tls_pin: Some(pin()),
        proxy: Some(text("none")),
        key_source: Some(text("file:/run/secrets/dph")),
        refresh: Some(RefreshMode::ALWAYS),
    }
}

fn prepare() -> Prepare {
    Prepare {
        profile: Some(text("prod")),
        settings: settings(),
        replace: true,
        trust_server: true,
        reach: true,
        deadline_ms: 600_000,
    }
}

fn prepare_bare() -> Prepare {
    Prepare {
        profile: None,
        settings: Settings::default(),
        replace: false,
        trust_server: false,
        reach: false,
        deadline_ms: 250,
    }
}

fn add() -> Add {
    Add {
        profile: text("prod"),
        settings: settings(),
        key: secret("correct-horse-battery-staple"),
        replace: true,
        verify: true,
        deadline_ms: 29_800,
    }
}

fn add_bare() -> Add {
    Add {
        profile: text("default"),
        settings: Settings::default(),
        key: None,
        replace: false,
        verify: false,
        deadline_ms: 251,
    }
}

fn failure(retry_after_ms: Option<u64>) -> Failure {
    Failure {
        code: ErrorCode::THROTTLED,
        message: text("the platform asked for fewer requests"),
        hint: text("try again later"),
        retry_after_ms,
    }
}

fn token() -> Token {
    Token {
        token: Secret::new(text("eyJ.new.sig")),
        profile: text("prod"),
        url: text("https://cpd.example.com"),
        username: Some(text("alice")),
        expires_at: Some(1_800_000_000),
        expires_in_ms: Some(1_200_000),
        ca_file: Some(text("/etc/ssl/corp.pem")),
        warning: Some(Warning::KEY_REFUSED),
    }
}

fn token_bare() -> Token {
    Token {
        token: Secret::new(text("opaque")),
        profile: text("cloud"),
        url: text("https://api.example.com"),
        username: None,
        expires_at: None,
        expires_in_ms: None,
        ca_file: None,
        warning: None,
    }
}

fn prod_entry() -> ProfileEntry {
    ProfileEntry {
        name: text("prod"),
        platform: PlatformKind::SOFTWARE_HUB,
        url: text("https://cpd.example.com"),
        username: Some(text("alice")),
        key_source: KeySourceKind::KEYRING,
    }
}

fn cloud_entry() -> ProfileEntry {
    ProfileEntry {
        name: text("cloud"),
        platform: PlatformKind(300),
        url: text("https://api.example.com"),
        username: None,
        key_source: KeySourceKind::SESSION,
    }
}

fn listing() -> Listing {
    Listing { profiles: vec![cloud_entry(), prod_entry()], default: Some(text("prod")), more: true }
}

fn statuses() -> Statuses {
    let last_error = LastError {
        code: ErrorCode::UNREACHABLE,
        message: text("cannot connect"),
        since: 1_799_999_000,
        next_try_at: Some(1_800_000_060),
    };
    let prod = ProfileStatus {
        entry: prod_entry(),
        key_state: KeyState::HELD,
        key_added_at: Some(1_790_000_000),
        key_expires_at: Some(4_102_444_800),
        token_state: TokenState::FRESH,
        usable_until: Some(1_800_000_900),
        next_refresh_at: Some(1_800_000_540),
        served: 70_000,
        exchanges: 251,
        last_error: Some(last_error),
    };
    let agent = AgentStatus { config_error: Some(text("line 3, column 1")), ..agent_status() };
    Statuses { agent, profiles: vec![cloud_status(), prod], more: true }
}

fn cloud_status() -> ProfileStatus {
    ProfileStatus {
        entry: cloud_entry(),
        key_state: KeyState::UNREAD,
        key_added_at: None,
        key_expires_at: None,
        token_state: TokenState::NONE,
        usable_until: None,
        next_refresh_at: None,
        served: 0,
        exchanges: u64::MAX,
        // A clock that stands before 1970.
        last_error: Some(LastError {
            code: ErrorCode::FAILED,
            message: String::new(),
            since: -1,
            next_try_at: None,
        }),
    }
}

fn agent_status() -> AgentStatus {
    AgentStatus {
        version: text("0.1.0"),
        pid: 4242,
        socket: text("/run/user/1000/dph-agent/agent.sock"),
        locked: false,
        started_at: 1_799_990_000,
        secret_memory: SecretMemory::MEMFD,
        profile_count: 2,
        config_error: None,
    }
}

fn statuses_locked() -> Statuses {
    Statuses { agent: AgentStatus { locked: true, ..agent_status() }, profiles: Vec::new(), more: false }
}

fn prepared() -> Prepared {
    let certificate = Certificate {
        subject: text("CN=cpd.example.com"),
        issuer: text("CN=cpd.example.com"),
        names: vec![text("cpd.example.com"), text("192.0.2.7")],
        sha256: pin(),
        not_after: 1_900_000_000,
        trust: Trust::NOBODY,
    };
    Prepared {
        profile: text("prod"),
        exists: true,
        platform: PlatformKind::SOFTWARE_HUB,
        url: text("https://cpd.example.com"),
        auth_url: text("https://login.example.com"),
        username: Some(text("alice")),
        key_source: KeySourceKind::FILE,
        wants_key: true,
        certificate: Some(certificate),
        notes: vec![text("the path of the URL was dropped")],
    }
}

fn prepared_bare() -> Prepared {
    Prepared {
        profile: text("default"),
        exists: false,
        platform: PlatformKind::MCSP,
        url: text("https://api.example.com"),
        auth_url: text("https://account.example.com"),
        username: None,
        key_source: KeySourceKind::COMMAND,
        wants_key: false,
        certificate: None,
        notes: Vec::new(),
    }
}

fn added() -> Added {
    Added {
        profile: text("prod"),
        verified: true,
        token_life_ms: Some(43_200_000),
        notes: vec![text("a first note"), text("a second note")],
    }
}

fn added_bare() -> Added {
    Added { profile: text("default"), verified: false, token_life_ms: None, notes: Vec::new() }
}

fn audit_state() -> AuditState {
    AuditState {
        mode: AuditMode::REQUIRED,
        file: text("/home/alice/.local/state/dph-agent/audit.jsonl"),
        head: Some("5e".repeat(32)),
        lines: 70_000,
        lost: 251,
        error: Some(text("no space left on device")),
    }
}

fn audit_state_off() -> AuditState {
    AuditState { mode: AuditMode::OFF, file: text("audit.jsonl"), head: None, lines: 0, lost: 0, error: None }
}

fn pending_list() -> PendingList {
    let job = PendingRequest {
        id: text("4q7m2k"),
        profile: text("prod"),
        process: process(),
        since: 1_800_000_000,
        expires_in_ms: 59_000,
    };
    let unknown = PendingRequest {
        id: text("zz0000"),
        profile: text("cloud"),
        process: Process::default(),
        since: -1,
        expires_in_ms: 0,
    };
    PendingList { requests: vec![job, unknown], more: true }
}

fn process() -> Process {
    Process {
        pid: Some(4242),
        exe: Some(text("/usr/bin/dph-agent-client")),
        unit: Some(text("job.service")),
        parent: Some(text("/usr/bin/bash")),
    }
}

fn explained() -> Explained {
    Explained {
        profile: text("prod"),
        process: process(),
        verdict: Verdict::CONFIRM,
        reason: text("`confirm` of profile `prod` asks somebody"),
        notes: vec![text("a first note"), text("a second note")],
    }
}

fn explained_bare() -> Explained {
    Explained {
        profile: text("default"),
        process: Process { pid: Some(1), ..Process::default() },
        verdict: Verdict(300),
        reason: String::new(),
        notes: Vec::new(),
    }
}

fn pin() -> String {
    format!("sha256:{}", "5e".repeat(32))
}

fn secret(value: &str) -> Option<Secret> {
    Some(Secret::new(text(value)))
}

fn text(value: &str) -> String {
    value.to_owned()
}
