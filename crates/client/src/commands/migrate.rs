//! `migrate`: moves a key to another source.

use dph_agent_protocol::{Migrate, Migrated, Reply, Request};

use crate::cli::{Args, Command, Opt};
use crate::commands::add::independent;
use crate::exit::Error;
use crate::json::Json;
use crate::output;
use crate::session::{Session, unexpected_reply};

pub(crate) const MIGRATE: Command = Command {
    name: "migrate",
    operand: None,
    summary: "Moves a key to another source, and clears the old one when the new one is proven to hold it.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::To, Opt::DryRun],
    changes: true,
    run,
};

fn run(args: &Args) -> Result<(), Error> {
    let to = args.text(Opt::To)?.ok_or_else(|| {
        Error::usage("`migrate` needs `--to SOURCE`", "for example `--to keyring` or `--to sealed`")
    })?;
    let (selector, to, dry_run) = (args.selector()?, independent(Opt::To, to)?, args.has(Opt::DryRun));
    let mut session = Session::open(args)?;
    let deadline_ms = session.deadline_ms();
    let request = Request::Migrate(Migrate { selector, to, dry_run, deadline_ms });
    let Reply::Migrated(migrated) = session.ask(&request)? else { return Err(unexpected_reply()) };
    report(args, &migrated)
}

fn report(args: &Args, Migrated { profile, from, to, notes }: &Migrated) -> Result<(), Error> {
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(256);
        json.object("").text("profile", profile).text("from", from).text("to", to);
        json.boolean("dry_run", args.has(Opt::DryRun)).close("}");
        output::print(&json.finish())?;
    } else {
        let done = if args.has(Opt::DryRun) { "would be moved" } else { "moved" };
        output::tell(args, &format!("{done}: {profile}, from {from} to {to}"));
    }
    output::tell_notes(args, notes);
    Ok(())
}
