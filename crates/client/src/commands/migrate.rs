//! `migrate`: moves a key to another source.

use dph_agent_protocol::{ErrorCode, Migrate, MigrateWith, Migrated, Reply, Request, Secret};

use crate::cli::{Args, Command, Opt};
use crate::commands::add::independent;
use crate::commands::lock;
use crate::exit::{Code, Error};
use crate::json::Json;
use crate::output;
use crate::session::{Session, unexpected_reply};

pub(crate) const MIGRATE: Command = Command {
    name: "migrate",
    operand: None,
    summary: "Moves a key to another source, and clears the old one when the new one is proven to hold it.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::To, Opt::DryRun, Opt::PassphraseStdin],
    changes: true,
    run,
};

fn run(args: &Args) -> Result<(), Error> {
    let to = args.text(Opt::To)?.ok_or_else(|| {
        Error::usage("`migrate` needs `--to SOURCE`", "for example `--to keyring` or `--to sealed`")
    })?;
    let (selector, to, dry_run) = (args.selector()?, independent(Opt::To, to)?, args.has(Opt::DryRun));
    let migrate = Migrate { selector, to, dry_run, deadline_ms: 0 };
    report(args, &moved(args, migrate)?)
}

/// Asks for the passphrase only where the agent wants it, which knows where the key is.
fn moved(args: &Args, migrate: Migrate) -> Result<Migrated, Error> {
    let wants_it = |error: &Error| error.code == Code::Agent(ErrorCode::WRONG_PASSPHRASE);
    let first = (!args.has(Opt::PassphraseStdin)).then(|| ask(args, migrate.clone(), None));
    let reply = match first {
        Some(reply) if !reply.as_ref().is_err_and(wants_it) => reply,
        _ => ask(args, migrate, lock::passphrase_that_is_set(args)?),
    };
    let Reply::Migrated(migrated) = reply? else { return Err(unexpected_reply()) };
    Ok(migrated)
}

/// A session of its own for each request, for the agent does not wait while the user types.
fn ask(args: &Args, mut migrate: Migrate, passphrase: Option<Secret>) -> Result<Reply, Error> {
    let mut session = Session::open(args)?;
    migrate.deadline_ms = session.deadline_ms();
    session.ask(&match passphrase {
        None => Request::Migrate(migrate),
        Some(passphrase) => Request::MigrateWith(MigrateWith { migrate, passphrase }),
    })
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
