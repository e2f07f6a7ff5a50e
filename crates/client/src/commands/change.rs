//! `revoke` and `rotate`: change a key at its platform, and asks before it does.

use dph_agent_protocol::{
    ChangeKey, ChangeMode, ChangeOutcome, Changed, ErrorCode, Reply, Request, Selector,
};

use crate::cli::{Args, Command, Opt};
use crate::commands::drop::confirm;
use crate::commands::profiles;
use crate::exit::{Code, Error};
use crate::json::Json;
use crate::output;
use crate::session::{self, Session, unexpected_reply};
use crate::time::rfc3339;

const OPTIONS: &[Opt] = &[Opt::Profile, Opt::ForUrl, Opt::All, Opt::Yes, Opt::DryRun, Opt::Wait, Opt::Cancel];

pub(crate) const REVOKE: Command = Command {
    name: "revoke",
    operand: None,
    summary: "Makes a key invalid at its platform, and drops it here.",
    options: OPTIONS,
    changes: true,
    run: revoke,
};

pub(crate) const ROTATE: Command = Command {
    name: "rotate",
    operand: None,
    summary: "Replaces a key at its platform, and where the agent keeps it; callers notice nothing.",
    options: OPTIONS,
    changes: true,
    run: rotate,
};

/// What the commands differ in.
struct Act {
    request: fn(ChangeKey) -> Request,
    question: &'static str,
}

fn revoke(args: &Args) -> Result<(), Error> {
    run(args, &Act { request: Request::Revoke, question: "This makes invalid, for everybody, the key of" })
}

fn rotate(args: &Args) -> Result<(), Error> {
    run(args, &Act { request: Request::Rotate, question: "This replaces, for everybody, the key of" })
}

fn run(args: &Args, act: &Act) -> Result<(), Error> {
    let (names, all) = names(args)?;
    if args.has(Opt::Cancel) {
        return each(args, act, &names, ChangeMode::CANCEL);
    }
    if args.has(Opt::DryRun) {
        return each(args, act, &names, ChangeMode::DRY_RUN);
    }
    if !args.has(Opt::Yes) && !names.is_empty() {
        explain(args, act, &names)?;
        confirm(act.question, &names, all)?;
    }
    each(args, act, &names, if args.has(Opt::Wait) { ChangeMode::WAIT } else { ChangeMode::TRY })
}

/// Returns the profiles that are meant, by name, for the default may change while the user thinks.
fn names(args: &Args) -> Result<(Vec<String>, bool), Error> {
    let listing = profiles::fetch(args)?;
    let Some(selector) = args.selector_or_all()? else {
        return Ok((listing.profiles.into_iter().map(|profile| profile.name).collect(), true));
    };
    let names = match (selector, listing.default) {
        (Selector { profile: Some(name), .. }, _) | (Selector { for_url: None, .. }, Some(name)) => {
            vec![name]
        }
        // The agent finds it, or says why there is none.
        (Selector { for_url, .. }, _) => return named_by_the_agent(args, for_url),
    };
    Ok((names, false))
}

/// Has the agent find the profile, without any effect on it.
fn named_by_the_agent(args: &Args, for_url: Option<String>) -> Result<(Vec<String>, bool), Error> {
    let selector = Selector { profile: None, for_url };
    let kept = dph_agent_protocol::Kept { selector, all: false, dry_run: true };
    let Reply::Done(names) = session::ask(args, &Request::Forget(kept))? else {
        return Err(unexpected_reply());
    };
    Ok((names, false))
}

/// Says what it means before it is asked for.
fn explain(args: &Args, act: &Act, names: &[String]) -> Result<(), Error> {
    for name in names {
        for note in ask(args, act, name, ChangeMode::DRY_RUN)?.notes {
            output::tell(args, &format!("note: {name}: {note}"));
        }
    }
    Ok(())
}

/// Goes on with the others where one fails, and fails then as the first did.
fn each(args: &Args, act: &Act, names: &[String], mode: ChangeMode) -> Result<(), Error> {
    let mut first = None;
    for name in names {
        match carried_out(args, act, name, mode).and_then(|changed| report(args, &changed)) {
            Err(error) if names.len() > 1 && first.is_some() => output::tell(args, &error.message),
            Err(error) => first = first.or(Some(error)),
            Ok(()) => {}
        }
    }
    first.map_or(Ok(()), Err)
}

/// Asks again for as long as the caller wants to stay, for the agent answers in ten minutes at most; what has
/// ended between two questions is not begun anew.
fn carried_out(args: &Args, act: &Act, name: &str, mut mode: ChangeMode) -> Result<Changed, Error> {
    loop {
        match ask(args, act, name, mode) {
            Err(error)
                if [ChangeMode::WAIT, ChangeMode::JOIN].contains(&mode)
                    && error.code == Code::Agent(ErrorCode::DEADLINE) =>
            {
                mode = ChangeMode::JOIN;
            }
            done => return done,
        }
    }
}

/// A session of its own for each request, for the agent does not wait while the user thinks.
fn ask(args: &Args, act: &Act, name: &str, mode: ChangeMode) -> Result<Changed, Error> {
    let mut session = Session::open(args)?;
    let selector = Selector { profile: Some(name.to_owned()), for_url: None };
    let change = ChangeKey { selector, mode, deadline_ms: session.deadline_ms() };
    let Reply::Changed(changed) = session.ask(&(act.request)(change))? else {
        return Err(unexpected_reply());
    };
    Ok(changed)
}

fn report(args: &Args, Changed { profile, outcome, tokens_until, notes }: &Changed) -> Result<(), Error> {
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(256);
        json.object("").text("profile", profile).text("outcome", &outcome.to_string());
        json.time("tokens_until", *tokens_until).close("}");
        output::print(&json.finish())?;
    } else {
        output::tell(args, &format!("{}: {profile}", words(*outcome)));
        if let Some(until) = tokens_until {
            output::tell(
                args,
                &format!("note: tokens handed out before may be valid until {}", rfc3339(*until)),
            );
        }
    }
    output::tell_notes(args, notes);
    Ok(())
}

fn words(outcome: ChangeOutcome) -> &'static str {
    match outcome {
        ChangeOutcome::REVOKED => "revoked",
        ChangeOutcome::ALREADY_INVALID => "already invalid, and dropped",
        ChangeOutcome::ROTATED => "rotated",
        ChangeOutcome::CANCELLED => "taken back",
        ChangeOutcome::PLANNED => "would be changed",
        _ => "changed",
    }
}
