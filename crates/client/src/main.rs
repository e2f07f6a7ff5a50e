//! `dph-agent-client`: asks `dph-agent` for a bearer token, and manages what it holds.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod discovery;
mod exit;
mod json;
mod output;
mod prompt;
mod received;
mod secret;
mod session;
mod time;
mod wiped;

use std::process::ExitCode;

use cli::Invocation;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report(&error, cli::wants_json()),
    }
}

fn run() -> Result<(), exit::Error> {
    match cli::parse(lexopt::Parser::from_env(), commands::ALL)? {
        Invocation::Help(command) => output::print(cli::help(command, commands::ALL).as_bytes()),
        Invocation::Run(args) => (args.command.run)(&args),
    }
}
