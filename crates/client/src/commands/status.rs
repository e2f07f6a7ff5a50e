//! `status`: the state of the agent and of its profiles.

use std::fmt;

use dph_agent_protocol::{
    AgentStatus, AuditState, ErrorCode, KeySourceKind, KeyState, LastError, Page, PlatformKind, ProfileEntry,
    ProfileStatus, Reply, Request, StatusRequest, Statuses, TokenState,
};

use crate::cli::{Args, Command, Opt};
use crate::commands::profiles::add_entry;
use crate::exit::Error;
use crate::json::Json;
use crate::output::{self, visible};
use crate::session::{Session, unexpected_reply};
use crate::time::{now, rfc3339};
use crate::wiped::Wiped;

pub(crate) const STATUS: Command = Command {
    name: "status",
    operand: None,
    summary: "Prints the state of the agent and of its profiles.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::Check],
    changes: false,
    run,
};

/// A key that ends sooner than these seconds is warned about: 14 days.
const WARN_BEFORE: i64 = 14 * 24 * 3600;

fn run(args: &Args) -> Result<(), Error> {
    let (statuses, audit) = fetch(args)?;
    if args.has(Opt::Json) {
        output::print(&render_json(&statuses, audit.as_ref()))?;
    } else if !args.has(Opt::Quiet) {
        output::print(render_lines(&statuses, audit.as_ref()).as_bytes())?;
    }
    match first_problem(&statuses) {
        Some(error) if args.has(Opt::Check) => Err(error),
        _ => Ok(()),
    }
}

/// Returns all pages as one, and how the audit log stands, where the agent tells.
fn fetch(args: &Args) -> Result<(Statuses, Option<AuditState>), Error> {
    let selector = args.selector()?;
    let mut session = Session::open(args)?;
    let mut profiles: Vec<ProfileStatus> = Vec::new();
    loop {
        let after = profiles.last().map(|last| last.entry.name.clone()).unwrap_or_default();
        let request = StatusRequest { selector: selector.clone(), page: Page { after } };
        let Reply::Statuses(page) = session.ask(&Request::Status(request))? else {
            return Err(unexpected_reply());
        };
        let more = page.more && !page.profiles.is_empty();
        profiles.extend(page.profiles);
        if !more {
            return Ok((Statuses { agent: page.agent, profiles, more }, audit_state(&mut session)));
        }
    }
}

/// An older agent does not know the question, and a guest may not ask it.
fn audit_state(session: &mut Session) -> Option<AuditState> {
    match session.ask(&Request::AuditState) {
        Ok(Reply::AuditState(state)) => Some(state),
        _ => None,
    }
}

/// Returns why `--check` fails.
fn first_problem(statuses: &Statuses) -> Option<Error> {
    if statuses.agent.locked {
        return Some(Error::new(ErrorCode::LOCKED, "the agent is locked", "run `dph-agent-client unlock`"));
    }
    let config_error = statuses.agent.config_error.as_ref();
    statuses.profiles.iter().find_map(profile_problem).or_else(|| {
        config_error.map(|problem| Error::new(ErrorCode::CONFIG, problem, "run `dph-agent check-config`"))
    })
}

fn profile_problem(profile: &ProfileStatus) -> Option<Error> {
    let name = &profile.entry.name;
    let code = key_problem(profile).or_else(|| token_problem(profile))?;
    let problem = match &profile.last_error {
        Some(error) if error.code == code => error.message.clone(),
        _ => format!("its key is in the state `{}`", profile.key_state),
    };
    Some(Error::new(code, &format!("profile `{name}`: {problem}"), &next_step(code, name)))
}

fn key_problem(profile: &ProfileStatus) -> Option<ErrorCode> {
    match profile.key_state {
        // Perhaps a key that only a passphrase opens.
        KeyState::UNAVAILABLE if profile.last_error.is_some() => {
            profile.last_error.as_ref().map(|error| error.code)
        }
        KeyState::NONE | KeyState::REVOKING => Some(ErrorCode::NO_KEY),
        KeyState::UNAVAILABLE => Some(ErrorCode::SOURCE_UNAVAILABLE),
        KeyState::REJECTED | KeyState::LOST => Some(ErrorCode::KEY_REFUSED),
        KeyState::ORIGIN_CHANGED => Some(ErrorCode::ORIGIN_CHANGED),
        KeyState::MISCONFIGURED => Some(ErrorCode::MISCONFIGURED),
        _ => None,
    }
}

/// A token that is still good outlives the failure to replace it.
fn token_problem(profile: &ProfileStatus) -> Option<ErrorCode> {
    let failed = profile.token_state != TokenState::FRESH;
    profile.last_error.as_ref().filter(|_| failed).map(|error| error.code)
}

fn next_step(code: ErrorCode, name: &str) -> String {
    match code {
        ErrorCode::NO_KEY | ErrorCode::KEY_REFUSED | ErrorCode::ORIGIN_CHANGED => {
            format!("run `dph-agent-client add --profile {name}`")
        }
        ErrorCode::LOCKED => "run `dph-agent-client unlock`".into(),
        _ => format!("mend the cause, then run `dph-agent-client refresh --profile {name}`"),
    }
}

fn render_lines(statuses: &Statuses, audit: Option<&AuditState>) -> String {
    let mut text = String::new();
    add_agent_lines(&mut text, &statuses.agent);
    if let Some(audit) = audit {
        add_audit_lines(&mut text, audit);
    }
    for profile in &statuses.profiles {
        add_profile_lines(&mut text, profile);
    }
    text
}

fn add_agent_lines(text: &mut String, agent: &AgentStatus) {
    let AgentStatus { version, pid, socket, locked, started_at, secret_memory, profile_count, config_error } =
        agent;
    let state = if *locked { "locked" } else { "unlocked" };
    add_line(text, format_args!("agent {version}: {state}, pid {pid}, started {}", rfc3339(*started_at)));
    add_line(text, format_args!("  socket    {socket}"));
    add_line(text, format_args!("  keys      in {secret_memory} memory"));
    add_line(text, format_args!("  profiles  {profile_count}"));
    if let Some(problem) = config_error {
        add_line(text, format_args!("  config    not in force: {problem}"));
    }
}

fn add_audit_lines(text: &mut String, audit: &AuditState) {
    let AuditState { mode, head, lines, lost, error, .. } = audit;
    let head = head.as_deref().map(|head| format!(", {lines} lines, head {head}")).unwrap_or_default();
    add_line(text, format_args!("  audit     {mode}{head}"));
    if *lost > 0 {
        add_line(text, format_args!("  audit     {lost} lines were lost"));
    }
    if let Some(problem) = error {
        add_line(text, format_args!("  audit     cannot be written: {problem}"));
    }
}

fn add_profile_lines(text: &mut String, profile: &ProfileStatus) {
    let ProfileStatus { entry, key_state, token_state, served, exchanges, .. } = profile;
    let ProfileEntry { name, platform, url, username, key_source } = entry;
    let user = username.as_deref().unwrap_or("-");
    add_line(text, format_args!("{name}: {platform} at {url}, user {user}"));
    let (since, end) = (when(", since ", profile.key_added_at), when(", ends ", profile.key_expires_at));
    add_line(text, format_args!("  key       {key_state}, from {key_source}{since}{end}"));
    if let Some(warning) = end_warning(profile, now()) {
        add_line(text, format_args!("  warning   {warning}"));
    }
    let (until, next) =
        (when(", usable until ", profile.usable_until), when(", next ", profile.next_refresh_at));
    add_line(text, format_args!("  token     {token_state}{until}{next}"));
    add_line(text, format_args!("  use       {served} served, {exchanges} exchanges"));
    if let Some(LastError { code, message, since, next_try_at }) = &profile.last_error {
        let (since, next) = (rfc3339(*since), when(", tried again ", *next_try_at));
        add_line(text, format_args!("  error     {message} ({code}, since {since}{next})"));
    }
}

/// Returns what is to be said of a key that ends soon at IBM Cloud, which alone tells when one does. A key in memory
/// only may end by its user's own `--ttl`, which is no news; once that is over there is no key.
fn end_warning(profile: &ProfileStatus, now: i64) -> Option<&'static str> {
    let ProfileEntry { platform, key_source, .. } = &profile.entry;
    let ends = profile.key_expires_at.filter(|_| *platform == PlatformKind::IBM_CLOUD)?;
    match ends.saturating_sub(now) {
        ..=0 => Some("the key has ended: add another one"),
        1..=WARN_BEFORE if *key_source != KeySourceKind::SESSION => {
            Some("the key ends within 14 days: rotate it, or add another one")
        }
        _ => None,
    }
}

fn add_line(text: &mut String, line: fmt::Arguments<'_>) {
    *text += &visible(&line.to_string());
    text.push('\n');
}

fn when(word: &str, seconds: Option<i64>) -> String {
    seconds.map(|seconds| word.to_owned() + &rfc3339(seconds)).unwrap_or_default()
}

fn render_json(statuses: &Statuses, audit: Option<&AuditState>) -> Wiped {
    let mut json = Json::with_capacity(4096);
    json.object("");
    add_agent(&mut json, &statuses.agent, audit);
    json.array("profiles");
    for profile in &statuses.profiles {
        add_profile(&mut json, profile);
    }
    json.close("]").close("}");
    json.finish()
}

fn add_agent(json: &mut Json, agent: &AgentStatus, audit: Option<&AuditState>) {
    json.object("agent").text("version", &agent.version).number("pid", agent.pid.into());
    json.text("socket", &agent.socket)
        .boolean("locked", agent.locked)
        .time("started_at", Some(agent.started_at));
    json.text("secret_memory", &agent.secret_memory.to_string())
        .number("profile_count", agent.profile_count.into());
    json.optional_text("config_error", agent.config_error.as_deref());
    if let Some(audit) = audit {
        json.object("audit").text("mode", &audit.mode.to_string()).text("file", &audit.file);
        json.optional_text("head", audit.head.as_deref()).number("lines", audit.lines);
        json.number("lost", audit.lost).optional_text("error", audit.error.as_deref()).close("}");
    }
    json.close("}");
}

fn add_profile(json: &mut Json, profile: &ProfileStatus) {
    json.object("");
    add_entry(json, &profile.entry);
    json.text("key_state", &profile.key_state.to_string());
    json.time("key_added_at", profile.key_added_at).time("key_expires_at", profile.key_expires_at);
    json.text("token_state", &profile.token_state.to_string());
    json.time("usable_until", profile.usable_until).time("next_refresh_at", profile.next_refresh_at);
    json.number("served", profile.served).number("exchanges", profile.exchanges);
    match &profile.last_error {
        None => json.optional_text("last_error", None),
        Some(error) => {
            json.object("last_error").text("code", &error.code.to_string()).text("message", &error.message);
            json.time("since", Some(error.since)).time("next_try_at", error.next_try_at).close("}")
        }
    };
    json.close("}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(
        platform: PlatformKind,
        key_source: KeySourceKind,
        key_expires_at: Option<i64>,
    ) -> ProfileStatus {
        ProfileStatus {
            entry: ProfileEntry {
                name: "p".to_owned(),
                platform,
                url: "https://dph.example.com".to_owned(),
                username: None,
                key_source,
            },
            key_state: KeyState::HELD,
            key_added_at: Some(0),
            key_expires_at,
            token_state: TokenState::NONE,
            usable_until: None,
            next_refresh_at: None,
            served: 0,
            exchanges: 0,
            last_error: None,
        }
    }

    #[test]
    fn a_key_that_ibm_cloud_ends_is_warned_about_for_14_days_and_afterwards() {
        let (now, cloud) = (1_800_000_000, PlatformKind::IBM_CLOUD);
        let warning =
            |source, ends| end_warning(&profile(cloud, source, Some(ends)), now).unwrap_or_default();
        let (kept, session) = (KeySourceKind::KEYRING, KeySourceKind::SESSION);
        for ends in [i64::MIN, now - 1, now] {
            assert!(warning(kept, ends).contains("has ended"), "{ends}");
            assert!(warning(session, ends).contains("has ended"), "{ends}");
        }
        for ends in [now + 1, now + WARN_BEFORE] {
            assert!(warning(kept, ends).contains("within 14 days"), "{ends}");
            assert!(warning(session, ends).is_empty(), "{ends}");
        }
        assert!(warning(kept, now + WARN_BEFORE + 1).is_empty());
        assert!(warning(kept, i64::MAX).is_empty());
        assert!(end_warning(&profile(cloud, kept, None), now).is_none());
        assert!(end_warning(&profile(PlatformKind::SOFTWARE_HUB, kept, Some(now)), now).is_none());
    }
}
