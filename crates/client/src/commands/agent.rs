//! `ping`, `stop`, `version`: the agent and the client themselves.

use dph_agent_protocol::{Reply, Request, version};

use crate::cli::{Args, Command, Opt};
use crate::exit::Error;
use crate::json::Json;
use crate::output::{self, visible};
use crate::session::{self, unexpected_reply};

pub(crate) const PING: Command = Command {
    name: "ping",
    operand: None,
    summary: "Prints which agent answers.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::Ready],
    changes: false,
    run: ping,
};

pub(crate) const STOP: Command = Command {
    name: "stop",
    operand: None,
    summary: "Ends the agent once its open sessions have ended.",
    options: &[],
    changes: true,
    run: stop,
};

pub(crate) const VERSION: Command = Command {
    name: "version",
    operand: None,
    summary: "Prints the version of this client.",
    options: &[],
    changes: false,
    run: print_version,
};

fn ping(args: &Args) -> Result<(), Error> {
    let request = if args.has(Opt::Ready) { Request::Ready(args.selector()?) } else { Request::Ping };
    let Reply::Pong(pong) = session::ask(args, &request)? else { return Err(unexpected_reply()) };
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(128);
        json.object("").text("version", &pong.version).number("pid", pong.pid.into()).close("}");
        return output::print(&json.finish());
    }
    output::print(format!("dph-agent {}, pid {}\n", visible(&pong.version), pong.pid).as_bytes())
}

fn stop(args: &Args) -> Result<(), Error> {
    let Reply::Stopping = session::ask(args, &Request::Stop)? else { return Err(unexpected_reply()) };
    output::tell(args, "the agent ends once its open sessions have");
    Ok(())
}

fn print_version(args: &Args) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(128);
        json.object("").text("version", version).number("protocol", version::CURRENT.into()).close("}");
        return output::print(&json.finish());
    }
    output::print(format!("dph-agent-client {version}\n").as_bytes())
}
