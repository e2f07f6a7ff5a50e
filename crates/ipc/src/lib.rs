//! The local channel between the agent and its clients: a Unix socket or a Windows named pipe.
//!
//! It carries bytes and knows who is at the other end; what the bytes mean is not its business.
//! [`Stream`] is the client's end, without a runtime; `Listener` and `Connection` are the agent's,
//! on tokio, behind the feature `tokio`. Both systems have the same names.

mod beside;
#[cfg(feature = "tokio")]
mod connection;
mod endpoint;
mod error;
#[cfg(unix)]
mod folder;
mod peer;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as sys;
#[cfg(windows)]
use windows as sys;

pub use beside::become_program;
pub use endpoint::{
    Candidate, Endpoint, EndpointError, Rule, Surroundings, candidates, passed_over, place, prepare_folder,
};
pub use error::ConnectError;
pub use peer::{Accepted, Peer, Uid};
pub use sys::{Stream, own_uid};

#[cfg(feature = "tokio")]
pub use {
    connection::{Connection, FarEnd},
    error::BindError,
    sys::Listener,
};
