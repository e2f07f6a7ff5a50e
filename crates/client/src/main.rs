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

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use cli::Invocation;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report(&error, cli::wants_json()),
    }
}

fn run() -> Result<(), exit::Error> {
    // What ends now gives its memory back all at once: piece by piece takes a tenth of a token request.
    let mut parser = ManuallyDrop::new(lexopt::Parser::from_env());
    match cli::parse(&mut parser, commands::ALL)? {
        Invocation::Help(command) => output::print(cli::help(command, commands::ALL).as_bytes()),
        Invocation::Run(args) => {
            let args = ManuallyDrop::new(args);
            (args.command.run)(&args)
        }
    }
}
