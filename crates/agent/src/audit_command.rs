//! `dph-agent audit`: shows what was recorded, and verifies that it is whole. It needs no running agent.

use std::io::{self, BufWriter, ErrorKind, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dph_agent::audit::TokenDigest;
use dph_agent::audit::chain::{Fault, Whole, parse_head};
use dph_agent::audit::read::{LogFile, Wanted, read_all, search, verify};
use dph_agent::audit::time::Since;
use dph_agent::clock::{Clock as _, SystemClock};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{Failure, say};

/// Longest token that is read.
const MAX_TOKEN: usize = 64 * 1024;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Find out whether the log is whole: exit 1 where a line was changed, removed, added or reordered
    Verify {
        /// A head that is known from elsewhere, such as the journal: shows that nothing was cut off at the end
        #[arg(long, value_name = "HASH", value_parser = parse_head)]
        head: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct Show {
    /// Only lines from then on: 2026-11-24T03:30:05Z, 2026-11-24 (UTC), or how long ago: 90s, 5m, 12h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only lines about this profile
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Only lines about the token on standard input: which hand-outs it came from; exit 1 where there is none
    #[arg(long)]
    token_stdin: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look at the log in this folder, such as a copy [default: the state folder]
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

/// Carries the command out; the log is in `folder` unless another one is named.
pub(crate) fn run(audit: Audit, folder: PathBuf) -> Result<ExitCode, Failure> {
    match audit.what {
        None => show(audit.show, folder),
        Some(What::Verify { head, how }) => {
            let folder = how.folder.unwrap_or(folder);
            tell(verify(&read(&folder)?, head), how.json)
        }
    }
}

fn read(folder: &Path) -> Result<Vec<LogFile>, Failure> {
    let files = match read_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| {
            let hint = "look at the folder's owner and mode, and at its disk";
            Failure::new(format!("cannot read the audit log in `{}`: {error}", folder.display()), hint)
        })?,
    };
    if files.is_empty() {
        let message = format!("there is no audit log in `{}`", folder.display());
        return Err(Failure::new(
            message,
            "has no agent run yet, or does the configuration say audit = \"off\"?",
        ));
    }
    Ok(files)
}

fn show(show: Show, folder: PathBuf) -> Result<ExitCode, Failure> {
    let token = if show.token_stdin { Some(token_from_stdin()?) } else { None };
    let since = show.since.map(|since| since.from(SystemClock.wall()));
    let wanted = Wanted { since, profile: show.profile, token };
    let files = read(&show.how.folder.unwrap_or(folder))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut shown, mut unread) = (0, 0);
    for file in &files {
        let (found, unknown) = search(file, &wanted);
        (shown, unread) = (shown + found.len(), unread + unknown);
        for line in found {
            let line = if show.how.json { line.text.to_owned() } else { line.to_line() };
            written(writeln!(out, "{line}"))?;
        }
    }
    written(out.flush())?;
    if unread > 0 {
        say(
            &mut io::stderr(),
            &format!("warning: {unread} lines cannot be read: see `dph-agent audit verify`"),
        );
    }
    if wanted.token.is_some() && shown == 0 {
        let hint = "its lines may be in a file that is gone, or it is of another user's or machine's agent";
        return Err(Failure::new("no line is about this token", hint));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the token and forgets it: only its hash is looked for.
fn token_from_stdin() -> Result<TokenDigest, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN));
    let hint = "give the token alone, for example: pbpaste | dph-agent audit --token-stdin";
    io::stdin()
        .take(MAX_TOKEN as u64)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("cannot read the token: {error}"), hint))?;
    match text.trim() {
        "" => Err(Failure::new("there is no token on standard input", hint)),
        token => Ok(TokenDigest::of(token)),
    }
}

fn tell(verdict: Result<Whole, Fault>, as_json: bool) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    match verdict {
        Ok(whole) => {
            let text = if as_json { whole_as_json(&whole) } else { whole_as_text(&whole) };
            written(writeln!(out, "{text}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) if as_json => {
            let Fault { file, line, what } = fault;
            let text = json!({ "whole": false, "file": file, "line": line, "problem": what.to_string() });
            written(writeln!(out, "{text}"))?;
            Ok(ExitCode::FAILURE)
        }
        Err(Fault { file, line, what }) => Err(Failure::new(
            format!("{file}, line {line}: {what}"),
            "keep the files as they are, and compare them with a copy or with heads from the agent's log",
        )),
    }
}

fn whole_as_text(whole: &Whole) -> String {
    let mut text =
        format!("whole: {} lines, the last is {}\nhead: {}", whole.lines, whole.head.seq, whole.head.hash);
    if let Some(since) = whole.since {
        text.push_str(&format!("\nthe head that was given is there, {since} lines before the end"));
    }
    for remark in &whole.remarks {
        text.push_str(&format!("\nnote: {remark}"));
    }
    text
}

fn whole_as_json(whole: &Whole) -> String {
    let remarks: Vec<_> = whole.remarks.iter().map(ToString::to_string).collect();
    let Whole { head, lines, since, .. } = whole;
    json!({
        "whole": true, "lines": lines, "last": head.seq, "head": head.hash, "since_given_head": since, "notes": remarks,
    })
    .to_string()
}

/// Somebody who has seen enough closes the pipe.
fn written(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            format!("cannot print the answer: {error}"),
            "look at where standard output goes",
        )),
        _ => Ok(()),
    }
}
