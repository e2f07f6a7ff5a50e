//! The program for people who have no IBM account.

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::client;

struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    key_file: PathBuf,
    url: String,
}

impl Program {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let key_file = folder.join("api-key");
        let mut child = Command::new(env!("CARGO_BIN_EXE_dph-mock-platform"))
            .args(["--http", "--until-stdin-closes", "--key-file"])
            .arg(&key_file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let url = introduction(&mut stdout, "url:");
        // The line of the key file is the last of the introduction.
        introduction(&mut stdout, "key-file:");
        Self { child, stdout, key_file, url }
    }

    fn buy(&self, username: &str, api_key: &str) -> u16 {
        let body = serde_json::json!({ "username": username, "api_key": api_key }).to_string();
        let head = format!(
            "POST /icp4d-api/v1/authorize HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let stream = client::tcp_to(&self.url).unwrap();
        client::exchange(stream, &head, &body).unwrap().status
    }

    /// Returns what the program wrote until it ended by itself, and whether it ended well.
    fn end(mut self) -> (String, bool) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().success())
    }
}

fn introduction(lines: &mut impl BufRead, label: &str) -> String {
    let mut lines = lines.lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with(label)).unwrap();
    line[label.len()..].trim().to_owned()
}

#[test]
fn the_key_it_made_buys_a_token_and_shows_in_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &["--user", "eve"]);
    let api_key = fs::read_to_string(&program.key_file).unwrap().trim_end().to_owned();
    assert_eq!(api_key.len(), 40);
    assert_eq!(program.buy("eve", &api_key), 200);
    assert_eq!(program.buy("eve", "wrong"), 401);
    drop(program.child.stdin.take());
    let (log, ended_well) = program.end();
    assert_eq!(log, "POST /icp4d-api/v1/authorize 200\nPOST /icp4d-api/v1/authorize 401\n");
    assert!(ended_well);
}

#[test]
fn a_key_can_be_generated_as_the_web_client_does() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("api-key"), "my-own-key\n").unwrap();
    let mut program = Program::start(folder.path(), &[]);
    let generate = |user| {
        let head = format!("POST /mock/web-client/generate?user={user} HTTP/1.1\r\nContent-Length: 0\r\n");
        client::exchange(client::tcp_to(&program.url).unwrap(), &head, "").unwrap()
    };
    assert_eq!(generate("nobody").status, 404);
    let new = generate("demo").json()["apiKey"].as_str().unwrap().to_owned();
    assert_eq!((program.buy("demo", "my-own-key"), program.buy("demo", &new)), (401, 200));
    drop(program.child.stdin.take());
    let (log, _) = program.end();
    assert!(!log.contains(&new), "{log}");
}

#[test]
fn a_key_that_is_there_is_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("api-key"), "my-own-key\n").unwrap();
    let mut program = Program::start(folder.path(), &[]);
    assert_eq!(program.buy("demo", "my-own-key"), 200);
    drop(program.child.stdin.take());
    assert!(program.end().1);
}

#[cfg(unix)]
#[test]
fn the_key_file_is_for_its_owner_only_and_a_signal_ends_the_program_well() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path(), &[]);
    assert_eq!(fs::metadata(&program.key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let killed = Command::new("kill").arg(program.child.id().to_string()).status().unwrap();
    assert!(killed.success() && program.end().1);
}

#[test]
fn a_wrong_command_line_is_an_error_in_one_line() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_dph-mock-platform")).args(["--port", "many"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
}
