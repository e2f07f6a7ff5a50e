//! Programs that the agent runs: each in a session of its own, and killed with all that it started when nobody
//! waits for it any more.

use std::io;
use std::process::{ExitStatus, Stdio};

#[cfg(unix)]
use process_wrap::tokio::ProcessSession;
use process_wrap::tokio::{ChildWrapper, CommandWrap};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// A program that runs without a terminal.
#[derive(Debug)]
pub(crate) struct OwnSession {
    child: Box<dyn ChildWrapper>,
    ended: bool,
}

impl OwnSession {
    /// Starts `command` without input; what it says on standard error is dropped.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start(command: Command) -> io::Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// As [`start`](Self::start), for a program that is given something on its standard input.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start_to_tell(command: Command) -> io::Result<Self> {
        Self::start_with(command, Stdio::piped())
    }

    fn start_with(mut command: Command, input: Stdio) -> io::Result<Self> {
        command.stdin(input).stderr(Stdio::null()).kill_on_drop(true);
        let mut command = CommandWrap::from(command);
        #[cfg(unix)] // A session of its own has no terminal, and is a group that can be killed as one.
        command.wrap(ProcessSession);
        Ok(Self { child: command.spawn()?, ended: false })
    }

    /// Returns what it prints, where that was asked for, once.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout().take()
    }

    /// Returns where it reads, where something is to be told, once.
    pub(crate) fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin().take()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        // Once it has ended, its number may be another's.
        if !self.ended
            && let Err(error) = self.child.start_kill()
        {
            tracing::debug!(%error, "a program could not be killed");
        }
    }
}
