//! An agent that says what a test wants, and the real client beside it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::{Hello, HelloReply, Reply, Request, version};
use tempfile::TempDir;

pub(crate) const WELCOME: HelloReply =
    HelloReply::Welcome { version: version::CURRENT, current: version::CURRENT };

/// A listening socket in a folder of its own.
pub(crate) struct FakeAgent {
    folder: TempDir,
    requests: Receiver<Request>,
}

impl FakeAgent {
    /// Starts an agent that leaves each connection to `handle`.
    pub(crate) fn handling(mut handle: impl FnMut(UnixStream) + Send + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(socket_in(folder.path())).unwrap();
        thread::spawn(move || listener.incoming().for_each(|stream| handle(stream.unwrap())));
        Self { folder, requests: mpsc::channel().1 }
    }

    /// Starts an agent that answers each request by `answer`.
    pub(crate) fn answering(mut answer: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let (seen, requests) = mpsc::channel();
        let agent = Self::handling(move |mut stream| {
            assert!(read_hello(&mut stream).is_some());
            stream.write_all(&WELCOME.to_frame()).unwrap();
            while let Some(request) = read_request(&mut stream) {
                let reply = answer(&request).to_frame().unwrap();
                seen.send(request).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        Self { requests, ..agent }
    }

    /// Returns the requests that were answered so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.folder())
    }

    /// Returns the client with this agent's socket and `line` as its arguments, split at spaces.
    pub(crate) fn client(&self, line: &str) -> Command {
        let mut command = client("--socket");
        command.arg(self.socket()).args(line.split_whitespace());
        command
    }
}

/// Where a client that is given `folder` as its `XDG_RUNTIME_DIR` looks.
fn socket_in(folder: &Path) -> PathBuf {
    use std::os::unix::fs::DirBuilderExt;

    let below = folder.join("dph-agent");
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&below).unwrap();
    below.join("agent.sock")
}

/// Returns the client with `line` as its arguments, split at spaces, in an empty environment.
pub(crate) fn client(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dph-agent-client"));
    command.args(line.split_whitespace()).env_clear().stdin(Stdio::null());
    command
}

/// What became of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    outcome(command.output().unwrap())
}

/// Runs `command` to its end with `input` on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Outcome {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    outcome(child.wait_with_output().unwrap())
}

fn outcome(output: Output) -> Outcome {
    Outcome {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Reads a client's hello; `None` at the end of the connection.
pub(crate) fn read_hello(stream: &mut UnixStream) -> Option<Hello> {
    let (kind, body) = read_frame(stream)?;
    Hello::parse(kind, &body)
}

/// Reads a request; `None` at the end of the connection.
pub(crate) fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let (kind, body) = read_frame(stream)?;
    Some(Request::from_body(kind, &body).unwrap())
}

fn read_frame(stream: &mut UnixStream) -> Option<(u16, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let Header { body_len, kind } = Header::parse(header).unwrap();
    let mut body = vec![0; body_len];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}
