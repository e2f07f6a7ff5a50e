//! `forget` and `remove`: what drops keys, and asks before it does.

use dph_agent_protocol::{ErrorCode, Kept, Reply, Request, Selector};

use crate::cli::{Args, Command, Opt};
use crate::commands::profiles;
use crate::exit::Error;
use crate::prompt;
use crate::session::{self, unexpected_reply};

const OPTIONS: &[Opt] = &[Opt::Profile, Opt::ForUrl, Opt::All, Opt::Yes, Opt::DryRun];

pub(crate) const FORGET: Command = Command {
    name: "forget",
    operand: None,
    summary: "Drops a key here and keeps its profile; the key stays valid at the platform.",
    options: OPTIONS,
    changes: true,
    run: forget,
};

pub(crate) const REMOVE: Command = Command {
    name: "remove",
    operand: None,
    summary: "Drops a key and its profile here; the key stays valid at the platform.",
    options: OPTIONS,
    changes: true,
    run: remove,
};

/// What `forget` and `remove` differ in.
struct Act {
    request: fn(Kept) -> Request,
    question: &'static str,
    done: &'static str,
}

fn forget(args: &Args) -> Result<(), Error> {
    run(args, &Act { request: Request::Forget, question: "This forgets the key of", done: "forgotten" })
}

fn remove(args: &Args) -> Result<(), Error> {
    run(
        args,
        &Act {
            request: Request::Remove,
            question: "This forgets the key and removes the profile of",
            done: "removed",
        },
    )
}

fn run(args: &Args, act: &Act) -> Result<(), Error> {
    let selector = args.selector_or_all()?;
    let all = selector.is_none();
    let selector = selector.unwrap_or_default();
    let names = ask(args, act, Kept { selector, all, dry_run: true })?;
    if args.has(Opt::DryRun) {
        return profiles::print_names(args, &names);
    }
    if names.is_empty() {
        return profiles::report_done(args, act.done, &names);
    }
    if !args.has(Opt::Yes) {
        confirm(act.question, &names, all)?;
    }
    // By name, for the default may change while the user thinks.
    let selector = Selector { profile: names.into_iter().next().filter(|_| !all), for_url: None };
    let dropped = ask(args, act, Kept { selector, all, dry_run: false })?;
    profiles::report_done(args, act.done, &dropped)
}

/// A session of its own for each request, for the agent does not wait while the user thinks.
fn ask(args: &Args, act: &Act, what: Kept) -> Result<Vec<String>, Error> {
    let Reply::Done(names) = session::ask(args, &(act.request)(what))? else {
        return Err(unexpected_reply());
    };
    Ok(names)
}

/// Has the user type what is meant.
pub(crate) fn confirm(question: &str, names: &[String], all: bool) -> Result<(), Error> {
    let expected = if all { "all" } else { names.first().map_or("", String::as_str) };
    let question = format!("{question} {}. Type `{expected}` to go on: ", names.join(", "));
    let no_terminal = Error::new(
        ErrorCode::DENIED,
        "there is no terminal to confirm on",
        "say `--yes` to go on without being asked, or `--dry-run` to see what would happen",
    );
    if prompt::line(&question, no_terminal)? == expected {
        return Ok(());
    }
    Err(Error::new(ErrorCode::DENIED, "not confirmed", "nothing was changed; type the name exactly"))
}
