//! Request, peer and lock in, permit or refusal out: permission is a value that only this file makes.

use dph_agent_ipc::{Peer, Uid};
use dph_agent_protocol::{ErrorCode, Request};

use crate::error::Problem;
use crate::lock;

/// A request that may be carried out.
#[derive(Debug)]
pub struct Permit(Request);

impl Permit {
    /// Returns what was permitted.
    pub fn into_request(self) -> Request {
        self.0
    }
}

/// Decides whether `peer` may ask that now; the agent runs as `own`.
///
/// # Errors
///
/// [`ErrorCode::DENIED`] when a user who may only have tokens wants to change something,
/// [`ErrorCode::LOCKED`] for all that a locked agent does not answer, whatever it names.
pub fn authorize(request: Request, peer: &Peer, own: &Uid, is_locked: bool) -> Result<Permit, Problem> {
    if peer.uid != *own && !is_for_guests(&request) {
        return Err(Problem::new(
            ErrorCode::DENIED,
            format!("`{}` is only for the agent's own user", request.name()),
            "users listed in allow-uid may ask for tokens and look; the agent's user must do the rest",
        ));
    }
    if is_locked && !is_answered_locked(&request) {
        return Err(lock::locked());
    }
    Ok(Permit(request))
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
        | Request::Lock(_)
        | Request::Unlock(_)
        | Request::LockState
        | Request::AddFor(_)
        | Request::Migrate(_)
        | Request::MigrateWith(_)
        | Request::AuditState
        | Request::Revoke(_)
        | Request::Rotate(_)
        | Request::Stop
        | Request::Pending(_)
        | Request::Approve(_)
        | Request::Deny(_)
        | Request::Explain(_)
        | Request::Zen(_) => false,
    }
}

/// Whether it is answered while the agent is locked.
fn is_answered_locked(request: &Request) -> bool {
    match request {
        Request::Ping
        | Request::Status(_)
        | Request::Lock(_)
        | Request::Unlock(_)
        | Request::LockState
        | Request::AuditState
        | Request::Stop => true,
        Request::Forget(kept) => kept.all,
        Request::Ready(_)
        | Request::Token(_)
        | Request::List(_)
        | Request::Prepare(_)
        | Request::Add(_)
        | Request::SetDefault(_)
        | Request::Remove(_)
        | Request::AddFor(_)
        | Request::Migrate(_)
        | Request::MigrateWith(_)
        | Request::Revoke(_)
        | Request::Rotate(_)
        | Request::Refresh(_)
        | Request::Pending(_)
        | Request::Approve(_)
        | Request::Deny(_)
        | Request::Explain(_)
        | Request::Zen(_) => false,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use dph_agent_protocol::{Kept, Selector};

    use super::*;

    const OWN: Peer = Peer { uid: 1000, pid: None };

    #[test]
    fn a_locked_agent_answers_what_needs_no_secret_and_nothing_else() {
        let forget = |all| Request::Forget(Kept { selector: Selector::default(), all, dry_run: false });
        let answered = [Request::Ping, Request::LockState, Request::AuditState, Request::Stop, forget(true)];
        for request in answered {
            assert!(authorize(request, &OWN, &1000, true).is_ok());
        }
        for request in [Request::Token(dph_agent_protocol::TokenRequest::default()), forget(false)] {
            let refused = authorize(request.clone(), &OWN, &1000, true).unwrap_err();
            assert_eq!(refused.code, ErrorCode::LOCKED);
            assert!(authorize(request, &OWN, &1000, false).is_ok());
        }
    }

    #[test]
    fn a_listed_user_gets_tokens_and_nothing_else() {
        let guest = Peer { uid: 1001, pid: None };
        assert!(
            authorize(Request::Token(dph_agent_protocol::TokenRequest::default()), &guest, &1000, false)
                .is_ok()
        );
        let approve = Request::Approve(dph_agent_protocol::Approve::default());
        let pending = Request::Pending(dph_agent_protocol::Page::default());
        let zen = Request::Zen(dph_agent_protocol::Zen::default());
        for request in [Request::Stop, Request::AuditState, pending, approve, zen] {
            let refused = authorize(request, &guest, &1000, false).unwrap_err();
            assert_eq!(refused.code, ErrorCode::DENIED);
        }
        assert!(authorize(Request::Stop, &OWN, &1000, false).is_ok());
    }
}
