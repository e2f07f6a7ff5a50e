//! A key that a command prints, and one that a command is given to keep: how a password manager or a fleet's
//! secret store plugs in.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dph_agent_platform::ApiKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::MAX_KEY_LEN;
use crate::own_session::OwnSession;

/// How long the command may take. It has no terminal to ask on.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a command did not print or keep a key. What it wrote is never repeated: it may be the key.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be started, its output not be read, or its input not be written.
    #[error("it cannot be run")]
    Io(#[from] io::Error),
    /// It failed.
    #[error("it ended with {0}")]
    Failed(ExitStatus),
    /// It took too long and was killed.
    #[error("it did not end within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It printed too much.
    #[error("it printed more than a key")]
    TooLong,
}

/// Runs a command and returns what it printed.
///
/// # Errors
///
/// When it fails, takes too long or prints too much.
pub(super) async fn run(line: &[String]) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    timeout(TIMEOUT, output(line)).await.unwrap_or(Err(CommandError::Timeout))
}

async fn output(line: &[String]) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let mut child = OwnSession::start(command(line, Stdio::piped())?)?;
    // Room for all of it, so that nothing moves; one byte more than allowed shows that there is more.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_LEN + 1));
    if let Some(output) = child.output() {
        output.take(MAX_KEY_LEN as u64 + 1).read_to_end(&mut text).await?;
    }
    if text.len() > MAX_KEY_LEN {
        return Err(CommandError::TooLong);
    }
    let status = child.wait().await?;
    if status.success() { Ok(text) } else { Err(CommandError::Failed(status)) }
}

/// Runs a command that keeps `key`, which it is given on its standard input, alone on a line.
///
/// # Errors
///
/// When it fails, takes too long or does not read it all. It may have kept the key even then.
pub(super) async fn give(line: &[String], key: &ApiKey) -> Result<(), CommandError> {
    timeout(TIMEOUT, given(line, key)).await.unwrap_or(Err(CommandError::Timeout))
}

async fn given(line: &[String], key: &ApiKey) -> Result<(), CommandError> {
    let mut child = OwnSession::start_to_tell(command(line, Stdio::null())?)?;
    let written = match child.input() {
        Some(mut input) => write(&mut input, key).await,
        None => Ok(()),
    };
    let status = child.wait().await?;
    if !status.success() {
        return Err(CommandError::Failed(status));
    }
    Ok(written?)
}

/// A pipe takes what it is given as it is: no copy stays behind.
async fn write(input: &mut ChildStdin, key: &ApiKey) -> io::Result<()> {
    input.write_all(key.expose().as_bytes()).await?;
    input.write_all(b"\n").await?;
    input.shutdown().await
}

fn command(line: &[String], output: Stdio) -> io::Result<Command> {
    let (program, arguments) =
        line.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    // GPG_TTY names the terminal that a helper such as gpg-agent would ask on.
    command.args(arguments).stdout(output).env_remove("GPG_TTY");
    Ok(command)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        run(&["sh", "-c", script].map(str::to_owned)).await
    }

    #[tokio::test]
    async fn what_the_command_prints_is_the_key() {
        assert_eq!(sh("echo the-key").await.unwrap().as_slice(), b"the-key\n");
    }

    #[tokio::test]
    async fn a_failing_or_chatty_command_is_an_error_that_repeats_nothing() {
        for script in ["echo the-key; exit 3", "echo the-key >&2; exit 3", "yes the-key | head -c 20000"] {
            let error = sh(script).await.unwrap_err().to_string();
            assert!(!error.contains("the-key"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_command_that_asks_gets_no_answer() {
        assert!(matches!(sh("read answer").await, Err(CommandError::Failed(_))));
    }

    async fn give_to(script: &str) -> Result<(), CommandError> {
        give(&["sh", "-c", script].map(str::to_owned), &ApiKey::new("the-key".to_owned())).await
    }

    #[tokio::test]
    async fn a_command_that_keeps_a_key_gets_it_alone_on_a_line_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let elsewhere =
            "! env | grep -q 'the-ke[y]' && ! tr '\\0' ' ' </proc/$$/cmdline | grep -q 'the-ke[y]'";
        give_to(&format!("{elsewhere} && cat >'{}'", kept.display())).await.unwrap();
        assert_eq!(std::fs::read(kept).unwrap(), b"the-key\n");
    }

    #[tokio::test]
    async fn a_command_that_does_not_keep_the_key_says_so_by_its_status() {
        assert!(matches!(give_to("cat; exit 3").await, Err(CommandError::Failed(_))));
        assert!(matches!(give_to("exec <&-; exit 3").await, Err(CommandError::Failed(_))));
        let error = give_to("cat >&2; exit 3").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("the-key"), "{error:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_command_has_no_terminal_to_ask_on() {
        let script = "read -r _ _ _ _ _ session _ </proc/$$/stat; echo $(( session == $$ )); cat </dev/tty || echo none";
        assert_eq!(sh(script).await.unwrap().as_slice(), b"1\nnone\n");
    }

    #[tokio::test]
    async fn a_command_that_is_given_up_dies_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();
        // The grandchild holds the pipe open for as long as it lives.
        let script = format!("(exec 3>'{0}'; echo >&3; sleep 600) & wait", pipe.display());
        let mut given_up = Box::pin(sh(&script));
        let mut held = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&pipe).unwrap();
        let started = async { while held.read(&mut [0]).await.unwrap() == 0 {} };
        tokio::select! {
            ended = &mut given_up => panic!("it ended by itself: {ended:?}"),
            () = started => {}
        }
        drop(given_up);
        let mut rest = Vec::new();
        timeout(TIMEOUT, held.read_to_end(&mut rest)).await.expect("the grandchild lives on").unwrap();
    }
}
