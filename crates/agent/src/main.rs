//! `dph-agent`: arguments, logging, runtime, exit status.

mod audit_command;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use dph_agent::config::{Config, ConfigError, ConfigFile};
use dph_agent::error::Chain;
use dph_agent::lock::{LockOn, RecordFile};
use dph_agent::log::{self, LogFormat};
use dph_agent::paths::Paths;
use dph_agent::start::{self, Shell};
use dph_agent::{Agent, Options, harden, logind};
use dph_agent_secret::ZeroingAllocator;
use tracing::level_filters::LevelFilter;
use tracing::warn;

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
    /// How log lines look [default: text]
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or off [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<LevelFilter>,
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
    /// Show what the audit log recorded, or verify it
    Audit(audit_command::Audit),
}

/// Nothing that was in the heap is left in memory that is given back.
#[global_allocator]
static HEAP: ZeroingAllocator = ZeroingAllocator::new();

/// Stack of the threads that wait for disks and name servers. The default of 2 MiB is a huge page to
/// Linux, which then gives each thread all of it at the first touch.
const THREAD_STACK: usize = 512 * 1024;
/// How long the end waits for those threads; what hangs at a disk must not keep a key alive.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    carry_out().unwrap_or_else(|failure| failure.tell(&mut io::stderr()))
}

fn carry_out() -> Result<ExitCode, Failure> {
    harden::harden().map_err(|error| {
        let hint = "a key must not be held unprotected: look at the system's limits";
        Failure::new(format!("cannot protect this process: {error}"), hint)
    })?;
    let Cli { command, mut how } = Cli::parse();
    how.socket = how.socket.map(std::path::absolute).transpose().map_err(|error| {
        Failure::new(format!("cannot use the socket's name: {error}"), "give its whole path")
    })?;
    let paths = Paths::find(how.config.clone()).ok_or_else(|| {
        Failure::new("this user has no home folder", "set HOME, or run as a user who has one")
    })?;
    match command {
        None => run(how, paths),
        Some(Command::Start { shell, replace }) => start(how, shell, replace, &paths),
        Some(Command::CheckConfig) => check_config(&paths),
        Some(Command::Audit(audit)) => audit_command::run(audit, paths.audit()),
    }
}

fn run(how: How, paths: Paths) -> Result<ExitCode, Failure> {
    let failed = |error| Failure::new(format!("cannot start: {error}"), "look at the system's limits");
    let filtered = harden::refuse_calls();
    let format = how.log_format.unwrap_or(LogFormat::Text);
    let (level, file) = (how.log_level.unwrap_or(LevelFilter::INFO), how.background.then(|| paths.log()));
    let mut log = log::start(format, level, file).map_err(failed)?;
    if let Err(error) = filtered {
        warn!(%error, "the kernel takes no filter of system calls: the agent runs without it");
    }
    if how.background {
        start::leave_session();
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().thread_stack_size(THREAD_STACK).build().map_err(failed)?;
    let ended = runtime.block_on(Box::pin(serve(Options { socket: how.socket }, paths)));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    let status = ended.map_or_else(|failure| failure.tell(&mut log), |()| ExitCode::SUCCESS);
    log.drain();
    Ok(status)
}

async fn serve(options: Options, paths: Paths) -> Result<(), Failure> {
    let agent = Agent::start(options, paths).await;
    let agent =
        agent.map_err(|error| Failure::new(format!("cannot start: {}", Chain(&error)), error.hint()))?;
    let ended = agent.run().await;
    ended.map_err(|error| Failure::new(Chain(&error).to_string(), "start it again: dph-agent start"))
}

fn start(how: How, shell: Shell, replace: bool, paths: &Paths) -> Result<ExitCode, Failure> {
    let How { socket, config, log_format, log_level, .. } = how;
    let how = start::How { socket, config, log_format, log_level, shell, replace };
    let started = start::start(&how, paths);
    let started = started.map_err(|error| Failure::new(Chain(&error).to_string(), error.hint()))?;
    say(&mut io::stderr(), &started.message);
    print(&started.environment)
}

fn check_config(paths: &Paths) -> Result<ExitCode, Failure> {
    let mut file = ConfigFile::of(paths);
    match file.load() {
        Ok(config) => {
            check_auto_lock(&config, paths)?;
            check_lock_on(config.auto_lock.on)?;
            print(&format!("{}: {} profiles, nothing wrong", file.path().display(), config.profiles.len()))
        }
        Err(ConfigError::Faults { path, faults }) => {
            let path = path.display();
            faults.iter().for_each(|fault| say(&mut io::stderr(), &format!("{path}: {fault}")));
            Err(Failure::new(format!("{} faults in `{path}`", faults.len()), "mend the lines named above"))
        }
        Err(error) => Err(Failure::new(Chain(&error).to_string(), error.hint())),
    }
}

/// Keys that are held in memory only would be lost each time the agent locks by itself.
fn check_auto_lock(config: &Config, paths: &Paths) -> Result<(), Failure> {
    let lost = config.keys_lost_by_auto_lock();
    if lost.is_empty() {
        return Ok(());
    }
    let record = RecordFile::new(paths.lock_record()).load();
    let record = record.map_err(|error| {
        Failure::new(Chain(&error).to_string(), "the agent stays locked until the record can be read")
    })?;
    if record.key.is_some() {
        return Ok(());
    }
    let message = format!("without a passphrase, an automatic lock drops the keys of {}", lost.join(", "));
    Err(Failure::new(message, "set one: dph-agent-client lock --set-passphrase"))
}

/// What is to lock the agent must be noticed. A bus that is not there now may be there for the agent.
fn check_lock_on(on: LockOn) -> Result<(), Failure> {
    if on.is_nothing() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string(), "look at the system's limits"))?;
    let Err(error) = runtime.block_on(Box::pin(logind::probe(on))) else { return Ok(()) };
    let problem = format!("{}: {error}", on.keys());
    if error.is_final() {
        return Err(Failure::new(
            problem,
            "leave it out, or use a build for Linux with the feature `logind`",
        ));
    }
    say(&mut io::stderr(), &format!("warning: {problem}"));
    Ok(())
}

/// What ends the program, and the next step.
struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }

    fn tell(&self, to: &mut dyn Write) -> ExitCode {
        say(to, &format!("error: {}\nhint: {}", self.message, self.hint));
        ExitCode::FAILURE
    }
}

/// Prints what was asked for.
fn print(answer: &str) -> Result<ExitCode, Failure> {
    let printed = writeln!(io::stdout(), "{answer}");
    printed.map_err(|error| {
        Failure::new(format!("cannot print the answer: {error}"), "look at where standard output goes")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says something to the user, who need not listen.
fn say(to: &mut dyn Write, text: &str) {
    let _nobody_listens = to.write_all(format!("{text}\n").as_bytes()).is_err();
}
