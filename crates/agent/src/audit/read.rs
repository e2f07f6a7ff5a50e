//! Reads the log again: verification, and what was recorded about a time, a profile or a token.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::chain::{Chain, Fault, Sound, What, Whole};
use super::file::{LOCK, NAME, files_in};
use super::record::{TokenDigest, visible};
use super::time::rfc3339;
use crate::private_file;

/// Longest file that is read; what the agent puts aside is far shorter.
const MAX_FILE: usize = 256 * 1024 * 1024;
/// How long a batch that is being written is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A file of the log.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it is the one that is written to.
    pub is_newest: bool,
}

/// Reads all files of the log in `folder`, the oldest first, as they are between two batches of lines.
///
/// # Errors
///
/// When one cannot be read.
pub fn read_all(folder: &Path) -> io::Result<Vec<LogFile>> {
    let lock = private_file::open_regular(File::options().read(true), &folder.join(LOCK));
    let _locked = lock.ok().filter(wait_for);
    let read = |(number, path): (Option<u64>, std::path::PathBuf)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = private_file::read_regular(&path, MAX_FILE)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(LogFile { name, bytes, is_newest: number.is_none() })
    };
    files_in(folder)?.into_iter().map(read).collect()
}

/// A writer that does not end is not waited for any longer: what it left is read as it is.
fn wait_for(lock: &File) -> bool {
    let end = Instant::now() + PATIENCE;
    while let Err(TryLockError::WouldBlock) = lock.try_lock_shared() {
        if Instant::now() > end {
            return false;
        }
        sleep(LOOK_EVERY);
    }
    true
}

/// Verifies a log; `head` is one that must be in it.
///
/// # Errors
///
/// Where it is not what was written.
pub fn verify(files: &[LogFile], head: Option<String>) -> Result<Whole, Fault> {
    let mut chain = Chain::new(head);
    files.iter().try_for_each(|file| chain.file(&file.name, &file.bytes, file.is_newest))?;
    let has_older = files.iter().any(|file| !file.is_newest);
    if has_older && !files.iter().any(|file| file.is_newest && !file.bytes.is_empty()) {
        return Err(Fault { file: NAME.to_owned(), line: 1, what: What::NoNewest });
    }
    chain.finish()
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Not those before, in seconds since 1970.
    pub since: Option<i64>,
    /// Those about this profile.
    pub profile: Option<String>,
    /// Those about this token.
    pub token: Option<TokenDigest>,
}

/// A line that was found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// As it stands in the file.
    pub text: &'a str,
    fields: Map<String, Value>,
}

/// Returns the lines of `file` that are wanted, and how many cannot be read.
pub fn search<'a>(file: &'a LogFile, wanted: &Wanted) -> (Vec<Found<'a>>, usize) {
    let lines = file.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut found, mut unread) = (Vec::new(), 0);
    for line in lines {
        match Found::parse(line) {
            Some(line) if line.is(wanted) => found.push(line),
            Some(_) => {}
            None => unread += 1,
        }
    }
    (found, unread)
}

impl<'a> Found<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let text = Sound::parse(line)?.text;
        Some(Self { text, fields: serde_json::from_str(text).ok()? })
    }

    fn is(&self, wanted: &Wanted) -> bool {
        let is =
            |field: &str, value: Option<&str>| value.is_none_or(|value| self.field(field) == Some(value));
        // The form of times is such that their order is that of their texts.
        let since = wanted.since.map(rfc3339);
        since.is_none_or(|since| self.field("time").is_some_and(|time| time >= since.as_str()))
            && is("profile", wanted.profile.as_deref())
            && is("token", wanted.token.as_ref().map(TokenDigest::as_str))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// Returns the line for people.
    pub fn to_line(&self) -> String {
        let column = |name| self.field(name).unwrap_or("-");
        let [time, event, decision, profile, token] =
            ["time", "event", "decision", "profile", "token"].map(column);
        let mut line = format!("{time:<20}  {event:<9} {decision:<8} {profile:<16} {token:<16}");
        for (name, value) in self.fields.iter().filter(|(name, _)| !IN_COLUMNS.contains(&name.as_str())) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(&format!(" {name}={value}"));
        }
        visible(line.trim_end())
    }
}

/// Fields that have a column, or mean nothing to people.
const IN_COLUMNS: &[&str] = &["time", "event", "decision", "profile", "token", "prev", "hash"];
