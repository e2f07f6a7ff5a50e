//! Files that are the user's alone from their first moment, and replaced whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long another process may hold a lock before whoever waits for it gives up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two tries to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Creates the folder of `path` with its parents, for the user alone, if it is not there.
///
/// # Errors
///
/// As the system says.
pub fn create_folder_of(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file for reading and writing, or creates it for the user alone.
///
/// # Errors
///
/// As the system says, or when it is no regular file.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    open_regular(options().create(true).truncate(false), path)
}

/// Opens a regular file, without waiting at a pipe or a device that somebody put in its place.
///
/// # Errors
///
/// As the system says, or when it is no regular file.
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Reads a regular file of at most `max_len` bytes, without waiting at a pipe or a device.
///
/// # Errors
///
/// As the system says, or when it is no regular file or longer than that.
pub fn read_regular(path: &Path, max_len: usize) -> io::Result<Vec<u8>> {
    let file = open_regular(File::options().read(true), path)?;
    let mut content = Vec::new();
    // One byte more than allowed shows that there is more.
    file.take(max_len as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max_len {
        let message = format!("it is longer than {max_len} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

/// Takes the lock that is the file `path`, which is created if need be; dropping the file releases it.
/// It blocks its thread while another process holds the lock, for two seconds at most.
///
/// # Errors
///
/// As the system says, or [`ErrorKind::TimedOut`] when the lock is not released in time.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = open_or_create(path)?;
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process holds the lock `{}`", path.display());
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Replaces the content of `path` in one step: after a crash it has the old content or the new.
/// A symbolic link stays one.
///
/// # Errors
///
/// As the system says; the old content is still there then, unless it was the last step that failed, which makes
/// the new one outlive a loss of power.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    sweep(&target);
    let draft = draft_of(&target);
    let written = options().create_new(true).open(&draft).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&draft, &target)?;
        sync_folder_of(&target)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _left_behind = fs::remove_file(&draft).is_err();
    }
    written
}

/// Deletes the file `path` for good, if it is there: it does not come back after a loss of power.
///
/// # Errors
///
/// As the system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder_of(path),
    }
}

/// Makes a rename outlive a loss of power, where folders can be synced.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Deletes the drafts that processes left which were killed over them: they may hold what must not lie about.
fn sweep(target: &Path) {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name().and_then(OsStr::to_str)) else {
        return;
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let numbers =
            file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new"));
        let writer = numbers.and_then(|numbers| numbers.split_once('.')?.0.parse().ok());
        if writer.is_some_and(has_ended) {
            // What cannot be deleted now is met again.
            let _left = fs::remove_file(entry.path()).is_err();
        }
    }
}

#[cfg(unix)]
fn has_ended(process: i32) -> bool {
    let process = rustix::process::Pid::from_raw(process);
    process.is_some_and(|process| rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH))
}

/// Nobody tells.
#[cfg(not(unix))]
fn has_ended(_process: i32) -> bool {
    false
}

fn draft_of(target: &Path) -> std::path::PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.new", std::process::id(), fastrand::u32(..)));
    target.with_file_name(name)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert_eq!(read_regular(&path, 4).unwrap_err().to_string(), "it is longer than 4 bytes");
    }

    #[test]
    fn a_pipe_a_device_or_a_folder_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            let error = read_regular(path, 5).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn nor_is_one_taken_for_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [pipe, link] {
            assert_eq!(lock(&path).unwrap_err().to_string(), "it is not a regular file");
        }
    }

    #[test]
    fn the_draft_of_a_process_that_was_killed_is_deleted_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let draft = folder.path().join(format!("key.{}.7.new", ended.id()));
        let others =
            [format!("key.{}.7.new", std::process::id()), "key.new".to_owned(), "other.1.new".to_owned()];
        fs::write(&draft, "a secret").unwrap();
        others.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        replace(&path, |_| Ok(())).unwrap();
        assert!(!draft.exists());
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn a_lock_that_is_not_released_is_given_up_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).unwrap();
        let error = lock(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        drop(held);
        lock(&path).unwrap();
    }
}
