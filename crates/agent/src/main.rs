//! `dph-agent`: arguments, logging, runtime, exit status.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to people")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dph_agent::config::{ConfigError, ConfigFile};
use dph_agent::error::Chain;
use dph_agent::log::{self, LogFormat};
use dph_agent::paths::Paths;
use dph_agent::start::{self, Shell};
use dph_agent::{Agent, Options, StartError, harden};
use tracing::level_filters::LevelFilter;

/// Holds API keys of IBM Data Product Hub and hands out fresh bearer tokens.
///
/// Without a command it runs in the foreground, as systemd, launchd and containers want it.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
struct How {
    /// Listen on this socket or named pipe and nowhere else
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Use this configuration file [default: `DPH_AGENT_CONFIG`, else config.toml in the user's folder]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or off
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    log_level: LevelFilter,
    /// Leave the terminal's session; `start` says so to the agent that it starts
    #[arg(long, hide = true)]
    background: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start in the background unless an agent already answers, and print the environment for `eval`
    Start {
        /// For which shell; nu reads it with `| from json | load-env`
        #[arg(long, value_enum, default_value = "sh")]
        shell: Shell,
        /// Stop the agent that answers, and start another
        #[arg(long)]
        replace: bool,
    },
    /// Say what is wrong in the configuration file, and where
    CheckConfig,
}

/// Stack of the threads that wait for disks and name servers. The default of 2 MiB is a huge page to
/// Linux, which then gives each thread all of it at the first touch.
const THREAD_STACK: usize = 512 * 1024;

fn main() -> ExitCode {
    if let Err(error) = harden::harden() {
        return fail(
            &format!("cannot protect this process: {error}"),
            "a key must not be held unprotected: look at the system's limits",
        );
    }
    let cli = Cli::parse();
    let Some(paths) = Paths::find(cli.how.config.clone()) else {
        return fail("this user has no home folder", "set HOME, or run as a user who has one");
    };
    match cli.command {
        None => run(cli.how, paths),
        Some(Command::Start { shell, replace }) => {
            let how = start::How { socket: cli.how.socket, config: cli.how.config, shell, replace };
            start::start(&how, &paths).map_or_else(
                |error| fail(&Chain(&error).to_string(), &error.hint()),
                |started| {
                    println!("{}", started.environment);
                    eprintln!("{}", started.message);
                    ExitCode::SUCCESS
                },
            )
        }
        Some(Command::CheckConfig) => check_config(paths),
    }
}

fn run(how: How, paths: Paths) -> ExitCode {
    log::start(how.log_format, how.log_level);
    if how.background {
        start::leave_session();
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().thread_stack_size(THREAD_STACK).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), "look at the system's limits"),
    };
    runtime.block_on(async {
        match Box::pin(Agent::start(Options { socket: how.socket }, paths)).await {
            Ok(agent) => {
                agent.run().await;
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("cannot start: {}", Chain(&error)), hint(&error)),
        }
    })
}

fn check_config(paths: Paths) -> ExitCode {
    let mut file = ConfigFile::new(paths.config);
    match file.load() {
        Ok(config) => {
            println!("{}: {} profiles, nothing wrong", file.path().display(), config.profiles.len());
            ExitCode::SUCCESS
        }
        Err(ConfigError::Faults { path, faults }) => {
            for fault in &faults {
                eprintln!("{}: {fault}", path.display());
            }
            fail(&format!("{} faults in `{}`", faults.len(), path.display()), "mend the lines named above")
        }
        Err(error) => {
            fail(&Chain(&error).to_string(), "look at the owner and mode of the file and its folder")
        }
    }
}

fn hint(error: &StartError) -> &'static str {
    match error {
        StartError::Config(_) => "`dph-agent check-config` names every fault",
        StartError::OnlyOne(_) => "use that one, or stop it: dph-agent-client stop",
        StartError::Bind(_) => "use the agent that listens there, or give another --socket",
        StartError::Endpoint(_) => "mend the folder's owner and mode, or give another --socket",
        StartError::System { .. } => "look at the system's limits",
    }
}

fn fail(message: &str, hint: &str) -> ExitCode {
    eprintln!("error: {message}\nhint: {hint}");
    ExitCode::FAILURE
}
