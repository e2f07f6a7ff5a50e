//! What a client asks.

use crate::codec::wire;
use crate::message::{message_arm, messages};
use crate::open_set::open_set;
use crate::secret::Secret;

messages! {
    /// A request.
    Request {
        /// Is somebody there?
        Ping = 0x0010 "ping",
        /// Would a token request for this profile be answered well? Answered like `Ping`, or with the failure.
        Ready(Selector) = 0x0011 "ready",
        /// A bearer token, please.
        Token(TokenRequest) = 0x0012 "token",
        /// The profiles.
        List(Page) = 0x0013 "list",
        /// The state of the agent and of its profiles.
        Status(StatusRequest) = 0x0014 "status",
        /// Check the settings of an `Add` and reach the platform, before a key is asked for.
        Prepare(Prepare) = 0x0015 "prepare",
        /// Keep a key, and the profile it belongs to.
        Add(Add) = 0x0016 "add",
        /// Make a profile the default.
        SetDefault(Selector) = 0x0017 "set-default",
        /// Drop keys and keep their profiles.
        Forget(Kept) = 0x0018 "forget",
        /// Drop keys and their profiles.
        Remove(Kept) = 0x0019 "remove",
        /// Try again now, also what was given up.
        Refresh(Waiting) = 0x001a "refresh",
        /// End the agent.
        Stop = 0x001b "stop",
        /// Seal all secrets, or drop them where no passphrase is set.
        Lock(Lock) = 0x001c "lock",
        /// Open them again.
        Unlock(Unlock) = 0x001d "unlock",
        /// Is the agent locked, and does opening it take a passphrase?
        LockState = 0x001e "lock-state",
        /// Keep a key for a time.
        AddFor(AddFor) = 0x001f "add-for",
        /// Move a key to another source.
        Migrate(Migrate) = 0x0020 "migrate",
        /// Make a key invalid at its platform.
        Revoke(ChangeKey) = 0x0021 "revoke",
        /// Replace a key at its platform.
        Rotate(ChangeKey) = 0x0022 "rotate",
        /// Move a key, with the lock's passphrase.
        MigrateWith(MigrateWith) = 0x0023 "migrate-with",
        /// How does the audit log stand?
        AuditState = 0x0040 "audit-state",
        /// The key itself, in the header that Software Hub takes it in.
        Zen(Zen) = 0x0050 "zen",
        /// The requests that wait for somebody to confirm them.
        Pending(Page) = 0x0030 "pending",
        /// Let one of them through.
        Approve(Approve) = 0x0031 "approve",
        /// Refuse one of them.
        Deny(Deny) = 0x0032 "deny",
        /// What would a profile's policy say to a token request of this process?
        Explain(Explain) = 0x0033 "explain",
    }
}

impl Request {
    /// Whether the request holds a secret, which must wait for the agent's hello.
    #[must_use]
    pub fn carries_secret(&self) -> bool {
        match self {
            Self::Token(token) => token.rejected.is_some(),
            Self::Add(add) => add.key.is_some(),
            Self::AddFor(add_for) => add_for.add.key.is_some(),
            Self::Lock(lock) => lock.passphrase.is_some() || lock.new_passphrase.is_some(),
            Self::Unlock(unlock) => unlock.passphrase.is_some(),
            Self::Approve(approve) => approve.passphrase.is_some(),
            Self::MigrateWith(_) => true,
            Self::Ping
            | Self::Ready(_)
            | Self::List(_)
            | Self::Status(_)
            | Self::Prepare(_)
            | Self::SetDefault(_)
            | Self::Forget(_)
            | Self::Remove(_)
            | Self::Refresh(_)
            | Self::Stop
            | Self::LockState
            | Self::Migrate(_)
            | Self::Revoke(_)
            | Self::Rotate(_)
            | Self::AuditState
            | Self::Pending(_)
            | Self::Deny(_)
            | Self::Explain(_)
            | Self::Zen(_) => false,
        }
    }
}

wire! {
    /// Which profile is meant. Both absent: the default, or the only one.
    #[derive(Default)]
    pub struct Selector {
        /// The profile of this name.
        pub profile: Option<String>,
        /// The profile whose `url` has the origin of this one.
        pub for_url: Option<String>,
    }

    /// Asks for a token.
    #[derive(Default)]
    pub struct TokenRequest {
        /// Whose token.
        pub selector: Selector,
        /// Life that the token must still have, in milliseconds; absent: the default freshness.
        pub min_ttl_ms: Option<u64>,
        /// Buy a new one, whatever is held.
        pub new: bool,
        /// The token that the platform has just refused.
        pub rejected: Option<Secret>,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Which part of a list.
    #[derive(Default)]
    pub struct Page {
        /// Only entries behind this name, in byte order; empty: from the start.
        pub after: String,
    }

    /// Asks for the state.
    #[derive(Default)]
    pub struct StatusRequest {
        /// Only this profile; both absent: all.
        pub selector: Selector,
        /// Which part.
        pub page: Page,
    }

    /// Settings of a profile, as its keys in `config.toml`; absent: unchanged, or the default.
    #[derive(Default)]
    pub struct Settings {
        /// `platform`
        pub platform: Option<PlatformKind>,
        /// `url`
        pub url: Option<String>,
        /// `auth-url`
        pub auth_url: Option<String>,
        /// `username`
        pub username: Option<String>,
        /// `scope`
        pub scope: Option<String>,
        /// `ca-file`, absolute
        pub ca_file: Option<String>,
        /// `tls-pin`
        pub tls_pin: Option<String>,
        /// `proxy`
        pub proxy: Option<String>,
        /// `key-source`, as it is written in the configuration
        pub key_source: Option<String>,
        /// `refresh`
        pub refresh: Option<RefreshMode>,
    }

    /// Asks whether an `Add` would work, before the key is there.
    pub struct Prepare {
        /// The profile's name; absent: the default one, the only one, or `default`.
        pub profile: Option<String>,
        /// What to set or change.
        pub settings: Settings,
        /// Allow changing the URL or user name of an existing profile.
        pub replace: bool,
        /// Accept a certificate that nobody vouches for, to show it to the user.
        pub trust_server: bool,
        /// Reach the platform; false: only check the settings.
        pub reach: bool,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Hands over a key.
    pub struct Add {
        /// The profile's name, as `Prepared` gave it.
        pub profile: String,
        /// What to set or change.
        pub settings: Settings,
        /// The key, where the profile's key source takes one.
        pub key: Option<Secret>,
        /// Allow changing the URL or user name of an existing profile.
        pub replace: bool,
        /// Buy a token to prove the key before anything is kept.
        pub verify: bool,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Hands over a key that is wiped after a time.
    pub struct AddFor {
        /// The key and its profile.
        pub add: Add,
        /// How long it is kept, in milliseconds.
        pub ttl_ms: u64,
    }

    /// Asks to move a key.
    pub struct Migrate {
        /// Whose key.
        pub selector: Selector,
        /// The source to move it to, as it is written in the configuration.
        pub to: String,
        /// Only say what would be done.
        pub dry_run: bool,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Asks to move a key to where it takes the lock's passphrase.
    pub struct MigrateWith {
        /// Which key, and where to.
        pub migrate: Migrate,
        /// The lock's passphrase.
        pub passphrase: Secret,
    }

    /// Asks to change a key at its platform.
    pub struct ChangeKey {
        /// Whose key.
        pub selector: Selector,
        /// How far to go.
        pub mode: ChangeMode,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Names what `Forget` and `Remove` drop.
    pub struct Kept {
        /// One profile.
        pub selector: Selector,
        /// All of them; the selector is ignored.
        pub all: bool,
        /// Only say what would be dropped.
        pub dry_run: bool,
    }

    /// Names a profile, and how long to wait for it.
    pub struct Waiting {
        /// One profile.
        pub selector: Selector,
        /// All of them; the selector is ignored.
        pub all: bool,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Asks to lock.
    #[derive(Default)]
    pub struct Lock {
        /// The passphrase that is set, to set another one.
        pub passphrase: Option<Secret>,
        /// The passphrase that is to open the agent from now on; absent: as before.
        pub new_passphrase: Option<Secret>,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Asks to unlock.
    #[derive(Default)]
    pub struct Unlock {
        /// The passphrase; absent where none is set.
        pub passphrase: Option<Secret>,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Lets a waiting request through.
    #[derive(Default)]
    pub struct Approve {
        /// Which one.
        pub id: String,
        /// The lock's passphrase; absent where none is set.
        pub passphrase: Option<Secret>,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }

    /// Refuses a waiting request.
    pub struct Deny {
        /// Which one.
        pub id: String,
    }

    /// Asks what a policy would say.
    pub struct Explain {
        /// To which process.
        pub pid: u32,
        /// Whose policy.
        pub selector: Selector,
    }

    /// Asks for a `ZenApiKey` header, which contains the key.
    #[derive(Default)]
    pub struct Zen {
        /// Whose.
        pub selector: Selector,
        /// How long the agent may take, in milliseconds from receipt.
        pub deadline_ms: u32,
    }
}

open_set! {
    /// The kinds of platform.
    PlatformKind {
        /// IBM Software Hub, Cloud Pak for Data.
        SOFTWARE_HUB = 1 "software-hub",
        /// IBM Cloud IAM.
        IBM_CLOUD = 2 "ibm-cloud",
        /// The multi-cloud SaaS platform, on AWS.
        MCSP = 3 "mcsp",
    }
}

open_set! {
    /// How far to go with a change of a key.
    ChangeMode {
        /// Begin it, and answer with how the first try went.
        TRY = 1 "try",
        /// Begin it, and answer when it has ended.
        WAIT = 2 "wait",
        /// End it, if nothing was sent to the platform.
        CANCEL = 3 "cancel",
        /// Only say what would be done.
        DRY_RUN = 4 "dry-run",
        /// Begin nothing; answer when what is under way has ended, or how the last one did.
        JOIN = 5 "join",
    }
}

open_set! {
    /// When tokens are bought in the background.
    RefreshMode {
        /// While the profile is in use.
        WHILE_USED = 1 "while-used",
        /// Always.
        ALWAYS = 2 "always",
    }
}

open_set! {
    /// Where a key is read from.
    KeySourceKind {
        /// Memory only; gone when the agent ends.
        SESSION = 1 "session",
        /// A file.
        FILE = 2 "file",
        /// What a command prints.
        COMMAND = 3 "command",
        /// A systemd credential.
        CREDENTIAL = 4 "credential",
        /// The keyring of the operating system.
        KEYRING = 5 "keyring",
        /// A file sealed with the lock's passphrase.
        SEALED = 6 "sealed",
    }
}
