//! `dph-mock-platform`: a toy IBM platform on loopback, to try the agent without an IBM account.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use dph_agent_mock_platform::{MockPlatform, Options, Recorded};
use lexopt::{Arg, ValueExt as _};
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::oneshot;

type AnyError = Box<dyn Error + Send + Sync>;

const HELP: &str = "\
Plays the IBM endpoints on loopback, to try dph-agent without an IBM account.

usage: dph-mock-platform [options]

  --port N                the port (default: any that is free)
  --token-life SECONDS    life of every token (default: what is usual on each platform)
  --user NAME             the Software Hub user (default: demo)
  --key-file FILE         the API key, made if there is no such file (default: a new one)
  --ca-out FILE           where the certificate to trust is written
  --http                  plain HTTP instead of TLS
  --self-signed           a certificate that no authority signed
  --until-stdin-closes    end when standard input does

`POST /mock/web-client/generate?user=NAME` generates an API key as the button of the web client does.
";

/// What the command line asks for.
struct Cli {
    options: Options,
    user: String,
    key_file: Option<PathBuf>,
    ca_out: Option<PathBuf>,
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where standard error is closed, too.
            let _closed = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), AnyError> {
    let Some(cli) = parse(lexopt::Parser::from_env())? else {
        return Ok(io::stdout().write_all(HELP.as_bytes())?);
    };
    let folder = TempDir::with_prefix("dph-mock-platform-")?;
    let key_file = cli.key_file.unwrap_or_else(|| folder.path().join("api-key"));
    let api_key = read_or_make_key(&key_file)?;
    let platform = MockPlatform::try_start(cli.options)?;
    // Whoever tries out revoking and rotating wants the key to change.
    platform.allow_key_generation();
    platform.add_user(&cli.user, &api_key);
    platform.add_iam_key(&api_key);
    platform.add_mcsp_key(&api_key);
    let ca_file = cli.ca_out.unwrap_or_else(|| folder.path().join("ca.pem"));
    fs::write(&ca_file, platform.ca_pem())?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Caught from here on, so that whoever has read the introduction can end the program.
        let terminated = termination()?;
        introduce(&platform, &cli.user, &key_file, &ca_file)?;
        tokio::select! {
            () = terminated => Ok(()),
            drained = stdin_closed(), if cli.until_stdin_closes => drained,
        }
    })
}

/// Reads the command line; `None` asks for help.
fn parse(mut arguments: lexopt::Parser) -> Result<Option<Cli>, lexopt::Error> {
    let options = Options { on_answer: Some(log), ..Options::default() };
    let mut cli =
        Cli { options, user: "demo".into(), key_file: None, ca_out: None, until_stdin_closes: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("port") => cli.options.port = Some(arguments.value()?.parse()?),
            Arg::Long("token-life") => {
                cli.options.token_life = Some(Duration::from_secs(arguments.value()?.parse()?));
            }
            Arg::Long("user") => cli.user = arguments.value()?.string()?,
            Arg::Long("key-file") => cli.key_file = Some(arguments.value()?.into()),
            Arg::Long("ca-out") => cli.ca_out = Some(arguments.value()?.into()),
            Arg::Long("http") => cli.options.plain_http = true,
            Arg::Long("self-signed") => cli.options.self_signed = true,
            Arg::Long("until-stdin-closes") => cli.until_stdin_closes = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(_) | Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(Some(cli))
}

/// Returns the key in the file at `path`; where there is no such file, makes it with a new key.
fn read_or_make_key(path: &Path) -> Result<String, AnyError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Err(format!("there is no key in {}", path.display()).into()),
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(make_key(path)?),
        Err(error) => Err(format!("cannot read {}: {error}", path.display()).into()),
    }
}

fn make_key(path: &Path) -> io::Result<String> {
    let api_key = dph_agent_mock_platform::api_key();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(path)?, "{api_key}")?;
    Ok(api_key)
}

fn introduce(platform: &MockPlatform, user: &str, key_file: &Path, ca_file: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "url:      {}", platform.url())?;
    writeln!(out, "ca-file:  {}", ca_file.display())?;
    writeln!(out, "tls-pin:  {}", platform.fingerprint())?;
    writeln!(out, "user:     {user}")?;
    writeln!(out, "key-file: {}", key_file.display())?;
    out.flush()
}

fn log(request: &Recorded) {
    // The platform goes on where nobody reads its log.
    let _unread = writeln!(io::stdout(), "{request}");
}

/// Waits on a thread of its own, which a signal that comes first leaves behind.
async fn stdin_closed() -> Result<(), AnyError> {
    let (closed, wait) = oneshot::channel();
    thread::spawn(move || closed.send(io::copy(&mut io::stdin().lock(), &mut io::sink())));
    wait.await??;
    Ok(())
}

#[cfg(unix)]
fn termination() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        let _interrupted = interrupt.recv().await;
    })
}
