//! The chain of hashes, and what a log must look like to be whole. Pure: bytes in, verdict out.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::Deserialize;

/// What stands before the hash of the line before.
const PREV: &str = "{\"prev\":\"";
/// What stands between that and the line's number.
const SEQ: &str = "\",\"seq\":";
/// What stands before a line's own hash, which covers all that is left of this.
const HASH: &str = ",\"hash\":\"";
/// What ends a line.
const END: &str = "\"}";
/// Hexadecimal digits of a hash.
const DIGITS: usize = 64;
/// Fewest digits that name a head.
const MIN_DIGITS: usize = 16;

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of its last line.
    pub seq: u64,
    /// The hash of that.
    pub hash: String,
}

impl Head {
    /// Returns what the first line of all follows.
    pub fn genesis() -> Self {
        Self { seq: 0, hash: "0".repeat(DIGITS) }
    }
}

/// Returns `bytes` in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// Returns the SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Ends a body with its hash and a line feed, and returns that hash, too.
pub fn seal(mut body: String) -> (String, String) {
    let hash = sha256(body.as_bytes());
    for part in [HASH, &hash, END, "\n"] {
        body.push_str(part);
    }
    (body, hash)
}

/// A line whose own hash is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound<'a> {
    /// The hash of the line before.
    pub prev: &'a str,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: &'a str,
    /// All of it.
    pub text: &'a str,
}

impl<'a> Sound<'a> {
    /// Reads a line without its line feed.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let at = text.len().checked_sub(HASH.len() + DIGITS + END.len())?;
        let (body, end) = text.split_at_checked(at)?;
        let hash = end.strip_prefix(HASH)?.strip_suffix(END)?;
        let (prev, rest) = body.strip_prefix(PREV)?.split_at_checked(DIGITS)?;
        let (seq, _) = rest.strip_prefix(SEQ)?.split_once(',')?;
        let sound = sha256(body.as_bytes()) == hash;
        Some(Self { prev, seq: seq.parse().ok()?, hash, text }).filter(|_| sound)
    }

    fn marker(&self) -> Option<Marker> {
        serde_json::from_str(self.text).ok()
    }

    /// Returns the chain that ends here.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.to_owned() }
    }

    fn follows(&self, head: &Head) -> bool {
        self.prev == head.hash && Some(self.seq) == head.seq.checked_add(1)
    }
}

/// The lines that the log writes about itself.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Marker {
    File,
    Torn {
        bytes: u64,
        sha256: String,
    },
    Lost {
        lines: u64,
    },
    Disturbed,
    #[serde(other)]
    Other,
}

/// Returns the last sound line in `bytes`, and where it ends, its line feed included.
pub fn last_sound(bytes: &[u8]) -> Option<(Head, usize)> {
    let mut end = bytes.len();
    for piece in bytes.rsplit(|byte| *byte == b'\n') {
        if let Some(sound) = Sound::parse(piece) {
            return Some((sound.head(), (end + 1).min(bytes.len())));
        }
        end = end.saturating_sub(piece.len() + 1);
    }
    None
}

/// Whether `gap` can be what is left of lines behind `prev` that were never finished: a crash or a full disk
/// leaves the start of a line, zeros where blocks never arrived, and nothing that was whole.
pub(super) fn is_torn(gap: &[u8], prev: &str, seq: u64) -> bool {
    let start = format!("{PREV}{prev}{SEQ}{seq},");
    gap.split(|byte| *byte == b'\n').all(|piece| {
        let zeros = piece.iter().rev().take_while(|byte| **byte == 0).count();
        let piece = piece.split_at(piece.len() - zeros).0;
        (piece.starts_with(start.as_bytes()) || start.as_bytes().starts_with(piece)) && !has_end(piece)
    })
}

/// Whether a whole line could end in `piece`.
fn has_end(piece: &[u8]) -> bool {
    let digits = |window: &[u8]| window.iter().all(u8::is_ascii_hexdigit);
    let len = HASH.len() + DIGITS + END.len();
    piece.windows(len).any(|window| {
        let hash = window.strip_prefix(HASH.as_bytes()).and_then(|rest| rest.strip_suffix(END.as_bytes()));
        hash.is_some_and(digits)
    })
}

/// Where a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: String,
    /// In which of its lines, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: What,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is not what was written.
    Changed,
    /// It does not follow the line before it.
    OutOfOrder,
    /// A file begins with another line than it was begun with.
    NoBeginning,
    /// The rest of an unfinished line is not what it was.
    RestChanged,
    /// The agent itself found that the log had been changed.
    Disturbed,
    /// The newest file is gone or empty, and there are older ones.
    NoNewest,
    /// It is the last line, and the head that was given is nowhere.
    NoSuchHead,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "this line was changed",
            Self::OutOfOrder => {
                "this line does not follow the one before: lines were removed, added or reordered"
            }
            Self::NoBeginning => "this file does not begin with its first line",
            Self::RestChanged => "what is left of an unfinished line before this one was changed",
            Self::Disturbed => "the agent found here that lines which it had written were gone or changed",
            Self::NoNewest => {
                "this file is gone or empty, and there are older ones: its lines were removed, unless the agent was \
                 killed just as it began the file and has written nothing since"
            }
            Self::NoSuchHead => {
                "the chain ends here, and no line of it is the head that was given: the end was cut off, or all \
                 of it was written anew, or that line's file is gone"
            }
        })
    }
}

/// What is no sign of tampering, and worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The chain does not begin with its first line: older files are gone.
    Older {
        /// The first line that is there.
        seq: u64,
    },
    /// The last line was not finished.
    TornEnd {
        /// In which file.
        file: String,
        /// In which line.
        line: usize,
    },
    /// A line was not finished, and the agent went on behind it.
    Torn {
        /// In which file.
        file: String,
        /// The line behind it.
        line: usize,
    },
    /// Lines could not be written.
    Lost {
        /// In which file.
        file: String,
        /// The line that says so.
        line: usize,
        /// How many.
        lines: u64,
    },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older { seq } => write!(f, "older files are gone: the chain is whole from line {seq} on"),
            Self::TornEnd { file, line } => {
                write!(f, "{file}, line {line}: not finished, as a crash or a full disk leaves it")
            }
            Self::Torn { file, line } => {
                write!(f, "{file}, before line {line}: the rest of an unfinished line, as it was")
            }
            Self::Lost { file, line, lines } => {
                write!(f, "{file}, line {line}: {lines} lines could not be written before this one")
            }
        }
    }
}

/// A log that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its end.
    pub head: Head,
    /// Lines that were looked at.
    pub lines: u64,
    /// Lines behind the head that was given.
    pub since: Option<u64>,
    /// What else there is to say.
    pub remarks: Vec<Remark>,
}

/// What `--head` takes: at least 16 of the 64 hexadecimal digits, from the first one on.
///
/// # Errors
///
/// When it is anything else.
pub fn parse_head(text: &str) -> Result<String, String> {
    let fits = (MIN_DIGITS..=DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let wrong = || format!("a head is {MIN_DIGITS} to {DIGITS} hexadecimal digits");
    fits.then(|| text.to_ascii_lowercase()).ok_or_else(wrong)
}

/// Verifies the files of a log, from the oldest on.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: Option<Head>,
    lines: u64,
    /// The head that is known from elsewhere.
    sought: Option<String>,
    found: Option<u64>,
    remarks: Vec<Remark>,
    last: (String, usize),
}

impl Chain {
    /// Returns a verifier; `sought` is a head that must be in the chain.
    pub fn new(sought: Option<String>) -> Self {
        Self { sought, ..Self::default() }
    }

    /// Takes the next file; `is_newest` says whether it is the one that is written to.
    ///
    /// # Errors
    ///
    /// Where it is not what was written.
    pub fn file(&mut self, name: &str, bytes: &[u8], is_newest: bool) -> Result<(), Fault> {
        let mut at = Place { name, line: 0, unsound: None, gap: 0, is_first: true };
        let mut offset = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            at.line += 1;
            let line = piece.strip_suffix(b"\n").unwrap_or(piece);
            match Sound::parse(line) {
                None => _ = at.unsound.get_or_insert(at.line),
                Some(sound) => {
                    self.line(&sound, bytes.get(at.gap..offset).unwrap_or_default(), &at)?;
                    if line.len() == piece.len() {
                        self.unfinished(&at, is_newest)?;
                    }
                    at = Place { gap: offset + piece.len(), unsound: None, is_first: false, ..at };
                    self.last = (name.to_owned(), at.line);
                }
            }
            offset += piece.len();
        }
        self.tail(bytes.get(at.gap..).unwrap_or_default(), &at, is_newest)
    }

    /// Ends the chain.
    ///
    /// # Errors
    ///
    /// When the head that was given is not in it.
    pub fn finish(self) -> Result<Whole, Fault> {
        let head = self.head.unwrap_or_else(Head::genesis);
        if self.sought.is_some() && self.found.is_none() {
            let (file, line) = self.last;
            return Err(Fault { file, line, what: What::NoSuchHead });
        }
        let since = self.found.map(|seq| head.seq.saturating_sub(seq));
        Ok(Whole { head, lines: self.lines, since, remarks: self.remarks })
    }

    fn line(&mut self, sound: &Sound<'_>, gap: &[u8], at: &Place<'_>) -> Result<(), Fault> {
        let marker = sound.marker().ok_or_else(|| at.fault(What::Changed))?;
        if let Some(line) = at.unsound.filter(|_| !matches!(marker, Marker::Torn { .. })) {
            return Err(Place { line, ..*at }.fault(What::Changed));
        }
        match &self.head {
            Some(head) if !sound.follows(head) => return Err(at.fault(What::OutOfOrder)),
            Some(_) => {}
            None => self.first(sound, at)?,
        }
        if at.is_first && !matches!(marker, Marker::File | Marker::Torn { .. }) {
            return Err(at.fault(What::NoBeginning));
        }
        self.mark(&marker, sound, gap, at)?;
        self.take(sound);
        Ok(())
    }

    /// What the first line of all follows cannot be seen, unless that is nothing.
    fn first(&mut self, sound: &Sound<'_>, at: &Place<'_>) -> Result<(), Fault> {
        match sound.seq {
            1 if !sound.follows(&Head::genesis()) => Err(at.fault(What::OutOfOrder)),
            1 => Ok(()),
            seq => {
                self.remarks.push(Remark::Older { seq });
                Ok(())
            }
        }
    }

    fn mark(&mut self, marker: &Marker, sound: &Sound<'_>, gap: &[u8], at: &Place<'_>) -> Result<(), Fault> {
        let (file, line) = (at.name.to_owned(), at.line);
        match marker {
            Marker::Torn { bytes, sha256: hash } => {
                let rest = gap.strip_suffix(b"\n").unwrap_or(gap);
                let same = u64::try_from(rest.len()) == Ok(*bytes) && sha256(rest) == *hash;
                if !same || rest.is_empty() || !is_torn(rest, sound.prev, sound.seq) {
                    return Err(at.fault(What::RestChanged));
                }
                self.remarks.push(Remark::Torn { file, line });
            }
            Marker::Lost { lines } => self.remarks.push(Remark::Lost { file, line, lines: *lines }),
            Marker::Disturbed => return Err(at.fault(What::Disturbed)),
            Marker::File | Marker::Other => {}
        }
        Ok(())
    }

    fn take(&mut self, sound: &Sound<'_>) {
        self.lines += 1;
        if self.sought.as_ref().is_some_and(|sought| sound.hash.starts_with(sought)) {
            self.found = Some(sound.seq);
        }
        self.head = Some(sound.head());
    }

    /// A last line may lack its line feed, in the newest file.
    fn unfinished(&mut self, at: &Place<'_>, is_newest: bool) -> Result<(), Fault> {
        if !is_newest {
            return Err(at.fault(What::Changed));
        }
        self.remarks.push(Remark::TornEnd { file: at.name.to_owned(), line: at.line });
        Ok(())
    }

    /// Looks at what stands behind the last sound line.
    fn tail(&mut self, gap: &[u8], at: &Place<'_>, is_newest: bool) -> Result<(), Fault> {
        let Some(line) = at.unsound else { return Ok(()) };
        let head = self.head.clone().unwrap_or_else(Head::genesis);
        let is_torn = !gap.ends_with(b"\n") && is_torn(gap, &head.hash, head.seq.saturating_add(1));
        if !is_newest || !is_torn {
            return Err(Place { line, ..*at }.fault(What::Changed));
        }
        self.remarks.push(Remark::TornEnd { file: at.name.to_owned(), line });
        Ok(())
    }
}

/// Where in a file the verifier is.
struct Place<'a> {
    name: &'a str,
    line: usize,
    /// The first line since the last sound one that is not sound.
    unsound: Option<usize>,
    /// Where the last sound line ends.
    gap: usize,
    /// No sound line was seen before.
    is_first: bool,
}

impl Place<'_> {
    fn fault(&self, what: What) -> Fault {
        Fault { file: self.name.to_owned(), line: self.line, what }
    }
}

#[cfg(test)]
mod tests;
