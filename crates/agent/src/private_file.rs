//! Files that are the user's alone from their first moment, and replaced whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

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
/// As the system says.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    options().create(true).truncate(false).open(path)
}

/// Replaces the content of `path` in one step: after a crash it has the old content or the new.
/// A symbolic link stays one.
///
/// # Errors
///
/// As the system says; the old content is still there then.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = draft_of(&target);
    let written = options().create_new(true).open(&draft).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&draft, &target)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _left_behind = fs::remove_file(&draft).is_err();
    }
    written
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
