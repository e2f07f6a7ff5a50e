//! Where the channel of this user lives, and who may own that place.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::peer::Uid;
use crate::sys;

/// An address that the operating system can take: the path of a socket or the name of a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// Returns the endpoint at `path`, which nobody needs to have made yet.
    ///
    /// # Errors
    /// [`EndpointError::Invalid`] or [`EndpointError::TooLong`] if no socket or pipe can have that name.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, EndpointError> {
        let path = path.into();
        sys::check_name(&path)?;
        Ok(Self(path))
    }

    /// Returns the path of the socket or the name of the pipe.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Why a place cannot carry the channel.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No socket or pipe can have that name.
    #[error("`{}` cannot be the name of {}", path.display(), sys::KIND)]
    Invalid {
        /// The name.
        path: PathBuf,
    },
    /// The name does not fit into the address that the operating system takes.
    #[error("`{}` is {len} bytes long, but the name of {} has at most {limit}", path.display(), sys::KIND)]
    TooLong {
        /// The name.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The most that this system can take.
        limit: usize,
    },
    /// The folder is a symbolic link, whose target somebody else may choose.
    #[error("`{}` is a symbolic link, not a folder", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// What should be the folder is something else.
    #[error("`{}` is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder belongs to somebody else.
    #[error("the folder `{}` belongs to uid {owner}, not to this user", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: Uid,
    },
    /// Others can reach into the folder.
    #[error("the folder `{}` has mode {mode:04o}, which lets other users in", path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder cannot be looked at or made.
    #[error("cannot use the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system does not tell who this user is.
    #[error("cannot tell who this user is")]
    Identity {
        /// What the operating system said.
        source: io::Error,
    },
}

/// What of the environment decides where the channel is; read once, by the caller.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `DPH_AGENT_SOCK`: where clients look first.
    pub socket_var: Option<OsString>,
    /// `XDG_RUNTIME_DIR`: the user's own folder for sockets.
    pub runtime_dir: Option<OsString>,
    /// `DARWIN_USER_TEMP_DIR`: the same on macOS, which tells it by a call instead of a variable.
    pub user_temp: Option<OsString>,
}

impl Surroundings {
    /// Reads the environment of this process. An empty variable counts as unset.
    pub fn from_env() -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            socket_var: var("DPH_AGENT_SOCK"),
            runtime_dir: var("XDG_RUNTIME_DIR"),
            user_temp: sys::user_temp(),
        }
    }
}

/// The rule by which a place is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The variable `DPH_AGENT_SOCK`.
    SocketVar,
    /// The folder that `XDG_RUNTIME_DIR` names.
    RuntimeDir,
    /// The same folder where the variable is lost, as in cron and tmux.
    RunUser,
    /// The folder that macOS keeps for each user.
    UserTemp,
    /// A folder of this user below `/tmp`.
    Tmp,
    /// The pipe that bears this user's security identifier.
    Pipe,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SocketVar => "DPH_AGENT_SOCK",
            Self::RuntimeDir => "XDG_RUNTIME_DIR",
            Self::RunUser => "/run/user",
            Self::UserTemp => "DARWIN_USER_TEMP_DIR",
            Self::Tmp => "/tmp",
            Self::Pipe => "named pipe",
        })
    }
}

/// A place where a client looks for the agent.
#[derive(Debug)]
pub struct Candidate {
    /// Why it looks there.
    pub rule: Rule,
    /// The place, or why it cannot be one.
    pub endpoint: Result<Endpoint, EndpointError>,
}

/// Returns the places where a client looks for the agent, in the order in which it looks; each is
/// worked out when it is asked for.
pub fn candidates(surroundings: &Surroundings) -> impl Iterator<Item = Candidate> {
    let variable = surroundings.socket_var.as_ref();
    let named = variable.map(|path| Candidate { rule: Rule::SocketVar, endpoint: Endpoint::new(path) });
    named.into_iter().chain(sys::candidates(surroundings))
}

/// Returns where the agent of this user listens: the first usable place, its folder made if need be.
///
/// `DPH_AGENT_SOCK` is left aside: it tells clients where an agent is, and may name one that is
/// forwarded from elsewhere.
///
/// # Errors
/// That of the folder if it is there but not ours alone, or cannot be made.
pub fn place(surroundings: &Surroundings) -> Result<Endpoint, EndpointError> {
    sys::place(surroundings)
}

/// Returns the places that [`place`] leaves aside because they cannot be used, with what is wrong there.
pub fn passed_over(surroundings: &Surroundings) -> impl Iterator<Item = (Rule, EndpointError)> {
    sys::passed_over(surroundings)
}

/// Makes the folder of an explicitly named socket, or checks the one that is there: it must be
/// ours or root's, and nobody else may write to it. Pipes have no folder.
///
/// # Errors
/// That of the folder if others could put a socket of theirs there, or it cannot be made.
pub fn prepare_folder(endpoint: &Endpoint) -> Result<(), EndpointError> {
    sys::prepare_folder(endpoint)
}
