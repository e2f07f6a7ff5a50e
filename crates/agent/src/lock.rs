//! The lock: whether secrets are open, when that ends by itself, and what survives a restart. The state
//! machine is pure; the record is a file.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dph_agent_protocol::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::clock::Steady;
use crate::error::{Chain, Problem};
use crate::private_file;
use crate::seal::SealedPrivate;

/// Pause after the first wrong passphrase; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause after wrong passphrases.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The key of the configuration that sets [`LockOn::suspend`].
pub const LOCK_ON_SUSPEND: &str = "lock-on-suspend";
/// The key of the configuration that sets [`LockOn::screen_lock`].
pub const LOCK_ON_SCREEN_LOCK: &str = "lock-on-screen-lock";

/// Longest record that is read, in bytes.
const MAX_RECORD_LEN: usize = 64 * 1024;
/// The version of the record that this program writes.
const RECORD_VERSION: u32 = 1;

/// The state of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Secrets are sealed or gone.
    Locked,
    /// Secrets are at hand.
    Unlocked {
        /// Since when.
        since: Steady,
        /// When a token was handed out last, or the lock was opened.
        used: Steady,
    },
}

/// What happens to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it locked: a user, a machine that goes to sleep, a session that ends.
    Lock,
    /// The right passphrase was given, or none is set.
    Unlock,
    /// A wrong passphrase was given.
    UnlockFailed,
    /// A token was handed out.
    Use,
    /// Time has passed.
    Tick,
}

/// When the lock falls by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutoLock {
    /// After so long without a token handed out.
    pub idle: Option<Duration>,
    /// So long after it was opened, whatever is handed out.
    pub max_unlocked: Option<Duration>,
    /// When the machine says so.
    pub on: LockOn,
}

/// What of the machine's doings locks the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockOn {
    /// It goes to sleep.
    pub suspend: bool,
    /// The user's screen is locked.
    pub screen_lock: bool,
}

impl LockOn {
    /// Whether nothing does.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Returns the keys of the configuration that are set.
    pub fn keys(self) -> String {
        let keys = [(self.suspend, LOCK_ON_SUSPEND), (self.screen_lock, LOCK_ON_SCREEN_LOCK)];
        keys.into_iter().filter_map(|(is_set, key)| is_set.then_some(key)).collect::<Vec<_>>().join(", ")
    }
}

/// Why the agent locks without being told to by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `idle-lock` or `max-unlocked`.
    Limit,
    /// The machine goes to sleep.
    Suspend,
    /// The user's screen is locked.
    ScreenLock,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "the limit that the configuration sets is reached",
            Self::Suspend => "the machine goes to sleep",
            Self::ScreenLock => "the screen is locked",
        })
    }
}

impl Lock {
    /// Returns the lock of an agent that starts; `locked` is what its record says.
    pub fn at_start(locked: bool, now: Steady) -> Self {
        if locked { Self::Locked } else { Self::Unlocked { since: now, used: now } }
    }

    /// Returns the state after `event`. Leaving `Unlocked`, secrets are sealed or dropped.
    pub fn next(self, event: Event, now: Steady, auto: AutoLock) -> Self {
        match (self, event) {
            (Self::Locked, Event::Unlock) => Self::Unlocked { since: now, used: now },
            (Self::Locked, Event::Lock | Event::UnlockFailed | Event::Use | Event::Tick) => Self::Locked,
            (Self::Unlocked { .. }, Event::Lock) => Self::Locked,
            (Self::Unlocked { since, .. }, Event::Use) => Self::Unlocked { since, used: now },
            (Self::Unlocked { .. }, Event::Unlock | Event::UnlockFailed) => self,
            (Self::Unlocked { .. }, Event::Tick) => {
                if self.falls_at(auto).is_some_and(|at| at <= now) {
                    Self::Locked
                } else {
                    self
                }
            }
        }
    }

    /// Whether secrets are sealed or gone.
    pub fn is_locked(self) -> bool {
        self == Self::Locked
    }

    /// Returns when the lock falls by itself, unless something is handed out before.
    pub fn falls_at(self, auto: AutoLock) -> Option<Steady> {
        let Self::Unlocked { since, used } = self else { return None };
        let idle = auto.idle.map(|idle| used + idle);
        let at_most = auto.max_unlocked.map(|limit| since + limit);
        idle.into_iter().chain(at_most).min()
    }
}

/// Returns how long passphrases are not looked at after `failures` wrong ones in a row.
pub fn pause_after(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(further) => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(further)).min(LONGEST_PAUSE),
    }
}

/// Returns what everybody is told while the agent is locked, whatever they ask for.
pub fn locked() -> Problem {
    Problem::new(ErrorCode::LOCKED, "the agent is locked", "open it: dph-agent-client unlock")
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Whether the agent is locked.
    pub locked: bool,
    /// What secrets are sealed to; `None` where no passphrase is set.
    pub key: Option<SealedPrivate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    locked: bool,
    passphrase: Option<SealedPrivate>,
}

/// Why the record cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is there and cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what an agent writes.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<&RecordError> for Problem {
    /// What cannot be understood leaves the agent locked.
    fn from(error: &RecordError) -> Self {
        let (RecordError::Read { path, .. } | RecordError::Damaged { path, .. }) = error;
        Self::new(
            ErrorCode::LOCKED,
            format!("the agent stays locked: {}", Chain(error)),
            format!(
                "put `{}` back as it was and restart the agent; without it sealed keys are lost: move it away, set a \
                 passphrase anew, and add them again",
                path.display()
            ),
        )
    }
}

/// The record on disk, written whole and in the order of the changes.
#[derive(Clone, Debug)]
pub struct RecordFile {
    path: PathBuf,
    written: Arc<Mutex<u64>>,
}

impl RecordFile {
    /// Names the file; nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: Arc::default() }
    }

    /// Reads the record; a missing one is that of an agent that was never locked.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be understood.
    pub fn load(&self) -> Result<Record, RecordError> {
        let text = match private_file::read_regular(&self.path, MAX_RECORD_LEN) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Record::default()),
            Err(source) => return Err(RecordError::Read { path: self.path.clone(), source }),
        };
        parse(&text).map_err(|source| RecordError::Damaged { path: self.path.clone(), source })
    }

    /// Writes the record, unless a later one has been written: `serial` counts the changes.
    ///
    /// # Errors
    ///
    /// As the system says; the record is as it was then.
    pub fn save(&self, serial: u64, record: &Record) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if serial <= *written {
            return Ok(());
        }
        let Record { locked, key } = record.clone();
        let mut text =
            serde_json::to_vec_pretty(&Written { version: RECORD_VERSION, locked, passphrase: key })?;
        text.push(b'\n');
        private_file::create_folder_of(&self.path)?;
        private_file::replace(&self.path, |file| file.write_all(&text))?;
        *written = serial;
        Ok(())
    }
}

fn parse(text: &[u8]) -> Result<Record, Box<dyn std::error::Error + Send + Sync>> {
    let Written { version, locked, passphrase } = serde_json::from_slice(text)?;
    if version != RECORD_VERSION {
        return Err(format!("it is of version {version}, and this agent reads {RECORD_VERSION}").into());
    }
    passphrase.as_ref().map_or(Ok(()), SealedPrivate::check)?;
    Ok(Record { locked, key: passphrase })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::seal::Private;

    const SECOND: Duration = Duration::from_secs(1);
    const NEVER: AutoLock =
        AutoLock { idle: None, max_unlocked: None, on: LockOn { suspend: false, screen_lock: false } };
    const START: Steady = Steady(Duration::ZERO);

    fn unlocked() -> Lock {
        Lock::at_start(false, START)
    }

    #[test]
    fn an_agent_starts_as_its_record_says() {
        assert_eq!(Lock::at_start(true, START), Lock::Locked);
        assert_eq!(unlocked(), Lock::Unlocked { since: START, used: START });
    }

    #[test]
    fn only_an_unlock_opens_a_locked_agent() {
        let later = START + SECOND;
        assert_eq!(Lock::Locked.next(Event::Unlock, later, NEVER), Lock::at_start(false, later));
        for event in [Event::UnlockFailed, Event::Lock, Event::Use, Event::Tick] {
            assert_eq!(Lock::Locked.next(event, later, NEVER), Lock::Locked, "{event:?}");
        }
    }

    #[test]
    fn a_lock_locks_an_open_agent() {
        assert!(unlocked().next(Event::Lock, START, NEVER).is_locked());
    }

    #[test]
    fn an_unlock_of_an_open_agent_changes_nothing_whether_it_fails_or_not() {
        let limit = AutoLock { max_unlocked: Some(SECOND), ..NEVER };
        for event in [Event::Unlock, Event::UnlockFailed] {
            assert_eq!(unlocked().next(event, START + SECOND / 2, limit), unlocked());
        }
    }

    #[test]
    fn an_idle_agent_locks_at_the_limit_and_not_before() {
        let auto = AutoLock { idle: Some(60 * SECOND), ..NEVER };
        assert!(!unlocked().next(Event::Tick, START + 59 * SECOND, auto).is_locked());
        assert!(unlocked().next(Event::Tick, START + 60 * SECOND, auto).is_locked());
        let used = unlocked().next(Event::Use, START + 59 * SECOND, auto);
        assert!(!used.next(Event::Tick, START + 118 * SECOND, auto).is_locked());
        assert!(used.next(Event::Tick, START + 119 * SECOND, auto).is_locked());
        assert_eq!(used.falls_at(auto), Some(START + 119 * SECOND));
    }

    #[test]
    fn use_does_not_put_off_the_limit_of_being_unlocked() {
        let auto = AutoLock { idle: Some(60 * SECOND), max_unlocked: Some(90 * SECOND), ..NEVER };
        let used = unlocked().next(Event::Use, START + 59 * SECOND, auto);
        assert_eq!(used.falls_at(auto), Some(START + 90 * SECOND));
        assert!(used.next(Event::Tick, START + 90 * SECOND, auto).is_locked());
    }

    #[test]
    fn without_limits_time_does_not_lock() {
        assert!(!unlocked().next(Event::Tick, START + 1_000_000 * SECOND, NEVER).is_locked());
        assert_eq!((unlocked().falls_at(NEVER), Lock::Locked.falls_at(NEVER)), (None, None));
    }

    #[test]
    fn every_wrong_passphrase_doubles_the_pause_up_to_half_a_minute() {
        let pauses: Vec<_> = [0, 1, 2, 3].map(pause_after).map(|pause| pause.as_millis()).into();
        assert_eq!(pauses, [0, 250, 500, 1000]);
        assert_eq!((pause_after(9), pause_after(u32::MAX)), (LONGEST_PAUSE, LONGEST_PAUSE));
    }

    fn file() -> (tempfile::TempDir, RecordFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::new(folder.path().join("state/lock.json"));
        (folder, file)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (_folder, file) = file();
        assert_eq!(file.load().unwrap(), Record::default());
        let key = Private::generate().unwrap().seal_with("correct horse").unwrap();
        let record = Record { locked: true, key: Some(key) };
        file.save(1, &record).unwrap();
        assert_eq!(file.load().unwrap(), record);
    }

    #[test]
    fn a_change_does_not_undo_a_later_one() {
        let (_folder, file) = file();
        file.save(2, &Record { locked: true, key: None }).unwrap();
        file.save(1, &Record::default()).unwrap();
        assert!(file.load().unwrap().locked);
    }

    #[test]
    fn a_record_that_is_not_understood_is_an_error_that_names_it() {
        let (_folder, file) = file();
        file.save(1, &Record::default()).unwrap();
        for text in ["", "{", "{}", r#"{"version":2,"locked":false,"passphrase":null}"#] {
            fs::write(&file.path, text).unwrap();
            let problem = Problem::from(&file.load().unwrap_err());
            assert!(
                problem.code == ErrorCode::LOCKED && problem.message.contains("lock.json"),
                "{problem:?}"
            );
        }
    }
}
