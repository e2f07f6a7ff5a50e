//! What changes are carried out with, and what of it must not outlast a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::journal::{Journal, Record};
use super::turns::Turns;
use crate::config::ProfileName;
use crate::error::Problem;
use crate::exchange::blocking;
use crate::key_source::Aside;
use crate::lock::locked;
use crate::vault::{Surroundings, VaultHandle, stopping};

/// What a change is carried out with.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) vault: VaultHandle,
    pub(super) surroundings: Surroundings,
    pub(super) journal: Journal,
    pub(super) asides: Asides,
    pub(super) turns: Turns,
    pub(super) stop: CancellationToken,
}

impl Tools {
    /// Waits until nothing may be asked of a platform any more, and says why.
    pub(super) async fn halted(&self) -> Problem {
        tokio::select! {
            biased;
            () = self.vault.falls() => locked(),
            () = self.stop.cancelled() => stopping(),
        }
    }

    /// Makes sure that a platform may be asked for something.
    pub(super) fn may_go_on(&self) -> Result<(), Problem> {
        match (self.vault.is_locked(), self.stop.is_cancelled()) {
            (true, _) => Err(locked()),
            (false, true) => Err(stopping()),
            (false, false) => Ok(()),
        }
    }

    /// Writes down how far a wish has come.
    pub(super) async fn save(&self, name: &ProfileName, record: &Record) -> Result<(), Problem> {
        let (journal, name, record) = (self.journal.clone(), name.clone(), record.clone());
        blocking(move || journal.save(&name, &record)).await?
    }

    /// Has what was put aside at hand, unless the agent was locked meanwhile.
    pub(super) fn offer(&self, name: &ProfileName, aside: Aside) {
        let mut asides = self.asides.all();
        // Looked at while the asides are held, so that a lock that comes now finds this one, too.
        if !self.vault.is_locked() {
            asides.insert(name.clone(), aside);
        }
    }
}

/// What rotations put aside, for as long as the agent is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Asides(Arc<Mutex<HashMap<ProfileName, Aside>>>);

impl Asides {
    pub(super) fn of(&self, name: &ProfileName) -> Option<Aside> {
        self.all().get(name).map(Aside::copy)
    }

    pub(super) fn forget(&self, name: &ProfileName) {
        self.all().remove(name);
    }

    pub(super) fn all(&self) -> MutexGuard<'_, HashMap<ProfileName, Aside>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
