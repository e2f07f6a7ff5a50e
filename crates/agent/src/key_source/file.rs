//! A key in a file that nobody else could have read, or that only root could have written.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::MAX_KEY_LEN;
use crate::private_file;

/// Longest that a rotation keeps: a token of 48 KiB in JSON.
const MAX_ASIDE_LEN: usize = 320 * 1024;

/// Why a file's content is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is a folder, a pipe or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// It is too long for a key.
    #[error("it is longer than a key can be")]
    TooLong,
    /// It is ours, but others may read or write it.
    #[error("others can read it (mode {mode:04o})")]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to neither us nor root.
    #[error("it belongs to user {owner}")]
    Foreign {
        /// Whose it is.
        owner: u32,
    },
    /// It is root's, but somebody else could have put it there.
    #[error("it belongs to root, but others can change it or a folder above it")]
    Writable,
    /// Something is there already.
    #[error("there is a file already")]
    Exists,
    /// It is not the user's own file, or a link to it.
    #[error("it is not a file of this user alone")]
    NotOurs,
}

impl FileError {
    /// Returns the next step.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => "chmod 600 the key file; if others may have read it, make a new key",
            Self::Foreign { .. } | Self::Writable => {
                "the key file must be yours with mode 600, or root's where only root can write"
            }
            Self::Exists => "give the path of a file that is not there yet",
            Self::NotOurs => "delete it yourself",
            Self::Io(_) | Self::NotAFile | Self::TooLong => {
                "put the key there, or give another source with `dph-agent-client add --key-source`"
            }
        }
    }
}

/// Reads a key file once its opened descriptor has been checked.
///
/// # Errors
///
/// When it cannot be read or should not be trusted.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_up_to(path, MAX_KEY_LEN)
}

fn read_up_to(path: &Path, max_len: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = system::open_checked(path)?;
    // One byte more than allowed shows that there is more; room for all of it, so that nothing moves.
    let mut text = Zeroizing::new(Vec::with_capacity(max_len + 1));
    file.take(max_len as u64 + 1).read_to_end(&mut text)?;
    if text.len() > max_len { Err(FileError::TooLong) } else { Ok(text) }
}

/// Writes a key to a file that is not there yet, for the user alone. Its folder must exist.
///
/// # Errors
///
/// When there is something already, or it cannot be written.
pub(super) fn create(path: &Path, key: &[u8]) -> Result<(), FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(FileError::Exists);
    }
    private_file::replace(path, |file| {
        file.write_all(key)?;
        file.write_all(b"\n")
    })?;
    Ok(())
}

/// Puts another key into the user's own file, or into what a link leads to.
///
/// # Errors
///
/// When it is somebody else's, or cannot be written; it is as it was then.
pub(super) fn overwrite(path: &Path, key: &[u8]) -> Result<(), FileError> {
    check_own(path)?;
    replace(path, key)
}

/// Writes a file for the user alone, whatever was there.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), FileError> {
    Ok(private_file::replace(path, |file| file.write_all(text))?)
}

/// Makes sure that a file, or what a link leads to, is the user's own, in a folder that the user can write to.
///
/// # Errors
///
/// When it is not.
pub(super) fn check_own(path: &Path) -> Result<(), FileError> {
    let path = std::fs::canonicalize(path)?;
    if !system::is_ours(&path.symlink_metadata()?) {
        return Err(FileError::NotOurs);
    }
    // A draft is written beside it: where that cannot be, nothing can be replaced.
    Ok(system::can_write_beside(&path)?)
}

/// Returns the file beside a key file that a rotation keeps.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rotation");
    PathBuf::from(name)
}

/// As [`read`], where there is one.
///
/// # Errors
///
/// As [`read`].
pub(super) fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    match read_up_to(path, MAX_ASIDE_LEN) {
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// As [`delete`], where there is one.
///
/// # Errors
///
/// As [`delete`].
pub(super) fn delete_if_there(path: &Path) -> Result<(), FileError> {
    match delete(path) {
        Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}

/// Deletes a key file that is the user's own.
///
/// # Errors
///
/// When it is somebody else's, a link, or cannot be deleted.
pub(super) fn delete(path: &Path) -> Result<(), FileError> {
    if !system::is_ours(&path.symlink_metadata()?) {
        return Err(FileError::NotOurs);
    }
    Ok(std::fs::remove_file(path)?)
}

#[cfg(unix)]
mod system {
    use std::fs::{self, File, Metadata};
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    use std::path::Path;

    use rustix::fs::{Access, OFlags, StatVfsMountFlags};

    use super::FileError;

    const ROOT: u32 = 0;
    const OTHERS: u32 = 0o077;
    const OTHERS_WRITE: u32 = 0o022;

    pub(super) fn open_checked(path: &Path) -> Result<File, FileError> {
        // Mounted secrets are symbolic links, which are swapped when the secret changes.
        let path = fs::canonicalize(path)?;
        // A pipe put in the file's place must not hold us up.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(&path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(FileError::NotAFile);
        }
        check(&path, &meta)?;
        Ok(file)
    }

    /// Whether it is a regular file that belongs to this user and is closed to others.
    pub(super) fn is_ours(meta: &Metadata) -> bool {
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        meta.is_file() && ours && meta.mode() & OTHERS == 0
    }

    /// Makes sure that files can be made in the folder of `path`.
    pub(super) fn can_write_beside(path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
    }

    fn check(path: &Path, meta: &Metadata) -> Result<(), FileError> {
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if ours && meta.mode() & OTHERS == 0 {
            return Ok(());
        }
        match meta.uid() {
            ROOT if only_root_writes(path, meta)? => Ok(()),
            ROOT if !ours => Err(FileError::Writable),
            _ if ours => Err(FileError::Exposed { mode: meta.mode() & 0o7777 }),
            owner => Err(FileError::Foreign { owner }),
        }
    }

    /// Whether only root can change the file, or any folder on the way to it.
    fn only_root_writes(path: &Path, meta: &Metadata) -> io::Result<bool> {
        if meta.mode() & OTHERS_WRITE != 0 && !is_read_only(path)? {
            return Ok(false);
        }
        for folder in path.ancestors().skip(1) {
            let meta = fs::metadata(folder)?;
            let roots = meta.uid() == ROOT && meta.mode() & OTHERS_WRITE == 0;
            if !roots && !is_read_only(folder)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it lies on a file system mounted read-only, as the secrets of pods do, whose folders are open to all.
    fn is_read_only(path: &Path) -> io::Result<bool> {
        Ok(rustix::fs::statvfs(path)?.f_flag.contains(StatVfsMountFlags::RDONLY))
    }
}

#[cfg(windows)]
mod system {
    use std::fs::{File, Metadata};
    use std::path::Path;

    use super::FileError;

    /// Whether it is a regular file; whose it is is decided by its folder.
    pub(super) fn is_ours(meta: &Metadata) -> bool {
        meta.is_file()
    }

    /// Nobody tells before it is tried.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on other systems")]
    pub(super) fn can_write_beside(_path: &Path) -> std::io::Result<()> {
        Ok(())
    }

    /// Opens the file; who may read it is decided by the folder it is in, the user's profile.
    pub(super) fn open_checked(path: &Path) -> Result<File, FileError> {
        let file = File::open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(FileError::NotAFile) }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn key_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "the-key\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn our_own_private_file_is_read_also_through_a_link() {
        let (folder, path) = key_file(0o600);
        assert_eq!(read(&path).unwrap().as_slice(), b"the-key\n");
        let link = folder.path().join("link");
        symlink("key", &link).unwrap();
        assert_eq!(read(&link).unwrap().as_slice(), b"the-key\n");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o644, 0o640, 0o604, 0o620] {
            let (_folder, path) = key_file(mode);
            assert!(matches!(read(&path), Err(FileError::Exposed { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_pipe_or_a_folder_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(FileError::NotAFile)));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();
        assert!(matches!(read(&pipe), Err(FileError::NotAFile)));
    }

    #[test]
    fn a_long_file_is_refused() {
        let (_folder, path) = key_file(0o600);
        fs::write(&path, "k".repeat(MAX_KEY_LEN + 1)).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLong)));
    }

    #[test]
    fn the_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can make a file that belongs to somebody else.
        }
        let (_folder, path) = key_file(0o600);
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert!(matches!(read(&path), Err(FileError::Foreign { owner: 12345 })));
    }
}
