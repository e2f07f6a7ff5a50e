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
        /// Whether that is where the other one listens, as far as can be told.
        here: bool,
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
                return Err(held(&mut file, endpoint));
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
    write!(file, "process {}, {}", std::process::id(), listening_on(endpoint))
}

fn held(file: &mut File, wanted: &Endpoint) -> OnlyOneError {
    let mut text = String::new();
    // Written a moment after the lock was taken, so that it may not be there yet.
    let named = file.read_to_string(&mut text).is_ok_and(|length| length > 0);
    let here = !named || text.ends_with(&listening_on(wanted));
    let holder = if named { text } else { "it has just started".to_owned() };
    OnlyOneError::Held { holder, wanted: wanted.clone(), here }
}

fn listening_on(endpoint: &Endpoint) -> String {
    format!("listening on {endpoint}")
}
