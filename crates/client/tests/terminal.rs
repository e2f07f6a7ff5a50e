//! The real command with and without a terminal to ask on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the agent of a test knows what it is asked")]

#[allow(dead_code, reason = "shared with the other test")]
mod fake;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use dph_agent_protocol::{
    Added, Certificate, KeySourceKind, PlatformKind, Prepared, Reply, Request, Secret, Trust,
};
use fake::{FakeAgent, Outcome, run};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// A terminal whose keyboard and screen are ours.
struct Terminal {
    screen: File,
    line: File,
}

impl Terminal {
    fn new() -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
        let line = rustix::fs::open(
            name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        Self { screen: screen.into(), line: line.into() }
    }

    /// Starts `client` with this as the terminal that controls it.
    fn start(&self, client: &Command) -> Child {
        let keyboard: OwnedFd = self.line.try_clone().unwrap().into();
        detached(client, &["--ctty"])
            .stdin(keyboard)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn type_keys(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Returns what is shown up to and with `text`.
    fn shown_until(&mut self, text: &str) -> String {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).ends_with(text) {
            let mut byte = [0];
            self.screen.read_exact(&mut byte).unwrap();
            shown.extend(byte);
        }
        String::from_utf8(shown).unwrap()
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.line)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

/// Returns `client` in a session of its own, which has no terminal or the one on its standard input.
fn detached(client: &Command, options: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command
        .args(options)
        .arg("--wait")
        .arg(client.get_program())
        .args(client.get_args())
        .stdin(Stdio::null());
    command
}

fn outcome(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn keeper(trust: Trust) -> FakeAgent {
    keeper_at("https://cpd.example.com", trust)
}

fn keeper_at(auth_url: &'static str, trust: Trust) -> FakeAgent {
    FakeAgent::answering(move |request| match request {
        Request::Prepare(_) => Reply::Prepared(Prepared {
            profile: "prod".into(),
            exists: false,
            platform: PlatformKind::SOFTWARE_HUB,
            url: "https://cpd.example.com".into(),
            auth_url: auth_url.into(),
            username: Some("ali\u{1b}[2Jce".into()),
            key_source: KeySourceKind::SESSION,
            wants_key: true,
            certificate: Some(Certificate {
                subject: "CN=cpd".into(),
                issuer: "CN=cpd".into(),
                names: vec!["cpd.example.com".into()],
                sha256: "sha256:abcd".into(),
                not_after: 0,
                trust,
            }),
            notes: Vec::new(),
        }),
        Request::Add(_) => Reply::Added(Added {
            profile: "prod".into(),
            verified: true,
            token_life_ms: None,
            notes: Vec::new(),
        }),
        _ => Reply::Done(vec!["prod".into()]),
    })
}

#[test]
fn prompt_without_a_terminal_names_the_option_to_use() {
    let agent = keeper(Trust::NOBODY);
    for (line, status, option) in [
        ("add", 2, "`--key-stdin`"),
        ("add --trust-server", 2, "`--tls-pin sha256:abcd`"),
        ("forget", 8, "`--yes`"),
        ("remove --all", 8, "`--yes`"),
    ] {
        let Outcome { status: seen, stdout, stderr } = run(&mut detached(&agent.client(line), &[]));
        assert_eq!((seen, stdout.as_str()), (status, ""), "{line}");
        assert!(stderr.lines().last().unwrap().contains(option), "{stderr}");
    }
    assert!(agent.requests().iter().all(|request| match request {
        Request::Forget(kept) | Request::Remove(kept) => kept.dry_run,
        request => matches!(request, Request::Prepare(_)),
    }));
}

#[test]
fn typed_key_is_not_shown_and_the_terminal_is_left_as_it_was() {
    let (agent, mut terminal) = (keeper(Trust::ROOTS), Terminal::new());
    let child = terminal.start(&agent.client("add"));
    let question = "API key of ali[2Jce at https://cpd.example.com (software-hub, profile prod): ";
    assert_eq!(terminal.shown_until(": "), question);
    assert!(!terminal.echoes());
    terminal.type_keys("the-wrong\u{15}the-api-keyx\u{7f}\r");
    assert_eq!(terminal.shown_until("\n"), "\r\n");
    assert_eq!(outcome(child), (0, "added: prod (verified)\n".into()));
    assert!(terminal.echoes());
    let Some(Request::Add(add)) = agent.requests().pop() else { panic!("add") };
    assert_eq!(add.key, Some(Secret::new("the-api-key".into())));
}

#[test]
fn question_names_the_other_server_that_the_key_is_sent_to() {
    let (agent, mut terminal) = (keeper_at("https://auth.example.com", Trust::ROOTS), Terminal::new());
    let child = terminal.start(&agent.client("add --quiet"));
    let question = terminal.shown_until(": ");
    assert!(
        question.contains("at https://cpd.example.com, to be sent to https://auth.example.com ("),
        "{question}"
    );
    terminal.type_keys("the-api-key\r");
    assert_eq!(outcome(child).0, 0);
}

#[test]
fn interrupted_prompt_leaves_the_terminal_as_it_was() {
    let (agent, mut terminal) = (keeper(Trust::ROOTS), Terminal::new());
    let child = terminal.start(&agent.client("add"));
    terminal.shown_until(": ");
    terminal.type_keys("the-api\u{3}");
    assert_eq!(outcome(child).0, 130);
    assert!(terminal.echoes());
    assert!(matches!(agent.requests()[..], [Request::Prepare(_)]));
}

#[test]
fn server_is_pinned_only_when_the_user_says_so() {
    for (answer, status, pin) in [("y\r", 0, Some("sha256:abcd")), ("\r", 8, None), ("no\r", 8, None)] {
        let (agent, mut terminal) = (keeper(Trust::NOBODY), Terminal::new());
        let child = terminal.start(&agent.client("add --trust-server"));
        let shown = terminal.shown_until("[y/N] ");
        assert!(shown.contains("sha256:abcd") && shown.contains("1970-01-01T00:00:00Z"), "{shown}");
        terminal.type_keys(answer);
        if pin.is_some() {
            terminal.shown_until("prod): ");
            terminal.type_keys("the-api-key\r");
        }
        assert_eq!(outcome(child).0, status, "{answer:?}");
        let pinned = agent.requests().into_iter().find_map(|request| match request {
            Request::Add(add) => add.settings.tls_pin,
            _ => None,
        });
        assert_eq!(pinned.as_deref(), pin);
    }
}

#[test]
fn key_is_dropped_only_when_the_name_is_typed() {
    for (typed, status, requests) in [("prod\r", 0, 2), ("pro\r", 8, 1), ("y\r", 8, 1)] {
        let (agent, mut terminal) = (keeper(Trust::ROOTS), Terminal::new());
        let child = terminal.start(&agent.client("forget"));
        assert!(terminal.shown_until("go on: ").contains("`prod`"));
        terminal.type_keys(typed);
        assert_eq!(outcome(child).0, status, "{typed:?}");
        assert_eq!(agent.requests().len(), requests, "{typed:?}");
    }
}
