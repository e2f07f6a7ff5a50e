//! Who gets nothing: other users, other places, and every file but the key's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use dph_agent_mock_platform::MockPlatform;
use dph_agent_protocol::{ErrorCode, Hello, Reply, Request, frame::split_frame};
use dph_agent_tests::{Home, program, run, wait_until};
use rustix::process::Signal;

const KEY: &str = "k3y-that-must-not-be-seen-anywhere-0123";

fn platform() -> MockPlatform {
    let platform = MockPlatform::start();
    platform.add_user("alice", KEY);
    platform
}

fn profile(home: &Home, platform: &MockPlatform, source: &str) -> String {
    // A folder for each platform's own.
    let folder = home.path(platform.url().rsplit(':').next().unwrap());
    fs::create_dir_all(&folder).unwrap();
    let ca = platform.write_ca(&folder);
    format!(
        "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\nca-file = \"{}\"\nkey-source = '{source}'\n",
        platform.url(),
        ca.canonicalize().unwrap().display()
    )
}

/// Returns the files below `folder` in which `needle` stands.
fn files_with(folder: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), needle));
        } else if kind.is_file() && contains(&fs::read(entry.path()).unwrap(), needle) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

fn contains(text: &[u8], needle: &str) -> bool {
    text.windows(needle.len()).any(|part| part == needle.as_bytes())
}

#[test]
fn the_key_is_in_no_argument_environment_log_or_file_outside_its_source() {
    let (home, platform) = (Home::new(), platform());
    let source = home.write("keys/key", &format!("{KEY}\n"));
    home.write_config(&profile(&home, &platform, &format!("file:{}", source.display())));
    let agent = home.start_agent_with(|command| command.args(["--log-level", "trace"]));
    assert_eq!(files_with(&home.path("."), KEY).len(), 1, "the search finds the key where it is");
    let token = home.client(&["token"]).unwrap();
    home.client(&["status", "--json"]).unwrap();
    home.client_with(&["token", "--reject"], &token).unwrap();
    platform.revoke_key(KEY);
    home.client(&["token", "--new", "--min-ttl", "1h"]);
    let added =
        home.client_with(&["add", "--profile", "prod", "--key-source", "session", "--key-stdin"], KEY);
    assert!(!added.ok && !added.err.contains(KEY), "a refused key is not repeated: {added:?}");
    for place in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{place}", agent.pid()));
        assert!(!text.is_ok_and(|text| contains(&text, KEY)), "{place}");
    }
    drop(agent);
    assert_eq!(files_with(&home.path("."), KEY).len(), 1, "{:?}", files_with(&home.path("."), KEY));
    assert_eq!(files_with(&home.path("."), &token), Vec::<String>::new(), "nor is a token anywhere");
}

#[test]
fn a_client_that_hands_over_a_key_has_it_in_no_argument_or_environment() {
    let (home, platform) = (Home::new(), platform());
    let _agent = home.start_agent();
    platform.pause();
    let ca = platform.write_ca(&home.path("."));
    let url = platform.url();
    let mut client = home.command(program("dph-agent-client"));
    client.args(["add", "--platform", "software-hub", "--url", &url, "--username", "alice", "--key-stdin"]);
    client
        .args(["--key-source", "session", "--no-verify", "--ca-file"])
        .arg(ca)
        .stdin(std::process::Stdio::piped());
    let mut client = client.spawn().unwrap();
    let seen = |place: &str| fs::read(format!("/proc/{}/{place}", client.id())).unwrap_or_default();
    wait_until("it runs", || contains(&seen("cmdline"), "--key-stdin"));
    assert!(!contains(&seen("cmdline"), KEY) && !contains(&seen("environ"), KEY));
    client.stdin.take().unwrap().write_all(KEY.as_bytes()).unwrap();
    platform.resume();
    assert!(client.wait().unwrap().success());
}

#[test]
fn a_configuration_changed_behind_the_agents_back_never_gets_the_key_sent_there() {
    let (home, good, evil) = (Home::new(), platform(), platform());
    for source in ["session".to_owned(), format!("file:{}", home.write("key", KEY).display())] {
        home.write_config(&profile(&home, &good, &source));
        let agent = home.start_agent();
        if source == "session" {
            home.client_with(&["add", "--profile", "prod", "--key-stdin"], KEY).unwrap();
        }
        home.client(&["token"]).unwrap();
        home.write_config(&profile(&home, &evil, &source));
        agent.signal(Signal::HUP);
        wait_until("the change is in force", || home.client(&["list"]).out.contains(&evil.url()));
        let refused = home.client(&["token"]);
        assert!(refused.failed_with(11).err.contains("dph-agent-client add --profile prod"), "{refused:?}");
        assert_eq!(home.client(&["status", "--json"]).json()["profiles"][0]["key_state"], "origin-changed");
        home.client(&["refresh"]).failed_with(11);
        drop(agent);
        if source != "session" {
            let _restarted = home.start_agent();
            home.client(&["token"]).failed_with(11);
        }
        assert!(evil.requests().is_empty(), "{:?}", evil.requests());
        drop(fs::remove_file(home.config()));
    }
}

#[test]
fn adding_the_key_again_accepts_the_new_place() {
    let (home, old, new) = (Home::new(), platform(), platform());
    let source = format!("file:{}", home.write("key", KEY).display());
    home.write_config(&profile(&home, &old, &source));
    let _agent = home.start_agent();
    home.client(&["token"]).unwrap();
    let ca = new.write_ca(&home.path("run")).display().to_string();
    let add = ["add", "--profile", "prod", "--url", &new.url(), "--ca-file", &ca];
    home.client(&add).failed_with(2);
    home.client(&[&add[..], &["--replace"]].concat()).unwrap();
    home.client(&["token"]).unwrap();
    assert_eq!(new.exchanges(), 1, "the token that proved the key serves");
}

#[test]
fn another_user_is_refused_even_where_the_socket_is_open_to_all() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can become somebody else");
    }
    let (home, platform) = (Home::new(), platform());
    let source = home.write("key", KEY);
    home.write_config(&profile(&home, &platform, &format!("file:{}", source.display())));
    let _agent = home.start_agent();
    home.client(&["token"]).unwrap();
    for path in [home.path("."), home.path("run"), home.path("run/dph-agent")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = home.socket();
    let answer = std::thread::spawn(move || {
        // On Linux only this thread becomes the other user.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        ask_as_is(&socket)
    });
    let answer = answer.join().unwrap();
    assert_eq!(answer.map(|failure| failure.code), Some(ErrorCode::DENIED));
    let client = home.path("client");
    fs::copy(program("dph-agent-client"), &client).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = run(home.command(client).args(["token", "--socket"]).arg(home.socket()).uid(65_534), "");
    assert_eq!((theirs.status, theirs.out.as_str()), (3, ""), "{theirs:?}");
}

/// Asks for a token without a look at who answers, and returns the refusal.
fn ask_as_is(socket: &Path) -> Option<dph_agent_protocol::Failure> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let token = Request::Token(dph_agent_protocol::TokenRequest { deadline_ms: 5000, ..Default::default() });
    // It may be closed before it is written.
    drop(stream.write_all(&[&Hello::OURS.to_frame()[..], &token.to_frame().unwrap()[..]].concat()));
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).is_err();
    let (frame, _) = split_frame(&answer).unwrap()?;
    match Reply::from_body(frame.kind, frame.body) {
        Ok(Reply::Failure(failure)) => Some(failure),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn another_process_of_the_same_user_cannot_read_the_agents_memory() {
    if !rustix::process::geteuid().is_root() {
        return skipped("the agent and the reader of its memory must be of a user whom only root can become");
    }
    let home = Home::new();
    let everybody = fs::Permissions::from_mode(0o755);
    for name in ["dph-agent", "dph-agent-client"] {
        fs::copy(program(name), home.path(name)).unwrap();
        fs::set_permissions(home.path(name), everybody.clone()).unwrap();
    }
    for path in [home.path("."), home.path("run")] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
    }
    let mut agent = home.command(home.path("dph-agent")).uid(65_534).gid(65_534).spawn().unwrap();
    let ping = || run(home.command(home.path("dph-agent-client")).arg("ping").uid(65_534).gid(65_534), "").ok;
    wait_until("the agent answers", ping);
    let read = |place: &str| {
        run(
            home.command("head")
                .args(["-c", "1", &format!("/proc/{}/{place}", agent.id())])
                .uid(65_534)
                .gid(65_534),
            "",
        )
    };
    for place in ["environ", "maps", "mem"] {
        let read = read(place);
        assert!(!read.ok && read.err.contains("ermission denied"), "{place}: {read:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_silent_or_broken_caller_stops_nobody_else() {
    let home = Home::new();
    let _agent = home.start_agent();
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(home.socket()).unwrap()).collect();
    let mut half = UnixStream::connect(home.socket()).unwrap();
    half.write_all(&Hello::OURS.to_frame()[..7]).unwrap();
    let mut garbage = UnixStream::connect(home.socket()).unwrap();
    garbage.write_all(&[0xff; 64]).unwrap();
    assert!(home.client(&["ping"]).ok);
    let mut end = Vec::new();
    garbage.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let closed = garbage.read_to_end(&mut end);
    assert!(closed.is_ok() || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    drop(silent);
}

#[test]
fn a_key_file_that_others_can_read_is_not_used() {
    let (home, platform) = (Home::new(), platform());
    let source = home.write("key", KEY);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
    home.write_config(&profile(&home, &platform, &format!("file:{}", source.display())));
    let _agent = home.start_agent();
    let refused = home.client(&["token"]);
    assert!(refused.failed_with(12).err.contains("chmod 600"), "{refused:?}");
    assert!(platform.requests().is_empty());
    fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("the mended file is used", || home.client(&["token"]).ok);
}

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[test]
fn a_key_that_was_pasted_into_the_configuration_is_in_no_error_status_or_log() {
    let (home, platform) = (Home::new(), platform());
    home.write_config(&profile(&home, &platform, "session"));
    let agent = home.start_agent();
    let by_mistake = [
        (profile(&home, &platform, KEY), "one of session, keyring"),
        (
            format!("idle-lock = '{KEY}'\n{}", profile(&home, &platform, "session")),
            "`idle-lock` takes a time",
        ),
    ];
    for (config, fault) in by_mistake {
        home.write_config(&config);
        agent.signal(Signal::HUP);
        wait_until("it is told", || home.client(&["status"]).out.contains(fault));
        let status = home.client(&["status", "--json"]);
        let check = run(home.command(program("dph-agent")).arg("check-config"), "");
        assert!(check.err.contains(fault) && !check.err.contains(KEY), "{check:?}");
        assert!(!status.out.contains(KEY) && !home.log().contains(KEY), "{}", home.log());
    }
    home.write_config("");
    let add = ["add", "--profile", "other", "--platform", "ibm-cloud", "--url", "https://x.example"];
    let refused = home.client(&[&add[..], &["--key-source", KEY]].concat());
    assert!(!refused.ok && !refused.err.contains(KEY) && !home.log().contains(KEY), "{refused:?}");
}
