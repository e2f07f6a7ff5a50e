//! The files of the log: appended to, put aside when they are long, and taken up again after whatever happened.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chain::{Head, Sound, is_torn, last_sound, seal, sha256};
use super::record::{Entry, Event, Mode};
use crate::private_file;

/// The file that is written to.
pub const NAME: &str = "audit.jsonl";
/// Held while somebody writes.
pub(super) const LOCK: &str = "audit.lock";
/// The start of a file that is about to take the place of one that is put aside.
const DRAFT: &str = "audit.new";
/// A file that would be longer is put aside first.
const MAX_LEN: u64 = 8 * 1024 * 1024;
/// Files that are kept when they are put aside.
const KEPT: usize = 8;
/// Longest file that is searched for what it says of itself.
const MAX_SEARCHED: usize = 64 * 1024 * 1024;
/// Bytes at the end of a file in which its last sound line is looked for; the longest is a tenth of that.
const WINDOW: u64 = 256 * 1024;

/// How long files get, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that a file has at most, unless one batch of lines is longer.
    pub len: u64,
    /// Files that are kept beside the one that is written to.
    pub kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { len: MAX_LEN, kept: KEPT }
    }
}

/// Lines that were not written, all or some of them.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log")]
pub struct NotWritten {
    /// The first so many entries are in the file all the same.
    pub written: usize,
    /// Why not all.
    pub source: io::Error,
}

/// Returns the files of the log in `folder`, the oldest first, with the number that each was put aside under;
/// the last has none, and is the one that is written to.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn files_in(folder: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some(NAME) => files.push((None, path)),
            Some(name) => files.extend(number(name).map(|number| (Some(number), path))),
            None => {}
        }
    }
    files.sort_by_key(|(number, _)| number.unwrap_or(u64::MAX));
    Ok(files)
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix("audit.")?.strip_suffix(".jsonl")?.parse().ok()
}

/// The log in one folder. Several processes may write to it: each batch is written under a lock, behind
/// what the others wrote.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    limits: Limits,
    open: Option<Open>,
    /// What was written last.
    known: Option<Known>,
}

/// The file that is written to, as it was left.
#[derive(Debug)]
struct Open {
    file: File,
    identity: Identity,
    len: u64,
    head: Head,
    /// What must be written before anything else.
    owed: Owed,
    /// The disk may not know yet that its name is this.
    is_new: bool,
}

/// The rest of an unfinished line needs an end, and some things must be told before others.
#[derive(Clone, Debug, Default)]
struct Owed {
    line_feed: bool,
    events: Vec<Event>,
}

#[derive(Clone, Debug)]
struct Known {
    identity: Identity,
    len: u64,
    head: Head,
}

impl Files {
    /// Returns the log in `folder`, which is neither made nor looked at yet.
    pub fn new(folder: PathBuf, limits: Limits) -> Self {
        Self { folder, limits, open: None, known: None }
    }

    /// Returns the end of the chain, where it is known.
    pub fn head(&self) -> Option<&Head> {
        self.known.as_ref().map(|known| &known.head)
    }

    /// Appends lines; `sync` waits until the disk has them.
    ///
    /// # Errors
    ///
    /// When not all were written. The next call takes the file up as it then is.
    pub fn append(&mut self, entries: &[Entry], sync: bool) -> Result<(), NotWritten> {
        let appended = self.try_append(entries, sync);
        if appended.is_err() {
            self.open = None;
        }
        appended
    }

    fn try_append(&mut self, entries: &[Entry], sync: bool) -> Result<(), NotWritten> {
        let none = |source| NotWritten { written: 0, source };
        let _locked = self.lock().map_err(none)?;
        let time = entries.first().map_or(0, |entry| entry.time);
        let mut open = self.current(time).map_err(none)?;
        let mut lines = open.render(entries, time).map_err(none)?;
        if open.len > 0 && open.len.saturating_add(lines.len()) > self.limits.len {
            open = self.rotated(&open, time).map_err(none)?;
            lines = open.render(entries, time).map_err(none)?;
        }
        open.write(&lines)?;
        if let Some((_, head)) = lines.ends.last() {
            self.known = Some(Known { identity: open.identity, len: open.len, head: head.clone() });
        }
        if sync {
            let folder = self.folder.as_path();
            let synced =
                open.file.sync_data().and_then(|()| if open.is_new { sync_folder(folder) } else { Ok(()) });
            synced.map_err(|source| NotWritten { written: entries.len(), source })?;
            open.is_new = false;
        }
        self.open = Some(open);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join(LOCK);
        match private_file::lock(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                private_file::create_folder_of(&path)?;
                private_file::lock(&path)
            }
            locked => locked,
        }
    }

    /// Returns the file as it was left, or takes it up where somebody else did something to it.
    fn current(&mut self, time: i64) -> io::Result<Open> {
        let path = self.path();
        let is_same = |open: &Open| {
            fs::metadata(&path).is_ok_and(|now| (identity(&now), now.len()) == (open.identity, open.len))
        };
        if let Some(open) = self.open.take().filter(is_same) {
            return Ok(open);
        }
        let mut open = self.take_up(time)?;
        if let Some(gone) = self.known.as_ref().filter(|known| !self.has(known)) {
            open.owed.events.push(Event::Disturbed { expected: gone.head.hash.clone() });
        }
        Ok(open)
    }

    /// Whether what was written last is still where it was written, perhaps in a file put aside since.
    fn has(&self, known: &Known) -> bool {
        if cfg!(not(unix)) {
            return true;
        }
        let files = files_in(&self.folder).unwrap_or_default();
        let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|now| identity(&now) == known.identity);
        let expected = format!("\"{}\"}}\n", known.head.hash);
        let read = |path: PathBuf| {
            let mut file = private_file::open_regular(File::options().read(true), &path)?;
            file.seek(SeekFrom::Start(known.len.saturating_sub(expected.len() as u64)))?;
            let mut bytes = vec![0; expected.len()];
            file.read_exact(&mut bytes).map(|()| bytes)
        };
        let found = files.into_iter().map(|(_, path)| path).find(is_it);
        found.is_some_and(|path| read(path).is_ok_and(|bytes| bytes == expected.as_bytes()))
    }

    /// Opens the file, or makes it, and finds out where its chain ends.
    fn take_up(&self, time: i64) -> io::Result<Open> {
        let mut file = append_to(&self.path())?;
        let metadata = file.metadata()?;
        let (identity, len) = (identity(&metadata), metadata.len());
        let (window, is_all) = (window(&mut file, len)?, len <= WINDOW);
        let (head, owed) = match last_sound(&window) {
            Some((head, end)) => (head, Owed::behind(&window, end)),
            None => {
                let head = self.head_put_aside()?;
                let owed = Owed::alone(&window);
                if !is_all || !is_torn(&window, &head.hash, head.seq.saturating_add(1)) {
                    // Nothing of it is ours: what it is, `verify` says.
                    return self.begin(head, time);
                }
                (head, owed)
            }
        };
        Ok(Open { file, identity, len, head, owed, is_new: len == 0 })
    }

    /// Returns the end of the chain in the newest file put aside that has one.
    fn head_put_aside(&self) -> io::Result<Head> {
        for (number, path) in files_in(&self.folder)?.into_iter().rev() {
            let mut file = private_file::open_regular(File::options().read(true), &path)?;
            let len = file.metadata()?.len();
            if let Some((head, _)) = last_sound(&window(&mut file, len)?).filter(|_| number.is_some()) {
                return Ok(head);
            }
        }
        Ok(self.known.as_ref().map_or_else(Head::genesis, |known| known.head.clone()))
    }

    /// Puts the file aside, which goes to the disk first: what follows it must not be there without it.
    fn rotated(&self, full: &Open, time: i64) -> io::Result<Open> {
        full.file.sync_data()?;
        self.begin(full.head.clone(), time)
    }

    /// Puts the file aside for a new one, whose first line is written before: the log never lacks its newest file,
    /// and a full disk leaves the old one where it is.
    fn begin(&self, head: Head, time: i64) -> io::Result<Open> {
        let (path, draft, files) = (self.path(), self.folder.join(DRAFT), files_in(&self.folder)?);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
        let file = append_to(&draft)?;
        let owed = Owed { line_feed: false, events: vec![Event::File] };
        let identity = identity(&file.metadata()?);
        let mut open = Open { file, identity, len: 0, head, owed, is_new: true };
        let first = open.render(&[], time)?;
        open.write(&first).map_err(|error| error.source)?;
        let newest = files.iter().filter_map(|(number, _)| *number).max().unwrap_or(0);
        fs::rename(&path, self.folder.join(format!("audit.{:06}.jsonl", newest.saturating_add(1))))?;
        fs::rename(&draft, &path)?;
        let aside = files.iter().filter(|(number, _)| number.is_some());
        let too_many = (aside.clone().count() + 1).saturating_sub(self.limits.kept);
        aside.take(too_many).try_for_each(|(_, path)| fs::remove_file(path))?;
        Ok(open)
    }

    /// Whether nothing need be written to say that the log is off: there is none, or it says so.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn is_off(&self) -> io::Result<bool> {
        let files = match files_in(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            files => files?,
        };
        for (_, path) in files.iter().rev() {
            let bytes = private_file::read_regular(path, MAX_SEARCHED)?;
            if let Some(is_on) = bytes.rsplit(|byte| *byte == b'\n').find_map(says_on) {
                return Ok(!is_on);
            }
        }
        Ok(files.is_empty())
    }
}

/// Whether a line says that the log is written from there on, or that it is not, if it says either.
fn says_on(line: &[u8]) -> Option<bool> {
    match serde_json::from_str(Sound::parse(line)?.text).ok()? {
        Says::Started => Some(true),
        Says::Mode { mode } => Some(mode != Mode::Off.word()),
        Says::Other => None,
    }
}

/// The lines that say whether the log is written.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Says {
    Started,
    Mode {
        mode: String,
    },
    #[serde(other)]
    Other,
}

impl Owed {
    /// Returns what an own line behind `end` must be preceded by.
    fn behind(bytes: &[u8], end: usize) -> Self {
        let gap = bytes.get(end..).unwrap_or_default();
        let ends = bytes.get(..end).is_some_and(|sound| sound.ends_with(b"\n"));
        Self { line_feed: !ends || !gap.is_empty(), events: torn(gap) }
    }

    /// Returns what the first own line of a file must be preceded by.
    fn alone(gap: &[u8]) -> Self {
        let events = if gap.is_empty() { vec![Event::File] } else { torn(gap) };
        Self { line_feed: !gap.is_empty(), events }
    }
}

fn torn(gap: &[u8]) -> Vec<Event> {
    if gap.is_empty() {
        return Vec::new();
    }
    vec![Event::Torn { bytes: gap.len() as u64, sha256: sha256(gap) }]
}

/// Lines in the form that they have in the file.
struct Lines {
    text: String,
    /// Where each ends, with the chain as it then is.
    ends: Vec<(usize, Head)>,
    /// Those at the start that nobody asked for.
    owed: usize,
}

impl Lines {
    fn len(&self) -> u64 {
        self.text.len() as u64
    }
}

impl Open {
    fn render(&self, entries: &[Entry], time: i64) -> io::Result<Lines> {
        let owed = self.owed.events.iter().map(|event| Entry::own(time, event.clone()));
        let text = if self.owed.line_feed { "\n".to_owned() } else { String::new() };
        let mut lines = Lines { text, ends: Vec::new(), owed: self.owed.events.len() };
        let mut head = self.head.clone();
        for entry in owed.chain(entries.iter().cloned()) {
            let (line, hash) = seal(entry.body(&head)?);
            lines.text.push_str(&line);
            head = Head { seq: head.seq.saturating_add(1), hash };
            lines.ends.push((lines.text.len(), head.clone()));
        }
        Ok(lines)
    }

    fn write(&mut self, lines: &Lines) -> Result<(), NotWritten> {
        let mut rest = lines.text.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(lines.cut(rest.len(), ErrorKind::WriteZero.into())),
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lines.cut(rest.len(), error)),
            }
        }
        self.len = self.len.saturating_add(lines.len());
        self.owed = Owed::default();
        if let Some((_, head)) = lines.ends.last() {
            self.head = head.clone();
        }
        Ok(())
    }
}

impl Lines {
    /// Returns the error of lines whose last `missing` bytes were not written.
    fn cut(&self, missing: usize, source: io::Error) -> NotWritten {
        let there = self.text.len().saturating_sub(missing);
        let whole = self.ends.iter().take_while(|(end, _)| *end <= there).count();
        NotWritten { written: whole.saturating_sub(self.owed), source }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    private_file::open_regular(&mut options, path)
}

/// Reads the end of a file.
fn window(file: &mut File, len: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(len.saturating_sub(WINDOW)))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells a file from all others of the machine.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere the length alone tells that somebody else has written, and nobody notices what is gone.
#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Identity {
    (0, 0)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
