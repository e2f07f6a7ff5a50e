//! The vault's lock: what happens to every secret when it falls, and when it is opened.

use std::io;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::audit::account;
use crate::clock::Steady;
use crate::config::ProfileName;
use crate::error::Problem;
use crate::keeper::Held;
use crate::lock::{Cause, Event, locked};
use crate::seal::{Private, SealedPrivate};

use super::command::{Opened, Saving, Why};
use super::entry::{Entry, Withheld};
use super::handle::saved;
use super::{HeldKey, Vault};

/// A profile while the agent is locked.
pub(super) struct PutAway {
    /// Without key and token.
    pub(super) entry: Entry,
    /// Those, where a passphrase is set.
    pub(super) sealed: Option<Vec<u8>>,
    /// When the key is to be wiped.
    pub(super) until: Option<Steady>,
}

impl Vault {
    /// Locks, and returns the record on its way to the disk.
    pub(super) fn lock(&mut self, key: Option<SealedPrivate>) -> Result<Saving, Problem> {
        if self.keeper.lock.is_locked() {
            return if key.is_some() { Err(locked()) } else { Ok(None) };
        }
        if key.is_some() {
            self.keeper.record.key = key;
        }
        Ok(self.fall())
    }

    /// Locks for a reason of the agent's own, and returns the record on its way to the disk.
    pub(super) fn lock_by_itself(&mut self, cause: Cause) -> Saving {
        if self.keeper.lock.is_locked() {
            return None;
        }
        info!(%cause, "locks by itself");
        account::locked_by_itself(&self.surroundings);
        self.fall()
    }

    /// The record goes to the disk by itself; that it did not get there is said in the log.
    pub(super) fn limit_is_reached(&mut self) {
        let saving = self.lock_by_itself(Cause::Limit);
        tokio::spawn(async move {
            if let Err(problem) = saved(saving, "the agent would not be locked after a restart").await {
                error!(problem = problem.message, "the lock was not recorded");
            }
        });
    }

    /// Ends what runs, tells those who wait, and seals or drops every secret.
    fn fall(&mut self) -> Saving {
        self.keeper.happened(Event::Lock, self.surroundings.clock.steady(), self.config.auto_lock);
        self.attempts.abort_all();
        self.questions.abort_all();
        let to = self.keeper.record.key.as_ref().map(SealedPrivate::public);
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            self.next_run += 1;
            (entry.run, entry.deferred) = (self.next_run, None);
            let (token, effects) = entry.freshness.put_away(&locked());
            self.carry_out(&name, effects);
            let held = Held { key: entry.key.take(), token };
            let until = held.key.as_ref().and_then(|key| key.until);
            let sealed = to.and_then(|to| held.seal(to, &name));
            self.put_away.insert(name, PutAway { entry, sealed, until });
        }
        info!(sealed = to.is_some(), "locked");
        Some(self.keeper.save(true))
    }

    /// Opens what is locked, and takes over the sealed keys that were opened, also where nothing was locked.
    pub(super) fn unlock(&mut self, key: Option<Private>, opened: Opened) -> Result<Saving, Problem> {
        self.keeper.fits(key.as_ref())?;
        let saving = self.keeper.lock.is_locked().then(|| self.open(key.as_ref()));
        self.read_again();
        opened.into_iter().for_each(|(name, key)| self.take_over(&name, key));
        Ok(saving)
    }

    fn open(&mut self, key: Option<&Private>) -> JoinHandle<io::Result<()>> {
        let now = self.surroundings.clock.steady();
        self.expire(now);
        self.keeper.happened(Event::Unlock, now, self.config.auto_lock);
        for (name, PutAway { mut entry, sealed, .. }) in std::mem::take(&mut self.put_away) {
            let held = sealed.zip(key);
            let held =
                held.and_then(|(sealed, key)| Held::open(&sealed, key, &name, &self.surroundings.pool));
            let Held { key, token } = held.unwrap_or_default();
            entry.key = key;
            entry.freshness.take_back(token, now);
            self.entries.insert(name, entry);
        }
        self.apply(Arc::clone(&self.config), Why::Edit);
        info!("unlocked");
        self.keeper.save(false)
    }

    /// Reads sources again that a signal closed.
    fn read_again(&mut self) {
        for entry in self.entries.values_mut() {
            if matches!(entry.withheld, Some(Withheld::Signalled { .. })) {
                entry.withheld = None;
            }
        }
    }

    /// Takes over a key that was sealed, unless there is one already or the user has dropped it meanwhile.
    fn take_over(&mut self, name: &ProfileName, key: HeldKey) {
        let now = self.surroundings.clock.steady();
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.awaits_passphrase()) else {
            return;
        };
        entry.key = Some(key);
        let effects = entry.freshness.forgive(now);
        self.carry_out(name, effects);
    }
}
