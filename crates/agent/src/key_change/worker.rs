//! The task that carries out one change: it tries, waits and tries again, until there is an end to it.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_protocol::{ChangeOutcome, ErrorCode};
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::journal::Record;
use super::{Progress, Report, Tools, revoking, rotating, was_removed};
use crate::audit::account;
use crate::clock::Steady;
use crate::config::{Profile, ProfileName};
use crate::error::{Chain, Problem};
use crate::exchange::blocking;
use crate::refresh::{LONGEST_RETRY_AFTER, backoff};
use crate::vault::{Change, ChangeKind};

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

    /// Ends it, if nothing was sent; returns how it ended.
    pub(super) async fn cancel(&self) -> Result<Report, Problem> {
        {
            let mut record = self.record.lock().await;
            if record.kind() != ChangeKind::Lost && (record.sent > 0 || record.done_there) {
                return Err(Problem::new(
                    ErrorCode::DENIED,
                    "it has been sent to the platform and cannot be taken back",
                    "wait for its end: --wait",
                ));
            }
            record.is_taken_back = true;
        }
        self.cancelled.notify_one();
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
        let ended = ended.ok().and_then(|progress| progress.ended.clone());
        ended.unwrap_or_else(|| Err(crate::vault::stopping()))
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
    pub(super) async fn run(self, leave: impl FnOnce()) -> Option<Record> {
        let (ended, is_lost) = match self.to_the_end().await {
            Ok(report) => (Ok(report), false),
            Err(Halt::Lost(problem)) => (Err(problem), true),
            Err(Halt::Over(problem) | Halt::Later(problem)) => (Err(problem), false),
        };
        if let Err(problem) = self.conclude(&ended).await {
            error!(profile = %self.name, problem = problem.message, "a change has ended, but not on the disk");
        }
        let left = match &ended {
            Err(problem) if is_lost => Some(self.what_is_lost(problem).await),
            _ => None,
        };
        leave();
        self.progress.send_modify(|progress| progress.ended = Some(ended));
        left
    }

    /// Writes down that the key is lost, until another one is handed over.
    async fn what_is_lost(&self, why: &Problem) -> Record {
        let record = self.record.lock().await.clone().lost(why);
        let (journal, name, copy) = (self.tools.journal.clone(), self.name.clone(), record.clone());
        if let Ok(Err(problem)) = blocking(move || journal.save(&name, &copy)).await {
            error!(profile = %self.name, problem = problem.message, "that the key is lost is not on the disk");
        }
        record
    }

    async fn to_the_end(&self) -> Result<Report, Halt> {
        if self.kind == ChangeKind::Lost {
            self.cancelled.notified().await;
            return Ok(self.report_cancelled());
        }
        let mut failures = 0;
        loop {
            tokio::select! {
                biased;
                () = self.cancelled.notified() => return Ok(self.report_cancelled()),
                () = self.tools.vault.opens() => {}
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
                () = self.cancelled.notified() => return Ok(self.report_cancelled()),
                () = self.hurry.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn attempt(&self) -> Result<Report, Halt> {
        let profile = self.profile().await?;
        let held = match self.tools.vault.usable_key(self.name.clone()).await {
            Err(problem) if self.record.lock().await.sent > 0 => return Err(Halt::Later(problem)),
            held => held?,
        };
        let mut record = self.record.lock().await;
        if record.is_taken_back {
            return Ok(self.report_cancelled());
        }
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

    /// Clears what is left of the wish.
    async fn conclude(&self, ended: &Result<Report, Problem>) -> Result<(), Problem> {
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
        let removed = blocking(move || {
            if is_new && let Err(error) = journal.note_age(&name, now) {
                warn!(profile = %name, %error, "the age of the new key was not noted");
            }
            journal.remove(&name)
        })
        .await;
        self.tools.asides.forget(&self.name);
        if self.kind == ChangeKind::Rotate
            && let Ok(profile) = self.profile().await
            && let Err(error) =
                profile.key_source.clear_aside(&profile, &self.tools.surroundings.sealed).await
        {
            warn!(profile = %self.name, error = %Chain(&error), "what a rotation put aside is still there");
        }
        if ended.as_ref().is_ok_and(is_invalid) {
            self.tools.vault.drop_secrets(vec![self.name.clone()]).await?;
        }
        self.tools.vault.change(self.name.clone(), None).await?;
        removed?
    }

    fn report_cancelled(&self) -> Report {
        Report { outcome: ChangeOutcome::CANCELLED, tokens_until: None, notes: Vec::new() }
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
