//! `pending`, `approve`, `deny` and `policy`: who may have tokens, and who says so.

use std::ffi::OsStr;

use dph_agent_protocol::{Approve, Deny, Explain, Explained, Page, PendingRequest, Process, Reply, Request};

use super::lock;
use super::profiles::report_done;
use crate::cli::{Args, Command, Opt};
use crate::exit::Error;
use crate::json::Json;
use crate::output::{self, visible};
use crate::session::{self, Session, unexpected_reply};
use crate::time::{rfc3339, spell_duration};
use crate::wiped::Wiped;

pub(crate) const PENDING: Command = Command {
    name: "pending",
    operand: None,
    summary: "Prints the requests that wait to be confirmed.",
    options: &[],
    changes: false,
    run: pending,
};

pub(crate) const APPROVE: Command = Command {
    name: "approve",
    operand: Some("ID"),
    summary: "Lets the waiting request ID have its token.",
    options: &[Opt::PassphraseStdin],
    changes: true,
    run: approve,
};

pub(crate) const DENY: Command = Command {
    name: "deny",
    operand: Some("ID"),
    summary: "Refuses the waiting request ID.",
    options: &[],
    changes: true,
    run: deny,
};

pub(crate) const POLICY: Command = Command {
    name: "policy",
    operand: Some("explain"),
    summary: "`policy explain --pid PID` says what would be decided about a token request of that process, and why.",
    options: &[Opt::Pid, Opt::Profile, Opt::ForUrl],
    changes: false,
    run: explain,
};

fn pending(args: &Args) -> Result<(), Error> {
    let requests = fetch(args)?;
    if args.has(Opt::Json) {
        return output::print(&render_json(&requests));
    }
    output::print(render_table(&requests).as_bytes())
}

/// Returns all pages as one, the request that waits longest first.
fn fetch(args: &Args) -> Result<Vec<PendingRequest>, Error> {
    let mut session = Session::open(args)?;
    let (mut whole, mut after, mut more) = (Vec::new(), String::new(), true);
    while more {
        let reply = session.ask(&Request::Pending(Page { after: after.clone() }))?;
        let Reply::PendingList(page) = reply else { return Err(unexpected_reply()) };
        more = page.more && !page.requests.is_empty();
        for request in page.requests {
            after.clone_from(&request.id);
            insert(&mut whole, request);
        }
    }
    Ok(whole)
}

/// The library's sorting would be a fiftieth of this program.
fn insert(whole: &mut Vec<PendingRequest>, request: PendingRequest) {
    let place = whole.iter().position(|other| other.since > request.since);
    whole.insert(place.unwrap_or(whole.len()), request);
}

fn render_table(requests: &[PendingRequest]) -> String {
    let mut table = String::new();
    for PendingRequest { id, profile, process, since, expires_in_ms } in requests {
        let (since, left) = (rfc3339(*since), spell_duration(*expires_in_ms));
        let row = format!("{id}  {profile}  {}  since {since}, {left} left", words(process));
        table += &visible(&row);
        table += "\n";
    }
    table
}

fn render_json(requests: &[PendingRequest]) -> Wiped {
    let mut json = Json::with_capacity(1024);
    json.array("");
    for request in requests {
        json.object("").text("id", &request.id).text("profile", &request.profile);
        add_process(&mut json, &request.process);
        json.time("since", Some(request.since)).number("expires_in", request.expires_in_ms / 1000).close("}");
    }
    json.close("]");
    json.finish()
}

fn words(process: &Process) -> String {
    let mut words = process.exe.clone().unwrap_or_else(|| "an unknown program".to_owned());
    if let Some(pid) = process.pid {
        words += &format!(", pid {pid}");
    }
    for (before, text) in [(", in ", &process.unit), (", started by ", &process.parent)] {
        if let Some(text) = text {
            words += before;
            words += text;
        }
    }
    words
}

fn add_process(json: &mut Json, process: &Process) {
    json.optional_number("pid", process.pid.map(u64::from)).optional_text("exe", process.exe.as_deref());
    json.optional_text("unit", process.unit.as_deref()).optional_text("parent", process.parent.as_deref());
}

fn approve(args: &Args) -> Result<(), Error> {
    let id = id(args)?;
    let passphrase = lock::passphrase_that_is_set(args)?;
    let mut session = Session::open(args)?;
    let deadline_ms = session.deadline_ms();
    let reply = session.ask(&Request::Approve(Approve { id, passphrase, deadline_ms }))?;
    report(args, "approved", reply)
}

fn deny(args: &Args) -> Result<(), Error> {
    let reply = Session::open(args)?.ask(&Request::Deny(Deny { id: id(args)? }))?;
    report(args, "denied", reply)
}

fn id(args: &Args) -> Result<String, Error> {
    let id = args.operand.as_deref().and_then(OsStr::to_str);
    id.map(str::to_owned).ok_or_else(|| {
        Error::usage("no request is named", "give its identifier: see `dph-agent-client pending`")
    })
}

fn report(args: &Args, done: &str, reply: Reply) -> Result<(), Error> {
    let Reply::Done(names) = reply else { return Err(unexpected_reply()) };
    report_done(args, done, &names)
}

fn explain(args: &Args) -> Result<(), Error> {
    if args.operand.as_deref() != Some(OsStr::new("explain")) {
        return Err(Error::usage(
            "`policy` is given nothing to do",
            "`dph-agent-client policy explain --pid PID`",
        ));
    }
    let selector = args.selector()?;
    let pid = args
        .number(Opt::Pid)?
        .ok_or_else(|| Error::usage("no process is named", "`dph-agent-client policy explain --pid PID`"))?;
    let reply = session::ask(args, &Request::Explain(Explain { pid, selector }))?;
    let Reply::Explained(explained) = reply else { return Err(unexpected_reply()) };
    if args.has(Opt::Json) {
        return output::print(&explained_json(&explained));
    }
    output::print(explained_lines(&explained).as_bytes())
}

fn explained_lines(explained: &Explained) -> String {
    let Explained { profile, process, verdict, reason, notes } = explained;
    let first = format!("{verdict}: {} for profile {profile}", words(process));
    let lines = [&first, reason].into_iter().chain(notes);
    lines.map(|line| visible(line) + "\n").collect()
}

fn explained_json(explained: &Explained) -> Wiped {
    let Explained { profile, process, verdict, reason, notes } = explained;
    let mut json = Json::with_capacity(1024);
    json.object("").text("verdict", &verdict.to_string()).text("reason", reason).text("profile", profile);
    add_process(&mut json, process);
    json.array("notes");
    for note in notes {
        json.text("", note);
    }
    json.close("]").close("}");
    json.finish()
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::Verdict;

    use super::*;

    fn process() -> Process {
        let text = |text: &str| Some(text.to_owned());
        Process {
            pid: Some(7),
            exe: text("/bin/\u{1b}[2Jx"),
            unit: text("a.service"),
            parent: text("/bin/sh"),
        }
    }

    fn request(id: &str, process: Process) -> PendingRequest {
        PendingRequest { id: id.to_owned(), profile: "prod".into(), process, since: 0, expires_in_ms: 59_900 }
    }

    #[test]
    fn those_who_wait_are_told_with_who_asks_and_how_long() {
        let table = render_table(&[request("4q7m2k", process()), request("zz0000", Process::default())]);
        assert_eq!(
            table,
            "4q7m2k  prod  /bin/[2Jx, pid 7, in a.service, started by /bin/sh  since 1970-01-01T00:00:00Z, 59s left\n\
             zz0000  prod  an unknown program  since 1970-01-01T00:00:00Z, 59s left\n"
        );
    }

    #[test]
    fn json_has_what_is_not_known_as_null() {
        let text = String::from_utf8(render_json(&[request("zz0000", Process::default())]).to_vec()).unwrap();
        let expected = r#"[{"id":"zz0000","profile":"prod","pid":null,"exe":null,"unit":null,"parent":null,"since":"1970-01-01T00:00:00Z","expires_in":59}]"#;
        assert_eq!(text, format!("{expected}\n"));
    }

    #[test]
    fn an_explanation_begins_with_the_verdict() {
        let explained = Explained {
            profile: "prod".into(),
            process: Process { exe: None, ..process() },
            verdict: Verdict::DENIED,
            reason: "it is not\u{1b} listed".into(),
            notes: vec!["a note".into()],
        };
        assert_eq!(
            explained_lines(&explained),
            "denied: an unknown program, pid 7, in a.service, started by /bin/sh for profile prod\nit is not listed\na note\n"
        );
        let text = String::from_utf8(explained_json(&explained).to_vec()).unwrap();
        assert!(text.starts_with(r#"{"verdict":"denied","reason":"it is not\u001b listed","profile":"prod","pid":7,"exe":null,"#), "{text}");
        assert!(text.ends_with("\"notes\":[\"a note\"]}\n"), "{text}");
    }
}
