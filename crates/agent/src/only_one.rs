//! One agent for each user: a lock that ends with the process, and names it.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use dph_agent_ipc::Endpoint;

use crate::private_file;

/// Held while the agent lives.
#[derive(Debug)]
pub struct OnlyOne {
    _locked: File,
}

/// Why this agent is not the only one.
#[derive(Debug, thiserror::Error)]
pub enum OnlyOneError {
    /// Another one runs.
    #[error("another agent runs already: {holder}")]
    Held {
        /// Its process and where it listens.
        holder: String,
        /// Where this one wanted to listen.
        wanted: Endpoint,
    },
    /// The lock cannot be used.
    #[error("cannot use the lock `{path}`")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OnlyOne {
    /// Takes the lock at `path` for an agent that listens on `endpoint`.
    ///
    /// # Errors
    ///
    /// When another agent holds it, with that agent's process and endpoint.
    pub fn become_it(path: &Path, endpoint: &Endpoint) -> Result<Self, OnlyOneError> {
        let unusable = |source| OnlyOneError::Io { path: path.to_owned(), source };
        private_file::create_folder_of(path).map_err(unusable)?;
        let mut file = private_file::open_or_create(path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OnlyOneError::Held { holder: holder(&mut file), wanted: endpoint.clone() });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        name_holder(&mut file, endpoint).map_err(unusable)?;
        Ok(Self { _locked: file })
    }
}

fn name_holder(file: &mut File, endpoint: &Endpoint) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "process {}, listening on {endpoint}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // Written a moment after the lock was taken, so that it may not be there yet.
    match file.read_to_string(&mut text) {
        Ok(length) if length > 0 => text,
        Ok(_) | Err(_) => "it has just started".to_owned(),
    }
}
