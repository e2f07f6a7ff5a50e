//! The vault's lock: what happens to every secret when it falls, and when it is opened.

use std::sync::Arc;

use tracing::{error, info};

use crate::error::Problem;
use crate::keeper::Held;
use crate::lock::{Cause, Event, locked};
use crate::seal::{Private, SealedPrivate};

use super::Vault;
use super::command::{Saving, Why};
use super::entry::Entry;
use super::handle::saved;

/// A profile while the agent is locked.
pub(super) struct PutAway {
    /// Without key and token.
    pub(super) entry: Entry,
    /// Those, where a passphrase is set.
    pub(super) sealed: Option<Vec<u8>>,
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
        let to = self.keeper.record.key.as_ref().map(SealedPrivate::public);
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            self.next_run += 1;
            entry.run = self.next_run;
            let (token, effects) = entry.freshness.put_away(&locked());
            self.carry_out(&name, effects);
            let held = Held { key: entry.key.take(), token };
            let sealed = to.and_then(|to| held.seal(to, &name));
            self.put_away.insert(name, PutAway { entry, sealed });
        }
        info!(sealed = to.is_some(), "locked");
        Some(self.keeper.save(true))
    }

    pub(super) fn unlock(&mut self, key: Option<Private>) -> Result<Saving, Problem> {
        self.keeper.fits(key.as_ref())?;
        if !self.keeper.lock.is_locked() {
            return Ok(None);
        }
        let now = self.surroundings.clock.steady();
        self.keeper.happened(Event::Unlock, now, self.config.auto_lock);
        for (name, PutAway { mut entry, sealed }) in std::mem::take(&mut self.put_away) {
            let held = sealed.zip(key.as_ref());
            let held =
                held.and_then(|(sealed, key)| Held::open(&sealed, key, &name, &self.surroundings.pool));
            let Held { key, token } = held.unwrap_or_default();
            entry.key = key;
            entry.freshness.take_back(token, now);
            self.entries.insert(name, entry);
        }
        self.apply(Arc::clone(&self.config), Why::Edit);
        info!("unlocked");
        Ok(Some(self.keeper.save(false)))
    }
}
