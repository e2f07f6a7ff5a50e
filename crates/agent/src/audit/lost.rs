//! Lines that were lost and that no line tells of: their number lies beside the log until one can.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::private_file;

/// The file, in the folder of the log.
const NAME: &str = "audit.lost";
/// Longest content: a number and a line feed.
const MAX_LEN: usize = 32;

/// Where the number of these lines outlives the agent.
#[derive(Clone, Debug, Default)]
pub(super) struct LostLines(PathBuf);

impl LostLines {
    /// Returns the place beside the log `file`.
    pub(super) fn beside(file: &Path) -> Self {
        Self(file.with_file_name(NAME))
    }

    /// Adds to the number.
    pub(super) fn add(&self, lines: u64) -> io::Result<()> {
        private_file::create_folder_of(&self.0)?;
        let lines = self.read()?.saturating_add(lines);
        private_file::replace(&self.0, |file| writeln!(file, "{lines}"))
    }

    /// Returns the number and forgets it; where it cannot be forgotten it is left, and not told twice.
    pub(super) fn take(&self) -> io::Result<u64> {
        match self.read()? {
            0 => Ok(0),
            lines => std::fs::remove_file(&self.0).map(|()| lines),
        }
    }

    /// What is no number counts for nothing: it is not from an agent.
    fn read(&self) -> io::Result<u64> {
        match private_file::read_regular(&self.0, MAX_LEN) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).trim().parse().unwrap_or(0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_adds_up_until_it_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let lost = LostLines::beside(&folder.path().join("state/audit.jsonl"));
        assert_eq!(lost.take().unwrap(), 0);
        lost.add(3).unwrap();
        lost.add(4).unwrap();
        assert_eq!((lost.take().unwrap(), lost.take().unwrap()), (7, 0));
        std::fs::write(&lost.0, "many").unwrap();
        assert_eq!(lost.take().unwrap(), 0);
    }
}
