//! The folder of a socket: whose it is, and who else may reach into it.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::endpoint::EndpointError;
use crate::peer::Uid;

const ROOT: Uid = 0;
const ANY_ACCESS_BY_OTHERS: u32 = 0o077;
const WRITE_BY_OTHERS: u32 = 0o022;

/// Makes `folder` for this user alone, or checks that the one that is there is.
pub(crate) fn make_private(folder: &Path) -> Result<(), EndpointError> {
    make(folder)?;
    check_private(folder)
}

/// Makes `folder` for this user alone, or checks that nobody but this user and root can write to it.
pub(crate) fn make_guarded(folder: &Path) -> Result<(), EndpointError> {
    make(folder)?;
    check(folder, |owner| owner == own_uid() || owner == ROOT, WRITE_BY_OTHERS)
}

/// Checks that `folder` is this user's and closed to all others.
pub(crate) fn check_private(folder: &Path) -> Result<(), EndpointError> {
    check_own(folder, ANY_ACCESS_BY_OTHERS)
}

/// Checks as [`check_private`] does, but takes no offence at a folder that is not there.
pub(crate) fn check_private_if_there(folder: &Path) -> Result<(), EndpointError> {
    match check_private(folder) {
        Err(EndpointError::Folder { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        checked => checked,
    }
}

/// Checks that `folder`, or what it links to, is this user's and only they can write to it.
pub(crate) fn check_own_target(folder: &Path) -> Result<(), EndpointError> {
    let target = folder.canonicalize().map_err(|source| unusable(folder, source))?;
    check_own(&target, WRITE_BY_OTHERS)
}

/// Checks that `folder` is this user's and grants others none of the permissions in `denied`.
fn check_own(folder: &Path, denied: u32) -> Result<(), EndpointError> {
    check(folder, |owner| owner == own_uid(), denied)
}

fn make(folder: &Path) -> Result<(), EndpointError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        // Something is there; `check` says what is wrong with it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|source| unusable(folder, source)),
    }
}

/// Looks at `folder` itself, never at what it links to: in a shared folder anybody can leave a link.
fn check(folder: &Path, may_own: impl Fn(Uid) -> bool, denied: u32) -> Result<(), EndpointError> {
    let found = fs::symlink_metadata(folder).map_err(|source| unusable(folder, source))?;
    let path = folder.to_owned();
    if found.is_symlink() {
        return Err(EndpointError::Symlink { path });
    }
    if !found.is_dir() {
        return Err(EndpointError::NotAFolder { path });
    }
    if !may_own(found.uid()) {
        return Err(EndpointError::Foreign { path, owner: found.uid() });
    }
    if found.mode() & denied != 0 {
        return Err(EndpointError::Exposed { path, mode: found.mode() & 0o7777 });
    }
    Ok(())
}

fn unusable(folder: &Path, source: io::Error) -> EndpointError {
    EndpointError::Folder { path: folder.to_owned(), source }
}

fn own_uid() -> Uid {
    rustix::process::geteuid().as_raw()
}
