//! Request and peer in, permit or refusal out: permission is a value that only this file makes.

use dph_agent_ipc::{Peer, Uid};
use dph_agent_protocol::{ErrorCode, Request};

use crate::error::Problem;

/// A request that may be carried out.
#[derive(Debug)]
pub struct Permit(Request);

impl Permit {
    /// Returns what was permitted.
    pub fn into_request(self) -> Request {
        self.0
    }
}

/// Decides whether `peer` may ask that; the agent runs as `own`.
///
/// # Errors
///
/// [`ErrorCode::DENIED`] when a user who may only have tokens wants to change something.
pub fn authorize(request: Request, peer: &Peer, own: &Uid) -> Result<Permit, Problem> {
    if peer.uid == *own || is_for_guests(&request) {
        return Ok(Permit(request));
    }
    Err(Problem::new(
        ErrorCode::DENIED,
        format!("`{}` is only for the agent's own user", request.name()),
        "users listed in allow-uid may ask for tokens and look; the agent's user must do the rest",
    ))
}

/// Whether users listed in `allow-uid` may ask it, too.
fn is_for_guests(request: &Request) -> bool {
    match request {
        Request::Ping | Request::Ready(_) | Request::Token(_) | Request::List(_) | Request::Status(_) => true,
        Request::Prepare(_)
        | Request::Add(_)
        | Request::SetDefault(_)
        | Request::Forget(_)
        | Request::Remove(_)
        | Request::Refresh(_)
        | Request::Stop => false,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_listed_user_gets_tokens_and_nothing_else() {
        let guest = Peer { uid: 1001, pid: None };
        assert!(
            authorize(Request::Token(dph_agent_protocol::TokenRequest::default()), &guest, &1000).is_ok()
        );
        let refused = authorize(Request::Stop, &guest, &1000).unwrap_err();
        assert_eq!(refused.code, ErrorCode::DENIED);
        assert!(authorize(Request::Stop, &Peer { uid: 1000, pid: None }, &1000).is_ok());
    }
}
