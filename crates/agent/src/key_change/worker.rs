//! The task that carries out one change: it tries, waits and tries again, until there is an end to it.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_protocol::{ChangeOutcome, ErrorCode};
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::journal::{Journal, Record};
use super::{Progress, Report, Tools, revoking, rotating, was_removed};
use crate::audit::account;
use crate::clock::Steady;
use crate::config::{Profile, ProfileName};
use crate::error::{Chain, Problem};
use crate::exchange::blocking;
use crate::refresh::{LONGEST_RETRY_AFTER, backoff};
use crate::vault::{Change, ChangeKind};

/// Tries that come to nothing before what was sent may be given up.
const STUCK_AFTER: u32 = 3;

/// Why a try was not the last one, or was.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is tried again.
    Later(Problem),
    /// It is given up; the key is as it was.
    Over(Problem),
    /// The old key is invalid, and there is no new one.
    Lost(Problem),
}

impl From<Problem> for Halt {
    /// What passes is waited for; what only the user can mend is not.
    fn from(problem: Problem) -> Self {
        match problem.code {
            ErrorCode::NO_KEY
            | ErrorCode::NO_SUCH_PROFILE
            | ErrorCode::ORIGIN_CHANGED
            | ErrorCode::EXISTS => Self::Over(problem),
            _ => Self::Later(problem),
        }
    }
}

/// How others reach the task.
#[derive(Clone, Debug)]
pub(super) struct Line {
    progress: watch::Receiver<Progress>,
    hurry: Arc<Notify>,
    /// Held by a try; whoever has it between two tries may end the whole.
    record: Arc<Mutex<Record>>,
    cancelled: Arc<Notify>,
}

impl Line {
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Ends it, if nothing was sent, or nothing comes of what was; returns how it ended.
    ///
    /// # Errors
    ///
    /// When it goes on: after what was sent it has an end of its own, and a wish that cannot be struck out would
    /// come back with the next agent.
    pub(super) async fn cancel(&self, journal: &Journal, name: &ProfileName) -> Result<Report, Problem> {
        {
            let mut record = self.record.lock().await;
            if record.is_sent() && self.progress.borrow().tries < STUCK_AFTER {
                return Err(Problem::new(
                    ErrorCode::DENIED,
                    "it has been sent to the platform and cannot be taken back",
                    "wait for its end: --wait",
                ));
            }
            let (journal, name) = (journal.clone(), name.clone());
            blocking(move || journal.remove(&name)).await??;
            record.is_taken_back = true;
        }
        self.end().await.unwrap_or_else(|| Err(crate::vault::stopping()))
    }

    /// Ends it, whatever was sent.
    pub(super) async fn abandon(&self) {
        self.record.lock().await.is_taken_back = true;
        self.end().await;
    }

    /// Waits until no try is running.
    pub(super) async fn rests(&self) {
        drop(self.record.lock().await);
    }

    async fn end(&self) -> Option<Result<Report, Problem>> {
        self.cancelled.notify_one();
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
        ended.ok().and_then(|progress| progress.ended.clone())
    }
}

/// Carries out one change.
#[derive(Debug)]
pub(super) struct Worker {
    name: ProfileName,
    kind: ChangeKind,
    record: Arc<Mutex<Record>>,
    tools: Tools,
    progress: watch::Sender<Progress>,
    hurry: Arc<Notify>,
    cancelled: Arc<Notify>,
    since: Steady,
}

impl Worker {
    pub(super) fn new(name: ProfileName, record: Record, tools: Tools) -> (Self, Line) {
        let (progress, receiver) = watch::channel(Progress::default());
        let (kind, since) = (record.kind(), tools.surroundings.clock.steady());
        let (hurry, cancelled) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let record = Arc::new(Mutex::new(record));
        let line = Line {
            progress: receiver,
            hurry: Arc::clone(&hurry),
            record: Arc::clone(&record),
            cancelled: Arc::clone(&cancelled),
        };
        (Self { name, kind, record, tools, progress, hurry, cancelled, since }, line)
    }

    /// Tells the vault, which serves the key no more where it is to be made invalid.
    pub(super) async fn announce(&self) {
        let mut record = self.record.lock().await;
        let until = self.tell(record.what_is_lost(), None, record.keeps_from_buying()).await;
        record.tokens_until = record.tokens_until.max(until);
    }

    /// Goes on to the end, and calls `leave` before it tells that end. Returns what is left to say where the key
    /// was lost.
    pub(super) async fn run(
        self,
        leave: impl FnOnce(ChangeKind, &Result<Report, Problem>),
    ) -> Option<Record> {
        let (mut ended, is_lost) = match self.to_the_end().await {
            Ok(report) => (Ok(report), false),
            Err(Halt::Lost(problem)) => (Err(problem), true),
            Err(Halt::Over(problem) | Halt::Later(problem)) => (Err(problem), false),
        };
        let lost = match &ended {
            Err(problem) if is_lost => Some(self.record.lock().await.clone().lost(problem)),
            _ => None,
        };
        if let Err(problem) = self.conclude(&ended, lost.clone()).await {
            error!(profile = %self.name, problem = problem.message, "a change has ended, but not on the disk");
            if let Ok(report) = &mut ended {
                report.notes.push(format!("the next agent takes it up again: {}", problem.message));
            }
        }
        leave(self.kind, &ended);
        self.progress.send_modify(|progress| progress.ended = Some(ended));
        lost
    }

    async fn to_the_end(&self) -> Result<Report, Halt> {
        if self.kind == ChangeKind::Lost {
            self.cancelled.notified().await;
            return Ok(self.taken_back().await);
        }
        let mut failures = 0;
        loop {
            tokio::select! {
                biased;
                () = self.cancelled.notified() => return Ok(self.taken_back().await),
                () = self.may_try() => {}
            }
            let problem = match Wiping::new(self.attempt()).await {
                Ok(report) => return Ok(report),
                Err(Halt::Later(problem)) => problem,
                Err(end) => return Err(end),
            };
            failures += 1;
            let pause = pause(failures, &problem);
            self.not_yet(&problem, failures, pause).await;
            tokio::select! {
                biased;
                () = self.cancelled.notified() => return Ok(self.taken_back().await),
                () = self.hurry.notified() => {}
                // It goes on as soon as it may, not when the pause is over.
                _halted = self.tools.halted() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the agent is open; for good where it is to end, for the next one goes on.
    async fn may_try(&self) {
        self.tools.vault.opens().await;
        if self.tools.stop.is_cancelled() {
            std::future::pending().await
        }
    }

    async fn attempt(&self) -> Result<Report, Halt> {
        let profile = self.profile().await?;
        let _turn = self.tools.turns.take(&profile).await;
        let mut record = self.record.lock().await;
        if record.is_taken_back {
            return Ok(self.report_taken_back(&record));
        }
        let held = match self.tools.vault.usable_key(self.name.clone()).await {
            // A key that is withheld comes back with the user's word; until then nothing is given up.
            Err(problem) if record.sent > 0 || profile.key_source.is_readable() => {
                return Err(Halt::Later(problem));
            }
            held => held?,
        };
        let ended = match self.kind {
            ChangeKind::Rotate => {
                self.tell(None, None, true).await;
                rotating::attempt(&profile, held, &mut record, &self.tools).await
            }
            ChangeKind::Revoke | ChangeKind::Lost => {
                revoking::attempt(&profile, held, &mut record, &self.tools).await
            }
        };
        match ended {
            Ok(ended) => Ok(Report { tokens_until: record.tokens_until, ..ended }),
            // What has been sent has no end before it is known what became of it.
            Err(Halt::Over(problem)) if record.sent > 0 && passes(&problem) => Err(Halt::Later(problem)),
            Err(halt) => Err(halt),
        }
    }

    async fn profile(&self) -> Result<Arc<Profile>, Problem> {
        let config = self.tools.vault.config().await?;
        config.profiles.get(&self.name).cloned().ok_or_else(|| was_removed(&self.name))
    }

    /// Tells what is in the way.
    async fn not_yet(&self, problem: &Problem, failures: u32, pause: Duration) {
        if failures == 1 {
            warn!(profile = %self.name, problem = problem.message, "goes on trying");
        } else {
            debug!(profile = %self.name, problem = problem.message, failures, "goes on trying");
        }
        let next = self.tools.surroundings.clock.steady() + pause;
        let holds = self.record.lock().await.keeps_from_buying();
        self.tell(Some(problem.clone()), Some(next), holds).await;
        self.progress.send_modify(|progress| {
            progress.tries = failures;
            progress.trouble = Some(problem.clone());
        });
    }

    /// Tells the vault how it stands. While `holds`, nothing is bought with the key; what is held is served.
    async fn tell(&self, problem: Option<Problem>, next_try: Option<Steady>, holds: bool) -> Option<i64> {
        let change = Change { kind: self.kind, holds, problem, since: self.since, next_try };
        // A vault that has ended serves nobody.
        self.tools.vault.change(self.name.clone(), Some(change)).await.ok().flatten()
    }

    /// Clears what is left of the wish, or writes down that the key is lost.
    async fn conclude(&self, ended: &Result<Report, Problem>, lost: Option<Record>) -> Result<(), Problem> {
        match ended {
            Ok(report) => {
                info!(profile = %self.name, outcome = %report.outcome, "a change of a key has ended")
            }
            Err(problem) => warn!(profile = %self.name, problem = problem.message, "gave up changing a key"),
        }
        if self.kind != ChangeKind::Lost {
            account::key_changed(self.kind, &self.name, ended, &self.tools.surroundings);
        }
        let (journal, name) = (self.tools.journal.clone(), self.name.clone());
        let now = self.tools.surroundings.clock.wall();
        let is_new = ended.as_ref().is_ok_and(|report| report.outcome == ChangeOutcome::ROTATED);
        let struck_out = blocking(move || {
            if is_new && let Err(error) = journal.note_age(&name, now) {
                warn!(profile = %name, %error, "the age of the new key was not noted");
            }
            match &lost {
                Some(lost) => journal.save(&name, lost),
                None => journal.remove(&name),
            }
        })
        .await;
        self.clear_aside().await;
        if ended.as_ref().is_ok_and(is_invalid) {
            self.tools.vault.drop_secrets(vec![self.name.clone()]).await?;
        }
        self.tools.vault.change(self.name.clone(), None).await?;
        struck_out?
    }

    async fn clear_aside(&self) {
        self.tools.asides.forget(&self.name);
        if self.kind == ChangeKind::Rotate
            && let Ok(profile) = self.profile().await
            && let Err(error) =
                profile.key_source.clear_aside(&profile, &self.tools.surroundings.sealed).await
        {
            warn!(profile = %self.name, error = %Chain(&error), "what a rotation put aside is still there");
        }
    }

    async fn taken_back(&self) -> Report {
        self.report_taken_back(&*self.record.lock().await)
    }

    fn report_taken_back(&self, record: &Record) -> Report {
        let note = "it had been sent to the platform: the key may be invalid by now, or another one made";
        let notes = if record.is_sent() { vec![note.to_owned()] } else { Vec::new() };
        Report { outcome: ChangeOutcome::CANCELLED, tokens_until: None, notes }
    }
}

/// Whether another key, or another word of the user, may come.
fn passes(problem: &Problem) -> bool {
    [ErrorCode::NO_KEY, ErrorCode::ORIGIN_CHANGED, ErrorCode::EXISTS].contains(&problem.code)
}

/// Whether the key is of no use any more.
fn is_invalid(report: &Report) -> bool {
    [ChangeOutcome::REVOKED, ChangeOutcome::ALREADY_INVALID].contains(&report.outcome)
}

fn pause(failures: u32, problem: &Problem) -> Duration {
    let asked = problem.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    backoff(failures, fastrand::f64()).max(asked)
}
