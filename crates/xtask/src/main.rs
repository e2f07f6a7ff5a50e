//! `cargo xtask demo` and `cargo xtask bench`: what a Makefile would do.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to people")]

mod bed;
mod bench;
mod caller;
mod client_in_c;
mod demo;
mod guesses;
mod measure;

use std::io;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

const HELP: &str = "\
Usage: cargo xtask demo             show a script that gets tokens while the agent refreshes them
       cargo xtask bench [--quick]  measure size, speed and memory; --quick leaves out the idle minute
";

fn main() -> ExitCode {
    match run(Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut parser: Parser) -> io::Result<()> {
    let (mut task, mut quick) = (None, false);
    while let Some(argument) = parser.next().map_err(io::Error::other)? {
        match argument {
            Arg::Value(word) if word == "call" => {
                return demo::call(parser.raw_args().map_err(io::Error::other)?);
            }
            Arg::Value(word) if task.is_none() => task = word.into_string().ok(),
            Arg::Long("quick") => quick = true,
            Arg::Value(_) | Arg::Long(_) | Arg::Short(_) => {
                return Err(io::Error::other(format!("{}\n{HELP}", argument.unexpected())));
            }
        }
    }
    match task.as_deref() {
        Some("demo") => demo::demo(),
        Some("bench") => bench::bench(quick),
        _ => {
            print!("{HELP}");
            Ok(())
        }
    }
}
