//! `approve`, `deny` and `explain`.

use std::sync::Arc;

use dph_agent_ipc::{Peer, own_uid};
use dph_agent_protocol::{Approve, Deny, ErrorCode, Explain, Explained, Reply, Verdict};
use tracing::info;

use super::gate::{decide, knows_passphrase};
use super::{Desk, within};
use crate::authorize::admit;
use crate::caller::{Caller, Executable, shown};
use crate::config::{Config, ProfileName};
use crate::error::Problem;
use crate::exchange::blocking;
use crate::pending::process;
use crate::policy::{Confirm, Decision, Policy, refused};

/// What is always worth knowing about `allow`.
const WHAT_COUNTS: &str = "what counts is the program that connects: for a script its interpreter, and for one that runs \
                           dph-agent-client that client";

/// Lets a waiting request through; where a passphrase is set, only with that.
pub(super) async fn approve(request: Approve, desk: &Desk) -> Result<Reply, Problem> {
    desk.pending.find(&request.id)?;
    let work = knows_passphrase(request.passphrase, desk);
    within(request.deadline_ms, work, "the derivation of the key", desk).await?;
    let profile = desk.pending.answer(&request.id, true)?;
    info!(id = request.id, profile, "a request was approved");
    Ok(Reply::Done(vec![profile]))
}

/// Refuses a waiting request.
pub(super) fn deny(request: &Deny, desk: &Desk) -> Result<Reply, Problem> {
    let profile = desk.pending.answer(&request.id, false)?;
    info!(id = request.id, profile, "a request was denied");
    Ok(Reply::Done(vec![profile]))
}

/// Says what the policy of a profile would decide about a process.
pub(super) async fn explain(request: Explain, desk: &Desk) -> Result<Reply, Problem> {
    let config = desk.vault.config().await?;
    let name = config.select(&request.selector)?.name.clone();
    let pid = request.pid;
    let caller = blocking(move || Caller::of_process(pid)).await?;
    let caller = Arc::new(caller.map_err(|error| {
        let message = format!("cannot look at process {pid}: {error}");
        Problem::new(ErrorCode::FAILED, message, "give the number of a process that runs")
    })?);
    let policy = config.policies.get(&name);
    let (verdict, reason) = judged(&name, policy, &caller, &config).await?;
    let notes = match policy {
        Some(policy) => notes_on(Arc::clone(policy), desk.has_display).await?,
        None => Vec::new(),
    };
    let (profile, process) = (name.to_string(), process(&caller));
    Ok(Reply::Explained(Explained { profile, process, verdict, reason, notes }))
}

async fn judged(
    name: &ProfileName,
    policy: Option<&Arc<Policy>>,
    caller: &Arc<Caller>,
    config: &Config,
) -> Result<(Verdict, String), Problem> {
    if !is_served(caller, config)? {
        let reason =
            format!("the agent serves its own user and those in `allow-uid`, not user {}", caller.uid);
        return Ok((Verdict::DENIED, reason));
    }
    let Some(policy) = policy else {
        let reason = format!("profile `{name}` has neither `allow` nor `confirm`");
        return Ok((Verdict::ALLOWED, reason));
    };
    Ok(match decide(policy, caller).await? {
        Decision::Allowed => {
            (Verdict::ALLOWED, format!("`allow` of profile `{name}` names {}", caller.program()))
        }
        Decision::Confirm => {
            let within = policy.confirm_timeout.as_secs();
            (
                Verdict::CONFIRM,
                format!("`confirm` of profile `{name}`: somebody has to say yes within {within} s"),
            )
        }
        Decision::Denied(denial) => (Verdict::DENIED, refused(name.as_str(), caller, denial).message),
    })
}

#[cfg_attr(unix, expect(clippy::clone_on_copy, reason = "on Windows a user is a text"))]
fn is_served(caller: &Caller, config: &Config) -> Result<bool, Problem> {
    let own = own_uid().map_err(|error| {
        Problem::new(
            ErrorCode::FAILED,
            format!("cannot tell which user this is: {error}"),
            "look at the system",
        )
    })?;
    let peer = Peer { uid: caller.uid.clone(), pid: caller.pid };
    Ok(admit(&peer, &own, config).is_ok())
}

async fn notes_on(policy: Arc<Policy>, has_display: bool) -> Result<Vec<String>, Problem> {
    let mut notes = Vec::new();
    if let Some(Confirm::Askpass(program)) = &policy.confirm {
        let program = shown(program);
        notes.push(match has_display {
            true => format!("{program} asks, and `approve` and `deny` answer, too"),
            false => format!("the agent has no display for {program}: requests wait for `approve`"),
        });
    }
    if policy.allow.is_some() {
        notes.push(WHAT_COUNTS.to_owned());
        notes.extend(blocking(move || absent(&policy)).await?);
    }
    Ok(notes)
}

/// Names the executables of `allow` that are not there.
fn absent(policy: &Policy) -> Vec<String> {
    let rules = policy.allow.iter().flatten().filter(|path| Executable::at(path).is_err());
    rules.map(|path| format!("`allow` names {}, which cannot be found", shown(path))).collect()
}
