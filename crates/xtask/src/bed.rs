//! A home of its own for an agent and its clients, and the programs themselves.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Builds something with cargo.
///
/// # Errors
///
/// When it does not build.
pub(crate) fn build(arguments: &[&str]) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(
        Command::new(cargo).args(["build", "--quiet", "--locked"]).args(arguments).current_dir(workspace()),
    )
}

/// Returns the workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Runs a command that must succeed.
///
/// # Errors
///
/// When it cannot be run, or fails.
pub(crate) fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}

/// A private home, removed when dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    folder: TempDir,
    agent: PathBuf,
    client: PathBuf,
}

impl Bed {
    /// Makes an empty home for two programs.
    ///
    /// # Errors
    ///
    /// When the folder for temporary files cannot be used.
    pub(crate) fn new(agent: PathBuf, client: PathBuf) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dph").tempdir_in("/tmp")?;
        let run = folder.path().join("run");
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(run)?;
        Ok(Self { folder, agent, client })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("run/dph-agent/agent.sock")
    }

    pub(crate) fn agent(&self) -> &Path {
        &self.agent
    }

    /// Returns a command that sees this home and nothing of the user's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Writes the agent's configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn configure(&self, text: &str) -> io::Result<()> {
        let folder = self.path().join(".config/dph-agent");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.toml"), text)
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub(crate) fn start_agent(&self) -> io::Result<Running> {
        let log = fs::File::create(self.path().join("agent.log"))?;
        let child = self.command(&self.agent).stdout(Stdio::null()).stderr(log).spawn()?;
        let running = Running(child);
        let end = Instant::now() + PATIENCE;
        while !self.socket().exists() {
            if Instant::now() > end {
                return Err(io::Error::other("the agent does not answer"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    /// Runs the client with `input`, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub(crate) fn client(&self, arguments: &[&str], input: &str) -> io::Result<Output> {
        let mut command = self.command(&self.client);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(output);
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
