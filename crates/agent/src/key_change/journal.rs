//! What is wished and how far it has come, in a file for each profile. No secret is in it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use dph_agent_protocol::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::config::{Profile, ProfileName};
use crate::error::Problem;
use crate::private_file;
use crate::vault::ChangeKind;

/// Longest file that is read, in bytes.
const MAX_LEN: usize = 16 * 1024;
/// The version of the files that this program writes.
const VERSION: u32 = 1;
/// What the files' names end in.
const ENDING: &str = ".json";
/// The file that whoever carries out wishes holds locked.
const CLAIM: &str = "carried-out-by-one";
/// What the names of files end in that say since when a key is in use.
const AGE_ENDING: &str = ".since";

/// Where the wishes are.
#[derive(Clone, Debug)]
pub struct Journal(PathBuf);

/// A wish, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    kind: Kind,
    /// When it was wished, in seconds since 1970.
    pub(super) since: i64,
    /// Calls that may have changed something at the platform; counted before each is made.
    pub(super) sent: u8,
    /// When the last of them was made, in seconds since 1970.
    #[serde(default)]
    pub(super) sent_at: Option<i64>,
    /// The old key is invalid: what is left is to be done here.
    pub(super) done_there: bool,
    /// Until when tokens that were handed out before may be valid, in seconds since 1970.
    pub(super) tokens_until: Option<i64>,
    /// Which key was meant, by the beginning of a hash of it: enough to know it again, nothing to use.
    pub(super) key: Option<String>,
    /// How the new key is called at IBM Cloud.
    pub(super) made: Option<String>,
    /// How IBM Cloud calls the old one.
    pub(super) old_id: Option<String>,
    /// Why the key is lost, and what to do about it.
    lost: Option<Words>,
    /// The key is in memory only, and so is the wish.
    #[serde(skip)]
    volatile: bool,
    /// Somebody has taken it back.
    #[serde(skip)]
    pub(super) is_taken_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Words {
    message: String,
    hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Revoke,
    Rotate,
    Lost,
}

impl Record {
    pub(super) fn new(kind: ChangeKind, since: i64, profile: &Profile) -> Self {
        Self {
            version: VERSION,
            kind: match kind {
                ChangeKind::Revoke => Kind::Revoke,
                ChangeKind::Rotate => Kind::Rotate,
                ChangeKind::Lost => Kind::Lost,
            },
            since,
            sent: 0,
            sent_at: None,
            done_there: false,
            tokens_until: None,
            key: None,
            made: None,
            old_id: None,
            lost: None,
            volatile: !profile.key_source.is_readable(),
            is_taken_back: false,
        }
    }

    /// Returns what is left to say of it where the key was lost.
    pub(super) fn lost(self, why: &Problem) -> Self {
        let words = Words { message: why.message.clone(), hint: why.hint.clone() };
        Self { kind: Kind::Lost, lost: Some(words), ..self }
    }

    /// Returns why the key is lost.
    pub(super) fn what_is_lost(&self) -> Option<Problem> {
        let Words { message, hint } = self.lost.clone()?;
        Some(Problem::new(ErrorCode::KEY_REFUSED, message, hint))
    }

    /// Whether it can no longer be as if it had never been wished.
    pub(super) fn is_sent(&self) -> bool {
        self.kind != Kind::Lost && (self.sent > 0 || self.done_there)
    }

    /// Whether nothing may be bought with the key between two tries: it is to be ended, or has perhaps ended
    /// already and no other one is known.
    pub(super) fn keeps_from_buying(&self) -> bool {
        match self.kind {
            Kind::Revoke => true,
            Kind::Rotate => self.sent > 0 && self.made.is_none(),
            Kind::Lost => false,
        }
    }

    pub(super) fn kind(&self) -> ChangeKind {
        match self.kind {
            Kind::Revoke => ChangeKind::Revoke,
            Kind::Rotate => ChangeKind::Rotate,
            Kind::Lost => ChangeKind::Lost,
        }
    }
}

/// A file that holds no wish.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{path}`")]
pub(super) struct JournalError {
    path: PathBuf,
    source: io::Error,
}

impl Journal {
    /// Names the folder, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Returns the right to carry out what is written here, for as long as it is kept.
    ///
    /// # Errors
    ///
    /// When another agent has it, or it cannot be had.
    pub(super) fn claim(&self) -> Result<File, Problem> {
        let path = self.0.join(CLAIM);
        let claimed = private_file::create_folder_of(&path)
            .and_then(|()| private_file::open_or_create(&path))
            .and_then(|file| file.try_lock().map(|()| file).map_err(io::Error::from));
        claimed.map_err(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                return unusable(&path, &error);
            }
            Problem::new(
                ErrorCode::EXISTS,
                "another agent of this user looks after changes of keys",
                "ask that one, or stop it first",
            )
        })
    }

    /// Returns every wish that is written down.
    pub(super) fn load_all(&self) -> Vec<(ProfileName, Result<Record, JournalError>)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(ENDING)?.parse::<ProfileName>().ok()
        });
        names.map(|name| (name.clone(), self.load(&name))).collect()
    }

    fn load(&self, name: &ProfileName) -> Result<Record, JournalError> {
        let path = self.path(name);
        let read = private_file::read_regular(&path, MAX_LEN);
        let record = read.and_then(|text| Ok(serde_json::from_slice::<Record>(&text)?));
        match record {
            Ok(record) if record.version == VERSION => Ok(record),
            Ok(_) => Err(JournalError { path, source: io::Error::other("it is of another version") }),
            Err(source) => Err(JournalError { path, source }),
        }
    }

    /// Writes a new wish down.
    pub(super) fn begin(&self, name: &ProfileName, record: &Record) -> Result<(), Problem> {
        match self.load(name) {
            Err(error) if error.source.kind() != ErrorKind::NotFound => {
                Err(unusable(&error.path, &error.source))
            }
            _ => self.save(name, record),
        }
    }

    /// Writes a wish down, in place of what was written of it before.
    pub(super) fn save(&self, name: &ProfileName, record: &Record) -> Result<(), Problem> {
        if record.volatile {
            return Ok(());
        }
        let path = self.path(name);
        let write = || {
            private_file::create_folder_of(&path)?;
            let text = serde_json::to_vec_pretty(record)?;
            private_file::replace(&path, |file| file.write_all(&text))
        };
        write().map_err(|error| unusable(&path, &error))
    }

    /// Strikes a wish out for good, if there is one.
    pub(super) fn remove(&self, name: &ProfileName) -> Result<(), Problem> {
        let path = self.path(name);
        private_file::remove(&path).map_err(|error| unusable(&path, &error))
    }

    /// Returns since when the key of a profile is in use, in seconds since 1970; unless that was noted before, it is
    /// `now` from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub(super) fn age_from(&self, name: &ProfileName, now: i64) -> io::Result<i64> {
        let path = self.0.join(format!("{name}{AGE_ENDING}"));
        match private_file::read_regular(&path, MAX_LEN) {
            Ok(text) => match std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()) {
                Some(since) => Ok(since),
                None => self.note_age(name, now).map(|()| now),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => self.note_age(name, now).map(|()| now),
            Err(error) => Err(error),
        }
    }

    /// Notes that the key of a profile is in use since `now`.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub(super) fn note_age(&self, name: &ProfileName, now: i64) -> io::Result<()> {
        let path = self.0.join(format!("{name}{AGE_ENDING}"));
        private_file::create_folder_of(&path)?;
        private_file::replace(&path, |file| writeln!(file, "{now}"))
    }

    /// Forgets since when the key of a profile is in use.
    pub(super) fn forget_age(&self, name: &ProfileName) {
        // A note that stays makes the next rotation come earlier.
        let _stays = fs::remove_file(self.0.join(format!("{name}{AGE_ENDING}"))).is_err();
    }

    fn path(&self, name: &ProfileName) -> PathBuf {
        self.0.join(format!("{name}{ENDING}"))
    }
}

fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        ErrorCode::FAILED,
        format!("cannot use `{}`: {error}", path.display()),
        "look at the state folder and its disk: nothing is sent to the platform before it is written down",
    )
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::{PlatformKind, Settings};

    use super::*;

    fn profile(source: &str) -> Profile {
        let settings = Settings {
            platform: Some(PlatformKind::IBM_CLOUD),
            url: Some("https://dph.example.com".to_owned()),
            key_source: Some(source.to_owned()),
            ..Settings::default()
        };
        Profile::build("prod".parse().unwrap(), &settings).unwrap()
    }

    #[test]
    fn a_wish_is_found_again_until_it_is_struck_out() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().join("changes"));
        assert!(journal.load_all().is_empty());
        let profile = profile("keyring");
        let record = Record { sent: 1, ..Record::new(ChangeKind::Revoke, 7, &profile) };
        journal.save(&profile.name, &record).unwrap();
        let [(name, Ok(found))] = &journal.load_all()[..] else { panic!() };
        assert_eq!((name, found), (&profile.name, &record));
        journal.remove(&profile.name).unwrap();
        assert!(journal.load_all().is_empty());
        journal.remove(&profile.name).unwrap();
    }

    #[test]
    fn the_wish_for_a_key_in_memory_is_written_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().to_owned());
        let profile = profile("session");
        journal.save(&profile.name, &Record::new(ChangeKind::Revoke, 7, &profile)).unwrap();
        assert!(journal.load_all().is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_told_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().to_owned());
        for text in ["", "{}", "{\"version\":2}"] {
            fs::write(folder.path().join("prod.json"), text).unwrap();
            assert!(matches!(&journal.load_all()[..], [(_, Err(_))]), "{text}");
            assert_eq!(fs::read_to_string(folder.path().join("prod.json")).unwrap(), text);
        }
    }
}
