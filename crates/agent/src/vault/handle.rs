//! [`VaultHandle`]: how others ask the vault.

use std::io;
use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, Listing, Selector};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::freshness::{Answer, Need};
use crate::lock::{Cause, LockOn, RecordFile};
use crate::seal::{Private, SealedPrivate};

use super::command::{Change, Command, Install, Reply, Saving, StatusPage, Why};
use super::drops::Moment;
use super::{HeldKey, Surroundings, Vault, stopping};

/// Requests that wait for the vault before callers are held up.
const QUEUE: usize = 64;
/// A token as a caller gets it, with the profile it belongs to.
pub type TokenAnswer = (Arc<Profile>, Answer);

/// Reaches the vault.
#[derive(Clone, Debug)]
pub struct VaultHandle {
    commands: mpsc::Sender<Command>,
    locked: watch::Receiver<bool>,
    lock_on: watch::Receiver<LockOn>,
    in_force: watch::Receiver<Arc<Config>>,
}

impl VaultHandle {
    /// Starts the vault with the profiles of `config`. Its task ends when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// When the system has no timer for it.
    pub fn start(
        config: Arc<Config>,
        record: RecordFile,
        surroundings: Surroundings,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let alarm = surroundings.clock.alarm()?;
        let mut vault = Vault::new(record, surroundings);
        let (locked, lock_on) = (vault.keeper.tell.subscribe(), vault.lock_on.subscribe());
        let in_force = vault.in_force.subscribe();
        vault.apply(config, Why::Edit);
        let task = tokio::spawn(vault.run(receiver, alarm));
        Ok((Self { commands, locked, lock_on, in_force }, task))
    }

    /// Asks for a token and waits for it.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`; what the platform said is in the answer.
    pub async fn token(&self, selector: Selector, need: Need) -> Result<TokenAnswer, Problem> {
        let (profile, waiter) = self.ask(|reply| Command::Token(selector, need, reply)).await??;
        Ok((profile, waiter.await.map_err(|_closed| stopping())?))
    }

    /// Tries again now, whatever was given up, and waits for the outcome.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`; what the platform said is in the answer.
    pub async fn retry(&self, selector: Selector) -> Result<TokenAnswer, Problem> {
        let (profile, waiter) = self.ask(|reply| Command::Retry(selector, reply)).await??;
        Ok((profile, waiter.await.map_err(|_closed| stopping())?))
    }

    /// Says whether a token request would be answered well, as far as is known.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub async fn ready(&self, selector: Selector) -> Result<(), Problem> {
        self.ask(|reply| Command::Ready(selector, reply)).await?
    }

    /// Returns the profile that is meant.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn select(&self, selector: Selector) -> Result<Arc<Profile>, Problem> {
        self.ask(|reply| Command::Select(selector, reply)).await?
    }

    /// Returns the profiles behind `after`, one page of them.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn list(&self, after: String) -> Result<Listing, Problem> {
        self.ask(|reply| Command::List(after, reply)).await?
    }

    /// Returns the states of the profiles behind `after`, one page of them.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`.
    pub async fn status(&self, selector: Selector, after: String) -> Result<StatusPage, Problem> {
        self.ask(|reply| Command::Status(selector, after, reply)).await?
    }

    /// Returns the configuration in force.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn config(&self) -> Result<Arc<Config>, Problem> {
        self.ask(Command::Config).await
    }

    /// Puts a configuration into force. Keys and tokens stay, where they are still for the same.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn apply(&self, config: Arc<Config>, why: Why) -> Result<(), Problem> {
        self.ask(|reply| Command::Apply(config, why, reply)).await
    }

    /// Returns the key that a profile holds.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn key(&self, profile: ProfileName) -> Result<Option<HeldKey>, Problem> {
        self.ask(|reply| Command::Key(profile, reply)).await?
    }

    /// Returns the key that a profile holds, for use; nothing where its source may be read.
    ///
    /// # Errors
    ///
    /// When only the user can bring a key, as where it was dropped.
    pub async fn usable_key(&self, profile: ProfileName) -> Result<Option<HeldKey>, Problem> {
        self.ask(|reply| Command::UsableKey(profile, reply)).await?
    }

    /// Whether the agent is locked.
    pub fn is_locked(&self) -> bool {
        *self.locked.borrow()
    }

    /// Returns the configuration in force, with all later ones.
    pub fn in_force(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.clone()
    }

    /// Returns what of the machine's doings is to lock the agent, with all later changes.
    pub fn lock_on(&self) -> watch::Receiver<LockOn> {
        self.lock_on.clone()
    }

    /// Waits until the agent is open.
    pub async fn opens(&self) {
        let opened = self.locked.clone().wait_for(|is_locked| !*is_locked).await.is_ok();
        if !opened {
            // A vault that has ended answers for itself.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the agent is locked.
    pub async fn falls(&self) {
        let fallen = self.locked.clone().wait_for(|is_locked| *is_locked).await.is_ok();
        if !fallen {
            // A vault that has ended answers for itself.
            std::future::pending::<()>().await;
        }
    }

    /// Locks; `key` is what secrets are sealed to from now on, where it is another one than before. One that
    /// is locked stays so.
    ///
    /// # Errors
    ///
    /// When the lock would not survive a restart, or is to have another key while it is locked.
    pub async fn lock(&self, key: Option<SealedPrivate>) -> Result<(), Problem> {
        let saving = self.ask(|reply| Command::Lock(key, reply)).await??;
        saved(saving, "the agent is locked, but would not be after a restart").await
    }

    /// Locks for a reason of the agent's own, unless it is locked.
    ///
    /// # Errors
    ///
    /// When the lock would not survive a restart.
    pub async fn lock_by_itself(&self, cause: Cause) -> Result<(), Problem> {
        let saving = self.ask(|reply| Command::LockByItself(cause, reply)).await?;
        saved(saving, "the agent is locked, but would not be after a restart").await
    }

    /// Unlocks with the key that a passphrase opened, or without one where none is set, and takes over the sealed
    /// keys that it opened. Sources that a signal closed are read again.
    ///
    /// # Errors
    ///
    /// When it does not fit the lock, or the agent would be locked after a restart.
    pub async fn unlock(
        &self,
        key: Option<Private>,
        opened: Vec<(ProfileName, HeldKey)>,
    ) -> Result<(), Problem> {
        let saving = self.ask(|reply| Command::Unlock(key, opened, reply)).await??;
        saved(saving, "the agent is open, but would be locked after a restart").await
    }

    /// Returns whether the agent is locked, and the key that opens it, where a passphrase is set.
    ///
    /// # Errors
    ///
    /// When the lock cannot be understood.
    pub async fn keys_place(&self) -> Result<(bool, Option<SealedPrivate>), Problem> {
        self.ask(Command::KeysPlace).await?
    }

    /// Answers everybody who waits, and nobody any more.
    pub async fn end(&self) {
        // One that has ended is what is wanted.
        let _ended = self.ask(Command::End).await.is_err();
    }

    /// Takes over a key in place of the one before.
    ///
    /// # Errors
    ///
    /// When its profile has gone or changed since the key was proven for it, or the one before was dropped.
    pub async fn install(&self, install: Install) -> Result<(), Problem> {
        self.ask(|reply| Command::Install(Box::new(install), None, reply)).await?
    }

    /// Takes over a key that the user brings, also where the one before was dropped, if that was before `began`.
    ///
    /// # Errors
    ///
    /// When its profile has gone or changed since the key was proven for it, or keys were dropped since `began`.
    pub async fn install_new(&self, install: Install, began: Moment) -> Result<(), Problem> {
        self.ask(|reply| Command::Install(Box::new(install), Some(began), reply)).await?
    }

    /// Returns this moment, for what must end before keys are dropped.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn moment(&self) -> Result<Moment, Problem> {
        self.ask(Command::Moment).await
    }

    /// Makes sure that the agent is open, and the key of a profile was not dropped since `began`.
    ///
    /// # Errors
    ///
    /// When it is not, or was.
    pub async fn undropped(&self, profile: &ProfileName, began: Moment) -> Result<(), Problem> {
        self.ask(|reply| Command::Undropped(profile.clone(), began, reply)).await?
    }

    /// Drops the keys and tokens of profiles.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn drop_secrets(&self, profiles: Vec<ProfileName>) -> Result<(), Problem> {
        self.ask(|reply| Command::Drop(profiles, reply)).await
    }

    /// Says what is being done to a key at its platform, or that it is done. Returns until when the token is
    /// valid that was handed out last, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn change(&self, profile: ProfileName, change: Option<Change>) -> Result<Option<i64>, Problem> {
        self.ask(|reply| Command::Change(profile, change, reply)).await
    }

    /// Takes over another key of a profile, sealed at once where the agent is locked.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn key_replaced(&self, profile: ProfileName, key: HeldKey) -> Result<(), Problem> {
        self.ask(|reply| Command::KeyReplaced(profile, Box::new(key), reply)).await
    }

    /// Drops all keys and tokens, and reads no source until `unlock` or `add`.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn drop_all(&self) -> Result<(), Problem> {
        self.ask(Command::DropAll).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_closed| stopping())?;
        answer.await.map_err(|_closed| stopping())
    }
}

/// Waits until the lock's record is on the disk.
pub(super) async fn saved(saving: Saving, otherwise: &str) -> Result<(), Problem> {
    let Some(saving) = saving else { return Ok(()) };
    let written = saving.await.map_err(|_cancelled| stopping())?;
    written.map_err(|error| {
        Problem::new(
            ErrorCode::FAILED,
            format!("{otherwise}: cannot write its record: {error}"),
            "look at the state folder and its disk",
        )
    })
}
