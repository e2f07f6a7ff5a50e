//! The lock file beside a socket: whoever holds it may make and remove that socket.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::listener::FileId;
use crate::endpoint::Endpoint;
use crate::error::BindError;

/// More digits than any process id has.
const MAX_PID_LEN: u64 = 16;

/// A held lock. The kernel releases it with the process, however that ends, so the file needs no
/// removal; removing it would let two agents hold locks on two files of one name.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of `endpoint` without waiting for it.
    pub(super) fn acquire(endpoint: &Endpoint) -> Result<Self, BindError> {
        let path = lock_path(endpoint);
        let failed = |source| BindError::Lock { path: path.clone(), source };
        let file = open(&path).map_err(failed)?;
        match file.try_lock() {
            // Only good to know, so a full disk keeps no agent from starting.
            Ok(()) => drop(write_pid(&file)),
            Err(TryLockError::WouldBlock) => {
                return Err(BindError::InUse { endpoint: endpoint.clone(), pid: read_pid(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self { file })
    }

    /// Returns the lock that is on the file now at hand: this one, or a new one if the file went
    /// away with its folder.
    pub(super) fn renew(self, endpoint: &Endpoint) -> Result<Self, BindError> {
        let held = self.file.metadata().map(|file| FileId::of(&file));
        if held.is_ok_and(|held| held.is_at(&lock_path(endpoint))) {
            Ok(self)
        } else {
            Self::acquire(endpoint)
        }
    }
}

fn lock_path(endpoint: &Endpoint) -> PathBuf {
    let mut path = endpoint.path().as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_link)
        .open(path)
}

/// Leaves our process id for whoever finds the lock taken.
fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_LEN).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}
