//! The thread that writes the log, behind a bounded queue: a disk that is full or slow is reported, and holds
//! up nobody unless the configuration wants that.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dph_agent_protocol::{AuditMode, AuditState, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::chain::Head;
use super::file::{Files, Limits, NAME, NotWritten};
use super::lost::LostLines;
use super::record::{Entry, Event, Mode};
use crate::error::{Chain, Problem};
use crate::handle::VERSION;

/// Stack of the thread that writes. The default of 2 MiB is a huge page to Linux, touched as a whole.
const STACK: usize = 256 * 1024;
/// Lines that wait for a slow disk; further ones are lost, and counted.
const QUEUE: usize = 4096;
/// How long a hand-out that must be recorded waits for the disk.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the agent waits for a slow disk.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// A batch that is not written by then is told in `status`.
const SLOW: Duration = Duration::from_secs(3);
/// The head goes to the log again after so many lines, or so many seconds.
const TELL_EVERY: (u64, i64) = (1000, 3600);

/// Records what happens.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    file: PathBuf,
    lost: LostLines,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: Vec<Job>,
    mode: Mode,
    /// Lines that found no room since the writer looked last.
    dropped: u64,
    /// Lines find no room, and the log was told so.
    overflows: bool,
    at_work: Option<Work>,
    /// Lines that are missing in the file, and not yet told there.
    unrecorded: u64,
    /// The end of the agent, in seconds since 1970.
    closing: Option<i64>,
    closed: bool,
    state: State,
}

/// What the writer is at.
#[derive(Clone, Copy, Debug)]
struct Work {
    since: Instant,
    /// Its lines, and those that found no room behind them.
    lines: u64,
}

impl Waiting {
    /// Returns how many lines nobody will find in the file, as far as is known.
    fn missing(&self) -> u64 {
        let at_work = self.at_work.map_or(0, |work| work.lines);
        self.unrecorded + at_work + self.jobs.len() as u64 + self.dropped
    }
}

/// How the log stands.
#[derive(Clone, Debug, Default)]
struct State {
    head: Option<Head>,
    lost: u64,
    error: Option<String>,
}

/// A line with who waits for it.
#[derive(Debug)]
struct Job {
    entry: Entry,
    told: Option<oneshot::Sender<Result<(), String>>>,
}

/// What is written to.
trait Sink: Send {
    fn append(&mut self, entries: &[Entry], sync: bool) -> Result<(), NotWritten>;
    fn head(&self) -> Option<&Head>;

    /// Whether nothing need be written to say that the log is off.
    fn is_off(&self) -> io::Result<bool>;
}

impl Sink for Files {
    fn append(&mut self, entries: &[Entry], sync: bool) -> Result<(), NotWritten> {
        Self::append(self, entries, sync)
    }

    fn head(&self) -> Option<&Head> {
        Self::head(self)
    }

    fn is_off(&self) -> io::Result<bool> {
        Self::is_off(self)
    }
}

impl Audit {
    /// Starts the thread that writes to the log in `folder`, and records that the agent began; or, where there is a
    /// log that does not say so, that it is off.
    ///
    /// # Errors
    ///
    /// When the system has no thread for it. A log that cannot be written is no error here.
    pub fn start(folder: PathBuf, mode: Mode, time: i64) -> io::Result<Self> {
        let audit = Self::with(folder.join(NAME), Files::new(folder, Limits::default()), mode, time)?;
        audit.record(Entry::own(time, Event::Started { version: VERSION }));
        Ok(audit)
    }

    fn with(file: PathBuf, sink: impl Sink + 'static, mode: Mode, time: i64) -> io::Result<Self> {
        let (lost, waiting) = (LostLines::beside(&file), Waiting { mode, ..Waiting::default() });
        let waiting = Mutex::new(waiting);
        let audit = Self(Arc::new(Shared { file, lost, waiting, changed: Condvar::new() }));
        let writer = Writer { audit: audit.clone(), sink, began: time, has_asked: false, told: None };
        thread::Builder::new().name("audit".to_owned()).stack_size(STACK).spawn(move || writer.run())?;
        Ok(audit)
    }

    /// Returns what the configuration says.
    pub fn mode(&self) -> Mode {
        self.waiting().mode
    }

    /// Puts what the configuration says into force; that it says something else is itself recorded.
    pub fn set_mode(&self, mode: Mode, time: i64) {
        let mut waiting = self.waiting();
        let before = std::mem::replace(&mut waiting.mode, mode);
        if before != mode {
            let job = Job { entry: Entry::own(time, Event::Mode { mode }), told: None };
            self.push_anyway(&mut waiting, job);
        }
    }

    /// Records something, when the disk gets to it.
    pub fn record(&self, entry: Entry) {
        let mut waiting = self.waiting();
        if waiting.mode != Mode::Off {
            self.push(&mut waiting, Job { entry, told: None });
        }
    }

    /// Records a hand-out; where that is required, waits until the disk has it.
    ///
    /// # Errors
    ///
    /// When it is required and cannot be done: what was to be handed out must not be.
    ///
    /// # Cancel safety
    ///
    /// A line that nobody waits for any more is written all the same.
    pub async fn hand_out(&self, entry: Entry) -> Result<(), Problem> {
        if self.mode() != Mode::Required {
            self.record(entry);
            return Ok(());
        }
        let (told, written) = oneshot::channel();
        self.push(&mut self.waiting(), Job { entry, told: Some(told) });
        let why = match timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(why))) => why,
            Ok(Err(_dropped)) => "too many lines wait for the disk".to_owned(),
            Err(_elapsed) => "the disk takes too long".to_owned(),
        };
        Err(Problem::new(
            ErrorCode::DENIED,
            format!("what was asked for cannot be recorded in the audit log, which is required: {why}"),
            "see `audit` in `dph-agent-client status`, and mend the disk or the folder",
        ))
    }

    /// Returns how the log stands.
    pub fn state(&self) -> AuditState {
        self.state_at(Instant::now())
    }

    fn state_at(&self, now: Instant) -> AuditState {
        let waiting = self.waiting();
        let State { head, lost, error } = waiting.state.clone();
        let slow = waiting.at_work.map(|work| now.saturating_duration_since(work.since));
        let slow = slow.filter(|slow| *slow >= SLOW).map(|slow| {
            format!("lines of the audit log have been on their way to the disk for {} s", slow.as_secs())
        });
        let errors: Vec<_> = error.into_iter().chain(slow).collect();
        let error = (!errors.is_empty()).then(|| errors.join("; "));
        AuditState {
            mode: match waiting.mode {
                Mode::Off => AuditMode::OFF,
                Mode::On => AuditMode::ON,
                Mode::Required => AuditMode::REQUIRED,
            },
            file: self.0.file.display().to_string(),
            lines: head.as_ref().map_or(0, |head| head.seq),
            head: head.map(|head| head.hash),
            lost,
            error,
        }
    }

    /// Records that the agent ends, and waits until everything is written, though not for a slow disk: what that has
    /// not taken is counted beside the log, for the next start to tell.
    pub fn finish(&self, time: i64) {
        let mut waiting = self.waiting();
        if waiting.mode != Mode::Off {
            self.push_anyway(&mut waiting, Job { entry: Entry::own(time, Event::Stopped), told: None });
        }
        waiting.closing = Some(time);
        self.0.changed.notify_all();
        let ended = self.0.changed.wait_timeout_while(waiting, FINISH_TIMEOUT, |waiting| !waiting.closed);
        let (waiting, _) = ended.unwrap_or_else(PoisonError::into_inner);
        let missing = if waiting.closed { 0 } else { waiting.missing() };
        drop(waiting);
        if missing > 0 {
            error!(missing, "the disk takes too long: lines of the audit log are lost");
            self.keep(missing);
        }
    }

    /// Counts lost lines beside the log, on a thread that a disk which hangs may keep.
    fn keep(&self, lines: u64) {
        let (lost, (done, kept)) = (self.0.lost.clone(), mpsc::channel());
        let adding = move || drop(done.send(lost.add(lines)));
        let started = thread::Builder::new().stack_size(STACK).spawn(adding);
        match started.map(|_| kept.recv_timeout(FINISH_TIMEOUT)) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) | Err(error) => {
                error!(%error, lines, "cannot count them beside the log either")
            }
            Ok(Err(_elapsed)) => error!(lines, "cannot count them beside the log either: the disk hangs"),
        }
    }

    fn push(&self, waiting: &mut Waiting, job: Job) {
        if waiting.jobs.len() < QUEUE {
            return self.push_anyway(waiting, job);
        }
        waiting.dropped += 1;
        waiting.state.lost += 1;
        if !std::mem::replace(&mut waiting.overflows, true) {
            warn!("too many lines of the audit log wait for the disk: further ones are lost");
        }
    }

    /// There is always room for the few lines that say what becomes of the log itself.
    fn push_anyway(&self, waiting: &mut Waiting, job: Job) {
        waiting.jobs.push(job);
        if waiting.at_work.is_none() {
            self.0.changed.notify_all();
        }
    }

    /// Waits for lines, and takes them with the number of those that found no room behind them; `None` at
    /// the end.
    fn take(&self) -> Option<(Vec<Job>, u64, Mode)> {
        let mut waiting = self.waiting();
        waiting.at_work = None;
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && waiting.closing.is_none();
        let mut waiting = self.0.changed.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        let jobs = std::mem::take(&mut waiting.jobs);
        let dropped = std::mem::take(&mut waiting.dropped);
        waiting.at_work = Some(Work { since: Instant::now(), lines: jobs.len() as u64 + dropped });
        (!jobs.is_empty()).then_some((jobs, dropped, waiting.mode))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<S> {
    audit: Audit,
    sink: S,
    /// When the agent began, in seconds since 1970.
    began: i64,
    /// Whether lines are known that an agent before this one could not tell of.
    has_asked: bool,
    /// The head that the log was told last, as line and time.
    told: Option<(u64, i64)>,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        self.begin();
        while let Some((jobs, dropped, mode)) = self.audit.take() {
            self.write(jobs, dropped, mode);
        }
        self.confess();
        self.tell_head();
        self.audit.waiting().closed = true;
        self.audit.0.changed.notify_all();
    }

    /// A log that ends here must say so: what is missing from then on would look like nothing done.
    fn begin(&mut self) {
        // One that cannot be read is told of when it cannot be written either.
        if self.audit.mode() == Mode::Off && !self.sink.is_off().unwrap_or(false) {
            let entry = Entry::own(self.began, Event::Mode { mode: Mode::Off });
            self.write(vec![Job { entry, told: None }], 0, Mode::Off);
        }
    }

    /// Tells of lines that no line tells of yet, at the end; where that fails the next agent does.
    fn confess(&mut self) {
        let (lines, time) = {
            let waiting = self.audit.waiting();
            (waiting.unrecorded, waiting.closing.unwrap_or(self.began))
        };
        if lines == 0 {
            return;
        }
        if self.sink.append(&[Entry::own(time, Event::Lost { lines })], false).is_ok() {
            let mut waiting = self.audit.waiting();
            (waiting.unrecorded, waiting.state.head) = (0, self.sink.head().cloned());
        } else if let Err(error) = self.audit.0.lost.add(lines) {
            error!(%error, lines, "lines of the audit log are lost, and that cannot be told there");
        }
    }

    /// Takes over what an agent before this one could not tell.
    fn ask_for_lost(&mut self) {
        if std::mem::replace(&mut self.has_asked, true) {
            return;
        }
        match self.audit.0.lost.take() {
            Ok(lines) => self.audit.waiting().unrecorded += lines,
            Err(error) => warn!(%error, "cannot read how many lines of the audit log were lost before"),
        }
    }

    fn write(&mut self, jobs: Vec<Job>, dropped: u64, mode: Mode) {
        if mode != Mode::Off {
            self.ask_for_lost();
        }
        let time = jobs.last().map_or(0, |job| job.entry.time);
        let missing = self.audit.waiting().unrecorded;
        let mut entries = Vec::with_capacity(jobs.len() + 1);
        if missing > 0 {
            entries.push(Entry::own(time, Event::Lost { lines: missing }));
        }
        let confession = entries.len();
        let (recorded, waiters): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.entry, job.told)).unzip();
        entries.extend(recorded);
        let sync = mode == Mode::Required || waiters.iter().any(Option::is_some);
        let written = self.sink.append(&entries, sync);
        let lost = match &written {
            Ok(()) => 0,
            Err(error) if error.written < confession => waiters.len(),
            Err(error) => entries.len().saturating_sub(error.written),
        };
        let untold = if matches!(&written, Err(error) if error.written < confession) { missing } else { 0 };
        self.report(written.as_ref().err(), lost as u64, untold + dropped);
        let outcome = written.map_err(|error| error.source.to_string());
        // Somebody who has gone needs no answer.
        waiters.into_iter().flatten().for_each(|waiter| drop(waiter.send(outcome.clone())));
        if self.told.is_none_or(|(line, at)| self.is_time_to_tell(line, at, time)) {
            self.tell_head();
            self.told = self.sink.head().map(|head| (head.seq, time));
        }
    }

    /// The first failure is an error in the log, its repeats are not, recovery is news.
    fn report(&self, failed: Option<&NotWritten>, lost: u64, untold: u64) {
        let mut waiting = self.audit.waiting();
        waiting.state.lost += lost;
        (waiting.unrecorded, waiting.at_work) = (untold + lost, None);
        waiting.overflows &= waiting.dropped > 0 || waiting.jobs.len() >= QUEUE;
        waiting.state.head = self.sink.head().cloned();
        let said = failed.map(|error| Chain(error).to_string());
        let before = std::mem::replace(&mut waiting.state.error, said.clone());
        let lost = waiting.state.lost;
        drop(waiting);
        match (said, before) {
            (Some(error), None) => error!(error, "lines of the audit log are lost"),
            (Some(error), Some(_)) => debug!(error, lost, "lines of the audit log are still lost"),
            (None, Some(_)) => info!(lost, "the audit log is written again"),
            (None, None) => {}
        }
    }

    fn is_time_to_tell(&self, line: u64, at: i64, now: i64) -> bool {
        let lines = self.sink.head().map_or(0, |head| head.seq.saturating_sub(line));
        lines >= TELL_EVERY.0 || (lines > 0 && now.saturating_sub(at) >= TELL_EVERY.1)
    }

    /// The log goes elsewhere, to the journal for one: what it says of the head shows later that the end of
    /// the audit log was cut off.
    fn tell_head(&self) {
        if let Some(head) = self.sink.head() {
            info!(head = head.hash, line = head.seq, "the audit log ends here");
        }
    }
}

#[cfg(test)]
mod tests;
