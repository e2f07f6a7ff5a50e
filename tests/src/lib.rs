//! The two real binaries in a home of their own, for tests against the mock platform.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test bed is a failed test"
)]
#![allow(missing_docs, reason = "names of test helpers say what they do")]

mod raw;
mod scene;
mod terminal;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use raw::Raw;
pub use scene::{KEY, Scene};
pub use terminal::Terminal;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `look` returns something.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, look)
}

/// Looks again and again until `look` returns something, where that takes longer than most things do.
pub fn wait_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Looks again and again until `look` says yes.
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}

/// Returns the folder with the binaries to test: the one that `DPH_PROGRAMS` names, such as `/usr/bin`, else
/// that of this build, which is brought up to date first, since `cargo test` of this package alone would not
/// build the binaries of the others.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("DPH_PROGRAMS") {
            return folder.into();
        }
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
        let all_there = ["dph-agent", "dph-agent-client", "dph-mock-platform"]
            .iter()
            .all(|name| folder.join(name).with_extension(std::env::consts::EXE_EXTENSION).exists());
        // Another runner than cargo has built everything before it runs anything.
        if let (Some(cargo), false) =
            (std::env::var_os("CARGO"), std::env::var_os("NEXTEST").is_some() && all_there)
        {
            let release = folder.ends_with("release");
            let mut build = Command::new(cargo);
            build.args(["test", "--workspace", "--no-run", "--quiet", "--locked"]);
            build
                .args(release.then_some("--release"))
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            assert!(
                build.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(),
                "cannot build"
            );
        }
        folder
    })
}

/// Returns the path of one of our programs.
pub fn program(name: &str) -> PathBuf {
    programs().join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

/// A user's home, empty at first, and the agent and clients that live in it.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Home {
    pub fn new() -> Self {
        // Short, for the path of a socket has little room.
        let folder = tempfile::Builder::new().prefix("dph").tempdir_in("/tmp").unwrap();
        let home = Self { folder };
        fs::create_dir(home.path("run")).unwrap();
        fs::set_permissions(home.path("run"), private()).unwrap();
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/dph-agent/agent.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.path(".config/dph-agent/config.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    pub fn write_config(&self, text: &str) {
        self.write(".config/dph-agent/config.toml", text);
    }

    /// Returns a command that sees this home and nothing of ours.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts an agent and waits until it answers.
    pub fn start_agent(&self) -> AgentProcess<'_> {
        self.start_agent_with(|agent| agent)
    }

    /// Starts an agent with changes to its command line or environment, and waits until it answers.
    pub fn start_agent_with(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> AgentProcess<'_> {
        let mut agent = self.spawn_agent_with(change);
        wait_until("the agent answers", || {
            assert!(agent.child.try_wait().unwrap().is_none(), "the agent ended: {}", self.log());
            self.client(&["ping"]).ok
        });
        agent
    }

    /// Starts an agent without waiting for it.
    pub fn spawn_agent_with(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> AgentProcess<'_> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log")).unwrap();
        let mut command = self.command(program("dph-agent"));
        command.args(["--log-level", "debug"]).stdout(Stdio::null()).stderr(log);
        change(&mut command);
        AgentProcess { child: command.spawn().unwrap(), home: self }
    }

    /// Runs the client to its end.
    pub fn client(&self, arguments: &[&str]) -> Ran {
        self.client_with(arguments, "")
    }

    /// Runs the client to its end with `input` on its standard input.
    pub fn client_with(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.command(program("dph-agent-client")).args(arguments), input)
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a command to its end with `input` on its standard input.
pub fn run(command: &mut Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = wait_for("the program can be run", || match command.spawn() {
        // Another thread that starts a program at this moment holds a copy of the file that was just written.
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        started => Some(started.unwrap()),
    });
    // One that does not read its input may be gone before it is written.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    Ran::from(child.wait_with_output().unwrap())
}

fn private() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

/// An agent; killed when dropped.
#[derive(Debug)]
pub struct AgentProcess<'a> {
    pub child: Child,
    home: &'a Home,
}

impl AgentProcess<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end and returns its exit status.
    pub fn wait(&mut self) -> i32 {
        let status = wait_for("the agent ends", || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// Stops it as a user would.
    pub fn stop(mut self) {
        assert!(self.home.client(&["stop"]).ok);
        assert_eq!(self.wait(), 0, "{}", self.home.log());
    }
}

impl Drop for AgentProcess<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln_log(&self.home.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log explains a failed test")]
fn eprintln_log(log: &str) {
    eprintln!("--- the agent's log ---\n{log}");
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Returns its output where it succeeded.
    pub fn unwrap(self) -> String {
        assert!(self.ok, "status {}: {}{}", self.status, self.out, self.err);
        self.out.trim_end().to_owned()
    }

    /// Returns its output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Makes sure that it failed with `status`, in two lines that say what and what next.
    pub fn failed_with(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.out, "", "nothing but the answer goes to standard output");
        let (error, hint) =
            self.err.trim_end().split_once('\n').unwrap_or_else(|| panic!("two lines: {self:?}"));
        assert!(error.starts_with("error: ") && hint.starts_with("hint: "), "{self:?}");
        self
    }
}
