//! `lock` and `unlock`: seals what the agent holds, and opens it with the passphrase.

use std::io::{self, IsTerminal};

use dph_agent_protocol::{Lock, LockState, Reply, Request, Secret, Unlock};

use crate::cli::{Args, Command, Opt};
use crate::exit::Error;
use crate::json::Json;
use crate::output;
use crate::prompt;
use crate::secret;
use crate::session::{self, Session, unexpected_reply};

pub(crate) const LOCK: Command = Command {
    name: "lock",
    operand: None,
    summary: "Seals keys and tokens in the agent until `unlock`; drops them where no passphrase is set.",
    options: &[Opt::SetPassphrase, Opt::PassphraseStdin],
    changes: true,
    run: lock,
};

pub(crate) const UNLOCK: Command = Command {
    name: "unlock",
    operand: None,
    summary: "Opens what `lock` sealed.",
    options: &[Opt::PassphraseStdin],
    changes: true,
    run: unlock,
};

fn lock(args: &Args) -> Result<(), Error> {
    let set = args.has(Opt::SetPassphrase);
    if args.has(Opt::PassphraseStdin) && !set {
        return Err(Error::usage(
            "`--passphrase-stdin` goes with `--set-passphrase`",
            "locking takes no passphrase; `unlock` does",
        ));
    }
    let state = ask(args, &Request::LockState)?;
    let (passphrase, new_passphrase) = match (set, state.locked || state.has_passphrase) {
        (true, _) => to_set(args, state.has_passphrase)?,
        (false, false) if io::stdin().is_terminal() => (None, offered()?),
        (false, _) => (None, None),
    };
    hand_over(args, |deadline_ms| Request::Lock(Lock { passphrase, new_passphrase, deadline_ms }))
}

fn unlock(args: &Args) -> Result<(), Error> {
    let passphrase = passphrase_that_is_set(args)?;
    hand_over(args, |deadline_ms| Request::Unlock(Unlock { passphrase, deadline_ms }))
}

/// Asks for the passphrase, where one is set.
pub(super) fn passphrase_that_is_set(args: &Args) -> Result<Option<Secret>, Error> {
    let state = ask(args, &Request::LockState)?;
    match (state.has_passphrase, args.has(Opt::PassphraseStdin)) {
        (false, _) => Ok(None),
        (true, true) => Ok(secret::passphrases_from_stdin(1)?.pop()),
        (true, false) => prompt::passphrase("Passphrase: ", no_terminal()).map(Some),
    }
}

/// Returns the passphrase that is set, if one is, and the one to set.
fn to_set(args: &Args, has_passphrase: bool) -> Result<(Option<Secret>, Option<Secret>), Error> {
    if args.has(Opt::PassphraseStdin) {
        let mut lines = secret::passphrases_from_stdin(1 + usize::from(has_passphrase))?;
        let new = lines.pop();
        return Ok((lines.pop(), new));
    }
    let old = has_passphrase.then(|| prompt::passphrase("Passphrase that is set: ", no_terminal()));
    let (old, new) = (old.transpose()?, prompt::passphrase("New passphrase: ", no_terminal())?);
    Ok((old, Some(repeated(new)?)))
}

/// Offers to set a passphrase.
fn offered() -> Result<Option<Secret>, Error> {
    let new =
        prompt::passphrase("Passphrase to open it with (empty: none, keys are dropped): ", no_terminal())?;
    if new.expose().is_empty() { Ok(None) } else { repeated(new).map(Some) }
}

fn repeated(new: Secret) -> Result<Secret, Error> {
    if prompt::passphrase("The same again: ", no_terminal())? == new {
        return Ok(new);
    }
    Err(Error::usage("the two passphrases differ", "nothing was changed; try again"))
}

fn no_terminal() -> Error {
    Error::usage("there is no terminal to ask on", "give the passphrase by `--passphrase-stdin`")
}

/// A session of its own for each request, for the agent does not wait while the user types.
fn ask(args: &Args, request: &Request) -> Result<LockState, Error> {
    state(session::ask(args, request)?)
}

fn hand_over(args: &Args, request: impl FnOnce(u32) -> Request) -> Result<(), Error> {
    let mut session = Session::open(args)?;
    let request = request(session.deadline_ms());
    report(args, &state(session.ask(&request)?)?)
}

fn state(reply: Reply) -> Result<LockState, Error> {
    let Reply::LockState(state) = reply else { return Err(unexpected_reply()) };
    Ok(state)
}

fn report(args: &Args, state: &LockState) -> Result<(), Error> {
    for note in &state.notes {
        output::tell(args, note);
    }
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(64);
        json.object("").boolean("locked", state.locked).boolean("has_passphrase", state.has_passphrase);
        json.close("}");
        return output::print(&json.finish());
    }
    output::tell(args, if state.locked { "locked" } else { "unlocked" });
    Ok(())
}
