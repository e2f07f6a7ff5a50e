//! Request, peer and lock in, permit or refusal out: permission is a value that only this file makes.

use dph_agent_ipc::{Accepted, Peer, Uid};
use dph_agent_protocol::{ErrorCode, Request};

use crate::config::Config;
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

/// Says whether `peer` is served at all while `config` is in force; the agent runs as `own`.
///
/// # Errors
///
/// [`ErrorCode::DENIED`] when it is not.
pub fn admit(peer: &Peer, own: &Uid, config: &Config) -> Result<(), Problem> {
    if Accepted::new(Uid::clone(own), guests(&config.allow_uid)).permits(peer) {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::DENIED,
        format!("the agent serves user {own}, not user {}", peer.uid),
        "run your own agent: dph-agent start",
    ))
}

#[cfg(unix)]
fn guests(allowed: &[u32]) -> Vec<Uid> {
    allowed.to_vec()
}

/// User numbers mean nothing on Windows.
#[cfg(windows)]
fn guests(_allowed: &[u32]) -> Vec<Uid> {
    Vec::new()
}

/// Decides whether `peer` may ask that now; the agent runs as `own`, and `config` is in force. Who was listed when it
/// connected need not be any more.
///
/// # Errors
///
/// [`ErrorCode::DENIED`] when a user who may only have tokens wants to change something, or may not have these any
/// more, [`ErrorCode::LOCKED`] for all that a locked agent does not answer, whatever it names.
pub fn authorize(
    request: Request,
    peer: &Peer,
    own: &Uid,
    config: &Config,
    is_locked: bool,
) -> Result<Permit, Problem> {
    admit(peer, own, config)?;
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

    fn ask(request: Request, uid: Uid, allow_uid: &[u32], is_locked: bool) -> Result<Permit, Problem> {
        let config = Config { allow_uid: allow_uid.to_vec(), ..Config::default() };
        authorize(request, &Peer { uid, pid: None }, &OWN.uid, &config, is_locked)
    }

    #[test]
    fn a_locked_agent_answers_what_needs_no_secret_and_nothing_else() {
        let forget = |all| Request::Forget(Kept { selector: Selector::default(), all, dry_run: false });
        let answered = [Request::Ping, Request::LockState, Request::AuditState, Request::Stop, forget(true)];
        for request in answered {
            assert!(ask(request, OWN.uid, &[], true).is_ok());
        }
        for request in [Request::Token(dph_agent_protocol::TokenRequest::default()), forget(false)] {
            let refused = ask(request.clone(), OWN.uid, &[], true).unwrap_err();
            assert_eq!(refused.code, ErrorCode::LOCKED);
            assert!(ask(request, OWN.uid, &[], false).is_ok());
        }
    }

    #[test]
    fn a_listed_user_gets_tokens_and_nothing_else() {
        let token = || Request::Token(dph_agent_protocol::TokenRequest::default());
        assert!(ask(token(), 1001, &[1001], false).is_ok());
        let approve = Request::Approve(dph_agent_protocol::Approve::default());
        let pending = Request::Pending(dph_agent_protocol::Page::default());
        let zen = Request::Zen(dph_agent_protocol::Zen::default());
        for request in [Request::Stop, Request::AuditState, pending, approve, zen] {
            let refused = ask(request, 1001, &[1001], false).unwrap_err();
            assert_eq!(refused.code, ErrorCode::DENIED);
        }
        assert!(ask(Request::Stop, OWN.uid, &[], false).is_ok());
    }

    #[test]
    fn a_user_who_is_not_listed_any_more_gets_nothing() {
        for request in [Request::Ping, Request::Token(dph_agent_protocol::TokenRequest::default())] {
            let refused = ask(request, 1001, &[1002], false).unwrap_err();
            assert_eq!(refused.code, ErrorCode::DENIED);
            assert!(refused.message.contains("not user 1001"), "{}", refused.message);
        }
    }
}
