//! Why the agent does not start, and what to do about it.

use std::io;

use dph_agent_ipc::{BindError, EndpointError};
use dph_agent_secret::PoolError;

use crate::config::ConfigError;
use crate::only_one::OnlyOneError;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no place to listen.
    #[error("cannot find a place to listen")]
    Endpoint(#[from] EndpointError),
    /// It cannot listen there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another agent runs.
    #[error(transparent)]
    OnlyOne(#[from] OnlyOneError),
    /// What the supervisor passed on is not the socket that it should be.
    #[error("cannot use the socket from systemd")]
    Activation(#[source] io::Error),
    /// Somebody wanted it to stop before it was up.
    #[error("stopped while waiting for another agent to end")]
    Stopped,
    /// There is no memory to keep keys in.
    #[error(transparent)]
    Memory(PoolError),
    /// The system refuses something.
    #[error("cannot {what}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// Whether what is in the way is an agent that is just ending: its socket goes before it does.
    pub(crate) fn is_handover(&self) -> bool {
        match self {
            Self::OnlyOne(OnlyOneError::Held { wanted, here, .. }) => *here && !wanted.path().exists(),
            Self::Bind(BindError::InUse { endpoint, .. }) => !endpoint.path().exists(),
            Self::Config(_)
            | Self::Endpoint(_)
            | Self::Bind(_)
            | Self::OnlyOne(_)
            | Self::Activation(_)
            | Self::Stopped
            | Self::Memory(_)
            | Self::System { .. } => false,
        }
    }

    /// Returns the next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Config(error) => error.hint(),
            Self::Endpoint(error) => endpoint_hint(error),
            Self::Bind(error) => bind_hint(error),
            Self::OnlyOne(OnlyOneError::Held { .. }) => {
                "use that one, or stop it: dph-agent-client stop --socket PATH"
            }
            Self::OnlyOne(OnlyOneError::Io { .. }) => "mend the owner and mode of the file and its folder",
            Self::Activation(_) => "it must be one listening Unix socket: look at the socket unit",
            Self::Stopped => "start it again when the other one has gone",
            Self::Memory(PoolError::Memfd(_)) => {
                "set secret-memory to \"auto\" or \"encrypted\", or raise the limit on locked memory"
            }
            Self::Memory(_) | Self::System { .. } => "look at the system's limits",
        }
    }
}

pub(crate) fn endpoint_hint(error: &EndpointError) -> &'static str {
    match error {
        EndpointError::Invalid { .. } => "give --socket the path of a file that the agent can make",
        EndpointError::TooLong { .. } => "give a shorter --socket",
        EndpointError::Symlink { .. } | EndpointError::NotAFolder { .. } => {
            "move it away, or give another --socket"
        }
        EndpointError::Foreign { .. } | EndpointError::Exposed { .. } | EndpointError::Folder { .. } => {
            "mend the folder's owner and mode, or give another --socket"
        }
        EndpointError::Identity { .. } => "give a --socket",
    }
}

fn bind_hint(error: &BindError) -> &'static str {
    match error {
        BindError::InUse { .. } => "use the agent that listens there, or give another --socket",
        BindError::NotASocket { .. } => "move it away, or give another --socket",
        BindError::Folder(error) => endpoint_hint(error),
        BindError::Lock { .. } | BindError::Probe { .. } | BindError::Listen { .. } => {
            "mend the owner and mode of the file and its folder, or give another --socket"
        }
    }
}
