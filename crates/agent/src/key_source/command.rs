//! A key that a command prints: how a password manager or a fleet's secret store plugs in.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::MAX_KEY_LEN;

/// How long the command may take. It is asked for nothing: it has no terminal and no input.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a command did not print a key. What it wrote is never repeated: it may be the key.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be started, or its output not be read.
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
    let (program, arguments) =
        line.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    timeout(TIMEOUT, output_of(&mut child)).await.unwrap_or(Err(CommandError::Timeout))
}

async fn output_of(child: &mut Child) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    // Room for all of it, so that nothing moves; one byte more than allowed shows that there is more.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_LEN + 1));
    if let Some(output) = child.stdout.take() {
        output.take(MAX_KEY_LEN as u64 + 1).read_to_end(&mut text).await?;
    }
    if text.len() > MAX_KEY_LEN {
        return Err(CommandError::TooLong);
    }
    let status = child.wait().await?;
    if status.success() { Ok(text) } else { Err(CommandError::Failed(status)) }
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
}
