//! Standard error, which `start` makes a file: one that has become long is put aside, also while the agent runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::private_file;

/// A log file that is longer is put aside while the agent runs.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// Returns the name under which the log `file` is put aside; what had it before is gone then.
pub fn aside(file: &Path) -> PathBuf {
    file.with_extension("log.old")
}

/// Opens the log `file` for lines behind those that it has.
///
/// # Errors
///
/// As the system says, or when it is no regular file.
pub fn open(file: &Path) -> io::Result<std::fs::File> {
    private_file::open_or_create(file)?;
    private_file::open_regular(std::fs::File::options().append(true), file)
}

/// Standard error, and the file that it is, if it is one of ours.
#[derive(Debug)]
pub(super) struct Stderr {
    file: Option<PathBuf>,
}

impl Stderr {
    /// Returns standard error, which is to be the log `file`. Where it is something else, nothing is put aside.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file: file.filter(|file| is_stderr(file)) }
    }
}

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let len = io::stderr().write(lines)?;
        if let Some(file) = &self.file {
            // There is nobody else to tell: it goes on in the file that is open.
            let _stays = put_aside(file, MAX_LEN).is_err();
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Another agent with the same file may have put it aside already: then there is a new one to go on in.
#[cfg(unix)]
fn put_aside(file: &Path, max_len: u64) -> io::Result<()> {
    let len = rustix::fs::fstat(io::stderr())?.st_size;
    if u64::try_from(len).is_ok_and(|len| len > max_len) {
        if is_stderr(file) {
            std::fs::rename(file, aside(file))?;
        }
        rustix::stdio::dup2_stderr(open(file)?)?;
    }
    Ok(())
}

#[cfg(unix)]
fn is_stderr(file: &Path) -> bool {
    let identity = |file: rustix::fs::Stat| (file.st_dev, file.st_ino);
    let (stderr, file) = (rustix::fs::fstat(io::stderr()), rustix::fs::stat(file));
    stderr.is_ok_and(|stderr| file.is_ok_and(|file| identity(stderr) == identity(file)))
}

/// Elsewhere a file that is open cannot be exchanged: it is put aside at a start.
#[cfg(not(unix))]
fn put_aside(_file: &Path, _max_len: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn is_stderr(_file: &Path) -> bool {
    false
}
