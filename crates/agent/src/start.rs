//! `dph-agent start`: an agent in the background, unless one already answers.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use dph_agent_ipc::{Endpoint, EndpointError, Stream, candidates};
use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::{Hello, Reply, Request};
use tracing::level_filters::LevelFilter;

use crate::log::{LogFormat, file};
use crate::paths::Paths;
use crate::private_file;
use crate::start_error::endpoint_hint;

/// How long a new agent may take to answer, or an old one to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A log file that is longer when an agent starts is put aside.
const MAX_LOG_LEN: u64 = 1024 * 1024;
/// Said where an agent that answers cannot be told how to run.
const IGNORED: &str =
    ", with the configuration and the log that it was started with: --replace starts another";

/// A shell that is told where the agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names of shells")]
pub enum Shell {
    Sh,
    Csh,
    Fish,
    Pwsh,
    Nu,
}

/// How to start.
#[derive(Clone, Debug)]
pub struct How {
    /// Listen there and nowhere else.
    pub socket: Option<PathBuf>,
    /// Use this configuration.
    pub config: Option<PathBuf>,
    /// How its log lines look.
    pub log_format: Option<LogFormat>,
    /// What it logs.
    pub log_level: Option<LevelFilter>,
    /// For whom the environment is printed.
    pub shell: Shell,
    /// Stop the agent that answers.
    pub replace: bool,
}

impl How {
    /// Whether something is asked of the agent that one which runs, or its unit, does not know of.
    fn is_special(&self) -> bool {
        self.config.is_some() || self.log_format.is_some() || self.log_level.is_some()
    }
}

/// An agent that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// What the shell evaluates.
    pub environment: String,
    /// For the user.
    pub message: String,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket's name cannot be one.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Something of the system failed.
    #[error("cannot {what}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the agent ended at once: {said}")]
    Ended {
        /// The last it said.
        said: String,
        /// Where it said it.
        log: PathBuf,
    },
    /// It does not answer, or does not go.
    #[error("the agent {what} within {} s", PATIENCE.as_secs())]
    Patience {
        /// What it did not do.
        what: &'static str,
        /// Where it says why.
        log: PathBuf,
    },
}

impl StartError {
    /// Returns the next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Ended { log, .. } | Self::Patience { log, .. } => {
                format!("it says more in {}", log.display())
            }
            Self::Endpoint(error) => endpoint_hint(error).to_owned(),
            Self::System { .. } => "run `dph-agent` in the foreground to see more".to_owned(),
        }
    }
}

/// Makes sure that an agent answers.
///
/// # Errors
///
/// When none does in the end.
pub fn start(how: &How, paths: &Paths) -> Result<Started, StartError> {
    let places = places(how)?;
    let found = places.iter().find_map(|place| Some((place, ping(place)?)));
    match found {
        Some((place, pid)) if !how.replace => {
            let ignored = if how.is_special() { IGNORED } else { "" };
            return Ok(started(how.shell, place, format!("agent {pid} answers already{ignored}")));
        }
        Some((place, _)) => stop(place, paths)?,
        None => {}
    }
    let log = paths.log();
    let mut child = launch(how, paths)?;
    let (place, pid) = wait_for_answer(&places, child.as_mut(), paths)?;
    let message = match child {
        Some(_) => format!("agent {pid} started; it logs to {}", log.display()),
        None => format!("agent {pid} started by its user unit; it logs to the journal"),
    };
    Ok(started(how.shell, place, message))
}

/// Leaves the terminal's session, so that its end does not end the agent.
pub fn leave_session() {
    #[cfg(unix)]
    // Refused only where it leads a group already, which is just as good.
    let _leads_already = rustix::process::setsid().is_err();
}

fn places(how: &How) -> Result<Vec<Endpoint>, StartError> {
    if let Some(path) = &how.socket {
        return Ok(vec![Endpoint::new(path)?]);
    }
    let surroundings = dph_agent_ipc::Surroundings::from_env();
    Ok(candidates(&surroundings).filter_map(|candidate| candidate.endpoint.ok()).collect())
}

/// Returns the process that answers there.
fn ping(place: &Endpoint) -> Option<u32> {
    let Reply::Pong(pong) = ask(place, &Request::Ping).ok()? else { return None };
    Some(pong.pid)
}

fn ask(place: &Endpoint, request: &Request) -> io::Result<Reply> {
    let mut stream = Stream::connect(place, Duration::from_secs(2)).map_err(io::Error::other)?;
    stream.set_timeout(Duration::from_secs(2))?;
    stream.write_all(&Hello::OURS.to_frame())?;
    stream.write_all(&request.to_frame().map_err(io::Error::other)?)?;
    let _welcome = read_frame(&mut stream)?;
    let (kind, body) = read_frame(&mut stream)?;
    Reply::from_body(kind, &body).map_err(io::Error::other)
}

fn read_frame(stream: &mut Stream) -> io::Result<(u16, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = Header::parse(header).map_err(io::Error::other)?;
    let mut body = vec![0; header.body_len];
    stream.read_exact(&mut body)?;
    Ok((header.kind, body))
}

fn stop(place: &Endpoint, paths: &Paths) -> Result<(), StartError> {
    ask(place, &Request::Stop).map_err(system("stop the agent that answers"))?;
    until(|| ping(place).is_none().then_some(()))
        .ok_or_else(|| StartError::Patience { what: "that was there did not go", log: paths.log() })
}

/// Starts the user unit where it is installed, else a process of its own, which is returned.
fn launch(how: &How, paths: &Paths) -> Result<Option<Child>, StartError> {
    if how.socket.is_none() && !how.is_special() && start_unit() {
        return Ok(None);
    }
    let log = open_log(paths).map_err(system("open the log file"))?;
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let mut command = Command::new(program);
    command.arg("--background").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // Not the caller's folder, which could not be removed or unmounted any more.
    command.current_dir(&paths.state).args(options(how, paths));
    detach(&mut command);
    command.spawn().map(Some).map_err(system("start the agent"))
}

/// Returns what the agent is to be told of how to run.
fn options(how: &How, paths: &Paths) -> Vec<OsString> {
    let format = how.log_format.and_then(|format| Some(format.to_possible_value()?.get_name().into()));
    let options = [
        ("--socket", how.socket.clone().map(OsString::from)),
        // Also one that the environment names, perhaps from the caller's folder.
        ("--config", paths.named.then(|| paths.config.clone().into())),
        ("--log-format", format),
        ("--log-level", how.log_level.map(|level| level.to_string().into())),
    ];
    let told = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?]));
    told.flatten().collect()
}

#[cfg(unix)]
fn detach(_command: &mut Command) {}

#[cfg(windows)]
fn detach(command: &mut Command) {
    use std::os::windows::process::CommandExt as _;
    /// <https://learn.microsoft.com/windows/win32/procthread/process-creation-flags>
    const DETACHED_PROCESS: u32 = 0x8;
    command.creation_flags(DETACHED_PROCESS);
}

/// Starts the socket unit of this user, and says whether there is one.
fn start_unit() -> bool {
    let systemctl = |action: &str| {
        Command::new("systemctl")
            .args([OsStr::new("--user"), OsStr::new(action), OsStr::new("dph-agent.socket")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    cfg!(target_os = "linux") && systemctl("cat") && systemctl("start")
}

fn open_log(paths: &Paths) -> io::Result<File> {
    let path = paths.log();
    private_file::create_folder_of(&path)?;
    if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_LEN) {
        fs::rename(&path, file::aside(&path))?;
    }
    file::open(&path)
}

fn wait_for_answer<'a>(
    places: &'a [Endpoint],
    mut child: Option<&mut Child>,
    paths: &Paths,
) -> Result<(&'a Endpoint, u32), StartError> {
    let answer = until(|| {
        if let Some(place) = places.iter().find_map(|place| Some((place, ping(place)?))) {
            return Some(Ok(place));
        }
        let ended = child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
        ended.then(|| Err(StartError::Ended { said: last_words(paths), log: paths.log() }))
    });
    answer.unwrap_or_else(|| Err(StartError::Patience { what: "did not answer", log: paths.log() }))
}

fn last_words(paths: &Paths) -> String {
    let log = fs::read_to_string(paths.log()).unwrap_or_default();
    let mut lines = log.lines().rev();
    lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or("it did not say why").to_owned()
}

/// Looks again and again until there is something to return, or patience is at its end.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        sleep(LOOK_EVERY);
    }
    None
}

fn started(shell: Shell, place: &Endpoint, message: String) -> Started {
    Started { environment: environment(shell, &place.to_string()), message }
}

fn environment(shell: Shell, socket: &str) -> String {
    let quoted = |escaped: &str| format!("'{}'", socket.replace('\'', escaped));
    match shell {
        Shell::Sh => format!("DPH_AGENT_SOCK={}; export DPH_AGENT_SOCK;", quoted(r"'\''")),
        Shell::Csh => format!("setenv DPH_AGENT_SOCK {};", quoted(r"'\''")),
        Shell::Fish => format!("set -gx DPH_AGENT_SOCK {};", quoted(r"\'")),
        Shell::Pwsh => format!("$env:DPH_AGENT_SOCK = {}", quoted("''")),
        Shell::Nu => serde_json::json!({ "DPH_AGENT_SOCK": socket }).to_string(),
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_quote_in_it_reaches_every_shell_whole() {
        let path = "/tmp/it's/agent.sock";
        assert_eq!(
            environment(Shell::Sh, path),
            r"DPH_AGENT_SOCK='/tmp/it'\''s/agent.sock'; export DPH_AGENT_SOCK;"
        );
        assert_eq!(environment(Shell::Fish, path), r"set -gx DPH_AGENT_SOCK '/tmp/it\'s/agent.sock';");
        assert_eq!(environment(Shell::Pwsh, path), "$env:DPH_AGENT_SOCK = '/tmp/it''s/agent.sock'");
        assert_eq!(environment(Shell::Nu, path), r#"{"DPH_AGENT_SOCK":"/tmp/it's/agent.sock"}"#);
    }
}
