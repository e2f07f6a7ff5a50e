//! What is done to a key at its platform: made invalid, or replaced. The wish for it survives a restart, and
//! is carried out by a task of its own, however long the platform is away.

mod journal;
mod platform;
mod revoking;
mod rotating;
pub mod schedule;
mod tools;
mod turns;
mod worker;

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dph_agent_protocol::{ChangeOutcome, ErrorCode};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Profile, ProfileName};
use crate::error::{Chain, Problem};
use crate::exchange::blocking;
use crate::key_source::Aside;
use crate::vault::{ChangeKind, Surroundings, VaultHandle};

pub use journal::Journal;
use journal::Record;
pub use revoking::{check as check_revoke, notes as revoke_notes};
pub use rotating::{check as check_rotate, notes as rotate_notes};
use tools::{Asides, Tools};
use turns::Turns;
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

/// How long the agent's end waits for a call that changes a key, and for the new key to be kept.
const LAST_WAIT: Duration = Duration::from_secs(8);
/// Pause between two looks at whether the agent that looks after changes of keys has ended.
const CHARGE_PAUSE: Duration = Duration::from_secs(60);

/// The changes that are under way.
#[derive(Debug)]
pub struct KeyChanges {
    tools: Tools,
    lines: Mutex<HashMap<ProfileName, (ChangeKind, Line)>>,
    /// How the last change of each profile's key ended, and how many keys were replaced.
    past: Mutex<HashMap<ProfileName, Past>>,
    /// The right to carry out changes, which one of a user's agents has at a time.
    charge: tokio::sync::Mutex<Option<File>>,
    /// Held while a change begins, and while a key is added or moved, so that neither begins in the middle of another.
    beginning: Arc<tokio::sync::Mutex<()>>,
}

/// What is remembered of changes that have ended.
#[derive(Debug, Default)]
struct Past {
    rotations: u64,
    last: Option<(ChangeKind, Result<Report, Problem>)>,
}

impl KeyChanges {
    /// Takes up nothing yet; `stop` says when the agent is to end.
    pub fn new(
        vault: VaultHandle,
        surroundings: Surroundings,
        journal: Journal,
        stop: CancellationToken,
    ) -> Self {
        let tools =
            Tools { vault, surroundings, journal, asides: Asides::default(), turns: Turns::default(), stop };
        Self {
            tools,
            lines: Mutex::default(),
            past: Mutex::default(),
            charge: tokio::sync::Mutex::default(),
            beginning: Arc::default(),
        }
    }

    /// Takes what an agent before this one put aside, which is being opened. It goes before the lock does, so that
    /// no rotation finds itself without.
    pub fn offer(&self, name: &ProfileName, aside: Aside) {
        if matches!(self.line(name), Some((ChangeKind::Rotate, _))) {
            self.tools.asides.all().insert(name.clone(), aside);
        }
    }

    /// Forgets what was put aside if the agent is locked.
    pub fn forget_asides_if_locked(&self) {
        if self.tools.vault.is_locked() {
            self.tools.asides.all().clear();
        }
    }

    /// Takes up again what an agent before this one left. Called before anybody is served. Where another agent of
    /// this user looks after changes, this one does as soon as that one has ended.
    pub async fn resume(self: &Arc<Self>) {
        if let Err(problem) = self.take_charge().await {
            warn!(problem = problem.message, "changes of keys are not carried out here");
            tokio::spawn(Arc::clone(self).take_charge_later());
        }
    }

    async fn take_charge_later(self: Arc<Self>) {
        while !self.tools.stop.is_cancelled() && self.take_charge().await.is_err() {
            sleep(CHARGE_PAUSE).await;
        }
    }

    /// Makes sure that this agent is the one that carries out changes.
    async fn take_charge(self: &Arc<Self>) -> Result<(), Problem> {
        let mut charge = self.charge.lock().await;
        if charge.is_none() {
            let journal = self.tools.journal.clone();
            *charge = Some(blocking(move || journal.claim()).await??);
            self.take_up().await;
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>) {
        let journal = self.tools.journal.clone();
        for (name, record) in blocking(move || journal.load_all()).await.unwrap_or_default() {
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
        self.take_charge().await?;
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
        blocking(move || journal.begin(&name, &copy)).await??;
        Ok(self.start(profile.name.clone(), record).await)
    }

    /// Returns how a change goes on that was begun before, or how it has ended.
    ///
    /// # Errors
    ///
    /// When there was none.
    pub fn join(&self, kind: ChangeKind, name: &ProfileName) -> Result<watch::Receiver<Progress>, Problem> {
        if let Some((_, line)) = self.line(name).filter(|(under_way, _)| *under_way == kind) {
            return Ok(line.progress());
        }
        let past = self.past();
        let last = past.get(name).and_then(|past| past.last.as_ref());
        let ended = last.filter(|(ended, _)| *ended == kind).map(|(_, ended)| ended.clone());
        let progress =
            Progress { ended: Some(ended.ok_or_else(|| nothing_under_way(name))?), ..Progress::default() };
        Ok(watch::channel(progress).1)
    }

    /// Returns how many times the key of a profile was replaced since the agent was started.
    pub fn rotations(&self, name: &ProfileName) -> u64 {
        self.past().get(name).map_or(0, |past| past.rotations)
    }

    /// Ends what is being done to the keys of these profiles, sent or not, as soon as the try that is running has.
    pub async fn abandon(&self, names: &[ProfileName]) {
        for name in names {
            if let Some((_, line)) = self.line(name) {
                line.abandon().await;
            }
        }
    }

    /// Waits, when the agent is to end, for calls that have been sent, and for what they bring to be kept.
    pub async fn settle(&self) {
        let lines: Vec<Line> = self.lines().values().map(|(_, line)| line.clone()).collect();
        let settled = async {
            for line in lines {
                line.rests().await;
            }
        };
        if timeout(LAST_WAIT, settled).await.is_err() {
            warn!("a change of a key is cut off in the middle: the next agent goes on with it");
        }
    }

    /// Ends a change that has not been sent to the platform; returns how it ended.
    ///
    /// # Errors
    ///
    /// When there is none, or it has been sent.
    pub async fn cancel(&self, kind: ChangeKind, name: &ProfileName) -> Result<Report, Problem> {
        match self.line(name).filter(|(under_way, _)| *under_way == kind) {
            Some((_, line)) => line.cancel(&self.tools.journal, name).await,
            None => Err(nothing_under_way(name)),
        }
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
            self.tools.asides.all().clear();
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
            Some((ChangeKind::Lost, line)) => line.cancel(&self.tools.journal, name).await.map(drop),
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
        while let Some(lost) = worker.run(|kind, ended| self.leave(&name, kind, ended)).await {
            worker = self.enlist(&name, lost).0;
            worker.announce().await;
        }
    }

    fn leave(&self, name: &ProfileName, kind: ChangeKind, ended: &Result<Report, Problem>) {
        self.lines().remove(name);
        let mut past = self.past();
        let past = past.entry(name.clone()).or_default();
        past.last = Some((kind, ended.clone()));
        if ended.as_ref().is_ok_and(|report| report.outcome == ChangeOutcome::ROTATED) {
            past.rotations += 1;
        }
    }

    fn past(&self) -> MutexGuard<'_, HashMap<ProfileName, Past>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, name: &ProfileName) -> Option<(ChangeKind, Line)> {
        self.lines().get(name).cloned()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<ProfileName, (ChangeKind, Line)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nothing_under_way(name: &ProfileName) -> Problem {
    Problem::new(
        ErrorCode::BAD_REQUEST,
        format!("nothing of the kind is under way for profile `{name}`"),
        "see dph-agent-client status",
    )
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
