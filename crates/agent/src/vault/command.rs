//! What the vault is asked, and what it answers with.

use std::io;
use std::sync::Arc;

use dph_agent_protocol::{Listing, ProfileStatus, Selector};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Steady;
use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::freshness::{Answer, Bought, Need};
use crate::lock::{Cause, locked};
use crate::seal::{Private, SealedPrivate};

use super::HeldKey;
use super::drops::Moment;

pub(super) type Reply<T> = oneshot::Sender<T>;

/// A message to the vault, with where its answer goes.
#[derive(Debug)]
pub(super) enum Command {
    Token(Selector, Need, Reply<Result<(Arc<Profile>, Waiter), Problem>>),
    Retry(Selector, Reply<Result<(Arc<Profile>, Waiter), Problem>>),
    Ready(Selector, Reply<Result<(), Problem>>),
    Select(Selector, Reply<Result<Arc<Profile>, Problem>>),
    List(String, Reply<Result<Listing, Problem>>),
    Status(Selector, String, Reply<Result<StatusPage, Problem>>),
    Config(Reply<Arc<Config>>),
    Apply(Arc<Config>, Why, Reply<()>),
    Install(Box<Install>, Option<Moment>, Reply<Result<(), Problem>>),
    Moment(Reply<Moment>),
    Undropped(ProfileName, Moment, Reply<Result<(), Problem>>),
    Drop(Vec<ProfileName>, Reply<()>),
    Key(ProfileName, Reply<Result<Option<HeldKey>, Problem>>),
    UsableKey(ProfileName, Reply<Result<Option<HeldKey>, Problem>>),
    Lock(Option<SealedPrivate>, Reply<Result<Saving, Problem>>),
    Unlock(Option<Private>, Opened, Reply<Result<Saving, Problem>>),
    DropAll(Reply<()>),
    Change(ProfileName, Option<Change>, Reply<Option<i64>>),
    KeyReplaced(ProfileName, Box<HeldKey>, Reply<()>),
    LockByItself(Cause, Reply<Saving>),
    KeysPlace(Reply<Result<KeysPlace, Problem>>),
    End(Reply<()>),
}

/// Why a configuration is put into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The user wants it read anew, having perhaps mended what was given up.
    Reload,
    /// A command changed it.
    Edit,
}

pub(super) type Waiter = oneshot::Receiver<Answer>;

/// Whether the agent is locked, and the key that opens it, where a passphrase is set.
pub(super) type KeysPlace = (bool, Option<SealedPrivate>);

/// Sealed keys that a passphrase opened.
pub(super) type Opened = Vec<(ProfileName, HeldKey)>;

/// The lock's record on its way to the disk; absent where it need not go there.
pub(super) type Saving = Option<JoinHandle<io::Result<()>>>;

/// A key that was handed over, with what it already bought.
#[derive(Debug)]
pub struct Install {
    /// Whose.
    pub profile: Arc<Profile>,
    /// The key; `None` where its source is read when it is needed.
    pub key: Option<HeldKey>,
    /// The token that proved it.
    pub bought: Option<Bought>,
    /// Calls to the platform that were made for it.
    pub exchanges: u64,
}

/// What is being done to a key at its platform.
#[derive(Clone, Debug)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// Whether the key buys nothing meanwhile, so that no token is asked for.
    pub holds: bool,
    /// What is in the way.
    pub problem: Option<Problem>,
    /// Since when.
    pub since: Steady,
    /// When it is tried again.
    pub next_try: Option<Steady>,
}

/// What can be done to a key at its platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is made invalid.
    Revoke,
    /// Another one takes its place.
    Rotate,
    /// It is invalid, and the other one is known to nobody.
    Lost,
}

/// One page of statuses.
#[derive(Debug)]
pub struct StatusPage {
    /// The profiles.
    pub profiles: Vec<ProfileStatus>,
    /// Whether more follow.
    pub more: bool,
    /// Profiles in the configuration.
    pub count: usize,
    /// Whether secrets are sealed or gone.
    pub locked: bool,
}

/// Turns away what a locked vault does not answer; it has nothing to look it up in.
pub(super) fn answered_locked(command: Command) -> Option<Command> {
    // A caller who has gone needs no answer.
    let _caller_gone = match command {
        Command::Token(_, _, reply) | Command::Retry(_, reply) => reply.send(Err(locked())).is_err(),
        Command::Ready(_, reply) | Command::Install(_, _, reply) | Command::Undropped(_, _, reply) => {
            reply.send(Err(locked())).is_err()
        }
        Command::Select(_, reply) => reply.send(Err(locked())).is_err(),
        Command::List(_, reply) => reply.send(Err(locked())).is_err(),
        Command::Key(_, reply) | Command::UsableKey(_, reply) => reply.send(Err(locked())).is_err(),
        answered @ (Command::Status(..)
        | Command::Config(_)
        | Command::Apply(..)
        | Command::Drop(..)
        | Command::Lock(..)
        | Command::LockByItself(..)
        | Command::Unlock(..)
        | Command::DropAll(_)
        | Command::Moment(_)
        | Command::Change(..)
        | Command::KeyReplaced(..)
        | Command::KeysPlace(_)
        | Command::End(_)) => return Some(answered),
    };
    None
}
