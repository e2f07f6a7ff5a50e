//! What is done to a key at its platform: made invalid, or replaced. The wish for it survives a restart, and
//! is carried out by a task of its own, however long the platform is away.

mod journal;
mod platform;
mod revoking;
mod rotating;
pub mod schedule;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dph_agent_protocol::{ChangeOutcome, ErrorCode};
use tokio::sync::{OwnedMutexGuard, watch};
use tracing::{error, info};

use crate::config::{Profile, ProfileName};
use crate::error::{Chain, Problem};
use crate::exchange::blocking;
use crate::key_source::Aside;
use crate::vault::{ChangeKind, Surroundings, VaultHandle};

pub use journal::Journal;
use journal::Record;
pub use revoking::{check as check_revoke, notes as revoke_notes};
pub use rotating::{check as check_rotate, notes as rotate_notes};
use worker::{Line, Worker};

/// What becomes of a wish.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Tries that have ended.
    pub tries: u32,
    /// Why the last one has not brought it to its end.
    pub trouble: Option<Problem>,
    /// How it ended.
    pub ended: Option<Result<Report, Problem>>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In a word.
    pub outcome: ChangeOutcome,
    /// Until when tokens that were handed out before may be valid, in seconds since 1970.
    pub tokens_until: Option<i64>,
    /// What to tell the user, a line each.
    pub notes: Vec<String>,
}

/// The changes that are under way.
#[derive(Debug)]
pub struct KeyChanges {
    tools: Tools,
    lines: Mutex<HashMap<ProfileName, (ChangeKind, Line)>>,
    /// Held while a change begins, and while a key is added or moved, so that neither begins in the middle of another.
    beginning: Arc<tokio::sync::Mutex<()>>,
}

/// What a change is carried out with.
#[derive(Clone, Debug)]
struct Tools {
    vault: VaultHandle,
    surroundings: Surroundings,
    journal: Journal,
    asides: Asides,
}

/// What rotations put aside, for as long as the agent is open.
#[derive(Clone, Debug, Default)]
pub struct Asides(Arc<Mutex<HashMap<ProfileName, Aside>>>);

impl Asides {
    /// Has what was put aside at hand for a rotation that goes on.
    pub fn offer(&self, name: &ProfileName, aside: Aside) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), aside);
    }

    fn of(&self, name: &ProfileName) -> Option<Aside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Aside::copy)
    }

    fn forget(&self, name: &ProfileName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl KeyChanges {
    /// Takes up nothing yet.
    pub fn new(vault: VaultHandle, surroundings: Surroundings, journal: Journal) -> Self {
        let tools = Tools { vault, surroundings, journal, asides: Asides::default() };
        Self { tools, lines: Mutex::default(), beginning: Arc::default() }
    }

    /// Takes what an agent before this one put aside, now that it can be opened.
    pub fn offer(&self, name: &ProfileName, aside: Aside) {
        if matches!(self.line(name), Some((ChangeKind::Rotate, _))) && !self.tools.vault.is_locked() {
            self.tools.asides.offer(name, aside);
        }
    }

    /// Takes up again what an agent before this one left. Called before anybody is served.
    pub async fn resume(self: &Arc<Self>) {
        for (name, record) in self.tools.journal.load_all() {
            match record {
                Ok(record) => {
                    info!(profile = %name, kind = ?record.kind(), "goes on with what was begun before");
                    self.start(name, record).await;
                }
                Err(error) => {
                    error!(error = %Chain(&error), "what was begun before cannot be understood: left alone");
                }
            }
        }
    }

    /// Begins a change, or has one that is under way tried at once; returns how it goes on.
    ///
    /// # Errors
    ///
    /// When another one is under way, or the wish cannot be written down.
    pub async fn begin(
        self: &Arc<Self>,
        kind: ChangeKind,
        name: &ProfileName,
    ) -> Result<watch::Receiver<Progress>, Problem> {
        let _no_other = self.beginning.lock().await;
        let profile = &self.profile(name).await?;
        if let Some((under_way, line)) = self.line(&profile.name) {
            if under_way != kind {
                return Err(busy_with(under_way, &profile.name));
            }
            line.hurry();
            return Ok(line.progress());
        }
        let record = Record::new(kind, self.tools.surroundings.clock.wall(), profile);
        let (journal, name, copy) = (self.tools.journal.clone(), profile.name.clone(), record.clone());
        blocking(move || journal.save(&name, &copy)).await??;
        Ok(self.start(profile.name.clone(), record).await)
    }

    /// Ends a change that has not been sent to the platform; returns how it ended.
    ///
    /// # Errors
    ///
    /// When there is none, or it has been sent.
    pub async fn cancel(&self, kind: ChangeKind, name: &ProfileName) -> Result<Report, Problem> {
        let line = self.line(name).filter(|(under_way, _)| *under_way == kind).map(|(_, line)| line);
        let Some(line) = line else {
            return Err(Problem::new(
                ErrorCode::BAD_REQUEST,
                format!("nothing of the kind is under way for profile `{name}`"),
                "see dph-agent-client status",
            ));
        };
        line.cancel().await
    }

    /// Keeps changes from beginning until what is returned is dropped, if none is under way for these profiles; that a
    /// key was lost is no hindrance.
    ///
    /// # Errors
    ///
    /// When one is.
    pub async fn standstill(&self, names: &[ProfileName]) -> Result<OwnedMutexGuard<()>, Problem> {
        let still = Arc::clone(&self.beginning).lock_owned().await;
        names.iter().try_for_each(|name| self.none_for(name))?;
        Ok(still)
    }

    async fn profile(&self, name: &ProfileName) -> Result<Arc<Profile>, Problem> {
        let config = self.tools.vault.config().await?;
        config.profiles.get(name).cloned().ok_or_else(|| was_removed(name))
    }

    /// Forgets what was put aside whenever the agent is locked.
    pub async fn forget_when_locked(self: Arc<Self>) {
        loop {
            self.tools.vault.falls().await;
            self.tools.asides.clear();
            self.tools.vault.opens().await;
        }
    }

    /// Makes sure that nothing is being done to the key of a profile; that it was lost is no hindrance.
    ///
    /// # Errors
    ///
    /// When something is.
    pub fn none_for(&self, name: &ProfileName) -> Result<(), Problem> {
        match self.line(name) {
            None | Some((ChangeKind::Lost, _)) => Ok(()),
            Some((kind, _)) => Err(busy_with(kind, name)),
        }
    }

    /// Ends what is known of the key before, for which another one was handed over: that it was lost, and its age.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn found_again(&self, name: &ProfileName) -> Result<(), Problem> {
        let (journal, whose) = (self.tools.journal.clone(), name.clone());
        blocking(move || journal.forget_age(&whose)).await?;
        match self.line(name) {
            Some((ChangeKind::Lost, line)) => line.cancel().await.map(drop),
            _ => Ok(()),
        }
    }

    async fn start(self: &Arc<Self>, name: ProfileName, record: Record) -> watch::Receiver<Progress> {
        let (worker, progress) = self.enlist(&name, record);
        worker.announce().await;
        tokio::spawn(Arc::clone(self).carry_out(name, worker));
        progress
    }

    fn enlist(&self, name: &ProfileName, record: Record) -> (Worker, watch::Receiver<Progress>) {
        let kind = record.kind();
        let (worker, line) = Worker::new(name.clone(), record, self.tools.clone());
        let progress = line.progress();
        self.lines().insert(name.clone(), (kind, line));
        (worker, progress)
    }

    /// Goes on to the end, and where that is the loss of the key on to the end of that.
    async fn carry_out(self: Arc<Self>, name: ProfileName, mut worker: Worker) {
        while let Some(lost) = worker.run(|| drop(self.lines().remove(&name))).await {
            worker = self.enlist(&name, lost).0;
            worker.announce().await;
        }
    }

    fn line(&self, name: &ProfileName) -> Option<(ChangeKind, Line)> {
        self.lines().get(name).cloned()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<ProfileName, (ChangeKind, Line)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn was_removed(name: &ProfileName) -> Problem {
    Problem::new(
        ErrorCode::NO_SUCH_PROFILE,
        format!("profile `{name}` was removed"),
        "make its key invalid in the platform's web client",
    )
}

fn busy_with(kind: ChangeKind, name: &ProfileName) -> Problem {
    let (what, command) = match kind {
        ChangeKind::Revoke => ("revoked", "revoke"),
        ChangeKind::Rotate => ("rotated", "rotate"),
        ChangeKind::Lost => {
            return Problem::new(
                ErrorCode::EXISTS,
                format!("the key of profile `{name}` was lost in a rotation"),
                format!("see dph-agent-client status; then: dph-agent-client add --profile {name}"),
            );
        }
    };
    Problem::new(
        ErrorCode::EXISTS,
        format!("the key of profile `{name}` is being {what}"),
        format!(
            "wait for it: dph-agent-client {command} --profile {name} --wait; or end it: dph-agent-client {command} --profile {name} --cancel"
        ),
    )
}
