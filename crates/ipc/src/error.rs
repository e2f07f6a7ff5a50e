//! Why a connection or a listener did not come to be.

use std::io;

use crate::endpoint::EndpointError;
use crate::peer::Uid;

/// Why no connection to an agent came to be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket or pipe of that name.
    #[error("nothing is there")]
    Absent,
    /// The socket is there, but nobody listens on it.
    #[error("nobody listens there")]
    Refused,
    /// Another user's process listens there; nothing was sent to it.
    #[error("the process that listens there runs as {owner}, not as this user")]
    ForeignServer {
        /// The user that it runs as.
        owner: Uid,
    },
    /// The socket is open only to its owner, who is somebody else.
    #[error("the socket belongs to {owner}, who lets no other user in")]
    Closed {
        /// Whose it is.
        owner: Uid,
    },
    /// The socket cannot be reached because its folder is somebody else's.
    #[error(transparent)]
    UnsafeFolder(#[from] EndpointError),
    /// Somebody listens there, but did not take the connection in time.
    #[error("the connection was not taken in time")]
    Timeout,
    /// The operating system refused for another reason.
    #[error("cannot connect")]
    Other(#[from] io::Error),
}

impl ConnectError {
    /// Returns whether no agent lives there, so that trying the next place is safe.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Absent | Self::Refused)
    }
}

/// Why the agent cannot listen.
#[cfg(feature = "tokio")]
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there or is about to.
    #[error("`{endpoint}` is in use{}", pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The place that was asked for.
        endpoint: crate::Endpoint,
        /// The process that holds it, where it can be told.
        pid: Option<u32>,
    },
    /// Something that is no socket has that name; it is not ours to remove.
    #[error("`{endpoint}` exists and is not a socket")]
    NotASocket {
        /// The place that was asked for.
        endpoint: crate::Endpoint,
    },
    /// The folder cannot be trusted.
    #[error(transparent)]
    Folder(#[from] EndpointError),
    /// The lock file beside the socket cannot be opened or locked.
    #[error("cannot lock `{}`", path.display())]
    Lock {
        /// The lock file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It cannot be told whether the socket that is there is alive.
    #[error("cannot tell whether somebody listens on `{endpoint}`")]
    Probe {
        /// The place that was asked for.
        endpoint: crate::Endpoint,
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket or pipe cannot be made.
    #[error("cannot listen on `{endpoint}`")]
    Listen {
        /// The place that was asked for.
        endpoint: crate::Endpoint,
        /// What the operating system said.
        source: io::Error,
    },
}
