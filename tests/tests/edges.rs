//! What is broken around the agent, and what it does about it: logs, locks, sockets, settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dph_agent_tests::{Home, KEY, Ran, Scene, program, run, wait_for, wait_until};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

const PROFILE: &str = "[profiles.a]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n";

fn agent(home: &Home, arguments: &[&str]) -> Ran {
    run(home.command(program("dph-agent")).args(arguments), "")
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let home = Home::new();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut closed = home.start_agent_with(|agent| agent.stderr(writer));
    closed.signal(Signal::HUP);
    home.client(&["token"]).failed_with(5);
    closed.signal(Signal::TERM);
    assert_eq!(closed.wait(), 0);
    let full = File::options().write(true).open("/dev/full").unwrap();
    home.start_agent_with(|agent| agent.stderr(full)).stop();
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing_and_says_later_what_is_missing() {
    let home = Home::new();
    let (mut reader, writer) = pipe().unwrap();
    let mut agent = home.start_agent_with(|agent| agent.args(["--log-level", "trace"]).stderr(writer));
    flood(&home);
    let (sender, log) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut chunk) {
            let Some(read) = chunk.get(..length) else { return };
            sender.send(String::from_utf8_lossy(read).into_owned()).unwrap();
        }
    });
    let mut text = String::new();
    wait_until("the log says that lines are missing", || {
        text.extend(log.try_iter());
        text.contains("lines were dropped")
    });
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), 0);
    reading.join().unwrap();
    text.extend(log.try_iter());
    assert!(text.contains("stopped"), "the last lines are written, too");
}

/// Has the agent say more than a pipe and its queue hold.
fn flood(home: &Home) {
    for _ in 0..6000 {
        // Each is a line of the log at `debug`.
        UnixStream::connect(home.socket()).unwrap().write_all(&[0; 6]).unwrap();
    }
    assert!(home.client(&["ping"]).ok, "nothing is held up");
}

#[test]
fn an_agent_whose_log_is_stuck_ends_when_told() {
    let home = Home::new();
    let (_reader, writer) = pipe().unwrap();
    let mut agent = home.start_agent_with(|agent| agent.stderr(writer));
    flood(&home);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), 0);
}

#[test]
fn a_configuration_locked_by_another_program_is_an_error_and_signals_are_heard() {
    let home = Home::new();
    home.write_config(PROFILE);
    let mut agent = home.start_agent();
    let lock = home.write(".config/dph-agent/config.toml.lock", "");
    let lock = File::options().write(true).open(lock).unwrap();
    lock.lock().unwrap();
    let refused = home.client(&["default", "a"]);
    assert!(!refused.ok && refused.err.contains("another process holds the lock"), "{refused:?}");
    let mut waiting = home.command(program("dph-agent-client"));
    let mut waiting = waiting.args(["default", "a"]).stderr(Stdio::null()).spawn().unwrap();
    agent.signal(Signal::HUP);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), 0);
    waiting.wait().unwrap();
}

#[test]
fn a_pipe_in_the_configurations_place_is_an_error_and_holds_up_nothing() {
    let home = Home::new();
    home.write_config(PROFILE);
    let mut agent = home.start_agent();
    fs::remove_file(home.config()).unwrap();
    mkfifoat(CWD, home.config(), Mode::RUSR | Mode::WUSR).unwrap();
    agent.signal(Signal::HUP);
    wait_until("status says what is wrong", || {
        home.client(&["status"]).out.contains("it is not a regular file")
    });
    assert!(home.client(&["list"]).out.contains("dph.example.com"), "the profile is still there");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), 0);
}

#[test]
fn an_agent_at_another_place_is_named_at_once() {
    let home = Home::new();
    let _first = home.start_agent();
    let (began, run_dir) = (Instant::now(), home.path("run2"));
    fs::create_dir(&run_dir).unwrap();
    fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let second = run(home.command(program("dph-agent")).env("XDG_RUNTIME_DIR", &run_dir), "");
    assert_eq!(second.status, 1);
    assert!(second.err.contains(&home.socket().display().to_string()), "{}", second.err);
    assert!(began.elapsed() < Duration::from_secs(3), "it has nothing to wait for");
}

#[test]
fn an_agent_that_waits_for_another_to_end_hears_signals() {
    let home = Home::new();
    let first = home.start_agent();
    first.signal(Signal::STOP);
    fs::remove_file(home.socket()).unwrap();
    let mut second = home.spawn_agent_with(|agent| agent);
    wait_until("it waits", || is_waiting(second.pid()));
    let began = Instant::now();
    second.signal(Signal::TERM);
    assert_eq!(second.wait(), 1);
    assert!(began.elapsed() < Duration::from_secs(3), "it hears at once");
    first.signal(Signal::CONT);
}

/// Whether a process catches SIGTERM, and so got as far as to wait.
fn is_waiting(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << 14) != 0)
}

/// Starts an agent as systemd would, with `descriptor` 3 as its shell opens it.
fn activated(home: &Home, listen_fds: &str, redirect: &str) -> Command {
    let mut shell = home.command("sh");
    let script = format!("LISTEN_PID=$$ LISTEN_FDS={listen_fds} exec \"$0\" {redirect}");
    shell.args(["-c", &script]).arg(program("dph-agent"));
    shell
}

#[test]
fn what_systemd_passed_on_is_a_socket_or_an_error() {
    let home = Home::new();
    for (fds, redirect, what) in
        [("1", "3</dev/null", "is not a socket"), ("2", "", "there are several"), ("x", "", "not a number")]
    {
        let ran = run(&mut activated(&home, fds, redirect), "");
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.err.contains("socket from systemd") && ran.err.contains(what), "{ran:?}");
    }
}

#[test]
fn a_socket_activated_agent_is_the_only_one_too() {
    let home = Home::new();
    let first = home.start_agent();
    let listener = UnixListener::bind(home.path("activated.sock")).unwrap();
    // The shell's standard input is the socket; it becomes descriptor 3.
    let mut second = activated(&home, "1", "3<&0");
    second.stdin(OwnedFd::from(listener)).stderr(Stdio::piped());
    let second = Ran::from(second.spawn().unwrap().wait_with_output().unwrap());
    assert_eq!(second.status, 1);
    assert!(second.err.contains(&format!("process {}", first.pid())), "{}", second.err);
}

#[test]
fn start_hands_on_how_to_log_and_puts_a_long_log_aside() {
    let home = Home::new();
    let log = home.write(".local/state/dph-agent/agent.log", &"old\n".repeat(300_000));
    let ran = agent(&home, &["start", "--log-format", "json", "--log-level", "debug"]);
    assert!(ran.ok, "{ran:?}");
    assert!(fs::metadata(log.with_extension("log.old")).unwrap().len() > 1_000_000);
    let is_ready = |text: &String| text.contains("\"message\":\"ready\"");
    let text = wait_for("the log", || fs::read_to_string(&log).ok().filter(is_ready));
    assert!(text.lines().all(|line| line.starts_with('{')), "{text}");
    let pid = ran.err.split_whitespace().nth(1).unwrap();
    if rustix::process::geteuid().is_root() {
        // Others may not look at it.
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(folder, home.path(".local/state/dph-agent"), "the caller's folder is not held");
    }
    let again = agent(&home, &["start", "--log-level", "info"]);
    assert!(again.ok && again.err.contains("--replace"), "what it cannot tell the agent is said: {again:?}");
    assert!(home.client(&["stop"]).ok);
}

#[test]
fn a_named_configuration_has_to_be_there() {
    let home = Home::new();
    let typo = home.path("typo.toml").display().to_string();
    for arguments in
        [&["--config", &typo][..], &["check-config", "--config", &typo], &["start", "--config", &typo]]
    {
        let ran = agent(&home, arguments);
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.err.contains("typo.toml") && ran.err.contains("hint: "), "{ran:?}");
    }
    assert!(agent(&home, &["check-config"]).ok, "one that nobody named need not be there");
}

#[test]
fn hints_name_the_fault_that_there_is() {
    let home = Home::new();
    let long = home.path(&"x".repeat(120)).display().to_string();
    let ran = agent(&home, &["--socket", &long]);
    assert!(ran.failed_with(1).err.contains("hint: give a shorter --socket"), "{ran:?}");
    home.write(".local/state/dph-agent", "not a folder");
    let ran = agent(&home, &[]);
    assert!(ran.failed_with(1).err.contains("hint: mend the owner and mode"), "{ran:?}");
}

#[test]
fn a_relative_socket_is_shown_whole() {
    let home = Home::new();
    let mut agent = home.spawn_agent_with(|agent| agent.args(["--socket", "own/a.sock"]));
    let socket = home.path("own/a.sock").display().to_string();
    wait_until("the agent answers", || home.client(&["ping", "--socket", &socket]).ok);
    let status = home.client(&["status", "--json", "--socket", &socket]).json();
    assert_eq!(status["agent"]["socket"], socket.as_str());
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), 0);
}

#[test]
fn a_runtime_folder_that_cannot_be_used_is_logged_with_the_reason() {
    let home = Home::new();
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o777)).unwrap();
    // Keeps it from listening at the next place, which this home does not have for itself.
    home.write(".local/state/dph-agent", "not a folder");
    let (ran, run_dir) = (agent(&home, &[]), home.path("run").display().to_string());
    let why = |line: &str| line.contains("WARN") && line.contains(&run_dir) && line.contains("mode 0777");
    assert!(ran.err.lines().any(why), "{ran:?}");
}

#[test]
fn a_proxy_variable_that_makes_no_sense_is_not_passed_by() {
    let home = Home::new();
    let key = home.write("key", "the-key");
    home.write_config(&format!("{PROFILE}key-source = \"file:{}\"\n", key.display()));
    let _agent = home.start_agent_with(|agent| agent.env("https_proxy", "socks5://u:s3cret@proxy:1080"));
    let ran = home.client(&["token"]);
    assert!(ran.failed_with(11).err.contains("https_proxy"), "{ran:?}");
    assert!(!ran.err.contains("s3cret") && !home.log().contains("s3cret"));
}

#[test]
fn a_program_that_keeps_keys_is_not_run_by_add_and_goes_with_its_source() {
    let scene = Scene::new();
    let (key, ran) = (scene.home.write("key", KEY), scene.home.path("ran"));
    let source = |path: &str| format!("command:[\"cat\",\"{path}\"]");
    let source_text = source(&key.display().to_string());
    scene.home.write_config(&format!(
        "[profiles.default]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\nca-file = \"{}\"\n\
         key-source = '{source_text}'\nkey-store = [\"touch\",\"{}\"]\n",
        scene.platform.url(),
        scene.ca,
        ran.display()
    ));
    let _agent = scene.home.start_agent();
    scene.home.client(&["add", "--refresh", "always"]).unwrap();
    assert!(!ran.exists(), "the key is read, and kept already");
    let config = || fs::read_to_string(scene.home.config()).unwrap();
    assert!(config().contains("key-store"));
    let copy = scene.home.write("copy", KEY).display().to_string();
    scene.home.client(&["migrate", "--to", &source(&copy)]).unwrap();
    assert!(!ran.exists() && !config().contains("key-store"), "it was for the other command");
    scene.home.client(&["token"]).unwrap();
}
