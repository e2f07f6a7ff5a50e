//! Users listed in `allow-uid`: they get tokens with the ordinary client, and nothing else.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;

use dph_agent_mock_platform::MockPlatform;
use dph_agent_protocol::{Reply, Request, TokenRequest};
use dph_agent_tests::{AgentProcess, Home, PATIENCE, Ran, Raw, program, run, wait_for, wait_until};
use rustix::process::{Signal, getuid};

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";
/// The user whom Linux calls nobody.
const GUEST: u32 = 65534;

/// An agent of this user with the profile `prod`, on a socket in a folder that others can look into.
struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    /// Returns nothing for a user who cannot play another.
    #[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
    fn new() -> Option<Self> {
        if !getuid().is_root() {
            eprintln!("skipped: only root can play another user");
            return None;
        }
        let scene = Self { home: Home::new(), platform: MockPlatform::start() };
        scene.platform.add_user("alice", KEY);
        scene.home.write("key", KEY);
        let (home, open) = (&scene.home, |mode| fs::Permissions::from_mode(mode));
        fs::set_permissions(home.path("."), open(0o755)).unwrap();
        fs::create_dir(home.path("shared")).unwrap();
        fs::set_permissions(home.path("shared"), open(0o755)).unwrap();
        // The original may be in a folder that is closed to others.
        fs::copy(program("dph-agent-client"), home.path("client")).unwrap();
        fs::set_permissions(home.path("client"), open(0o755)).unwrap();
        Some(scene)
    }

    fn configure(&self, allow_uid: &[u32]) {
        self.configure_with(allow_uid, "");
    }

    /// Writes the configuration, with these lines more for the profile.
    fn configure_with(&self, allow_uid: &[u32], more: &str) {
        let (ca, url) = (self.platform.write_ca(&self.home.path(".")), self.platform.url());
        self.home.write_config(&format!(
            "allow-uid = {allow_uid:?}\n[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{url}\"\n\
             username = \"alice\"\nca-file = \"{}\"\nkey-source = \"file:{}\"\n{more}",
            ca.canonicalize().unwrap().display(),
            self.home.path("key").display()
        ));
    }

    fn start(&self) -> AgentProcess<'_> {
        self.start_with(|agent| agent)
    }

    fn start_with(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> AgentProcess<'_> {
        let mut agent = self.home.spawn_agent_with(|agent| change(agent.arg("--socket").arg(self.socket())));
        wait_until("the agent answers", || {
            assert!(agent.child.try_wait().unwrap().is_none(), "the agent ended: {}", self.home.log());
            run(&mut self.client(getuid().as_raw(), "ping"), "").ok
        });
        agent
    }

    fn socket(&self) -> String {
        self.home.path("shared/agent.sock").display().to_string()
    }

    fn client(&self, uid: u32, line: &str) -> Command {
        let mut command = self.home.command(self.home.path("client"));
        command.uid(uid).gid(uid).arg("--socket").arg(self.socket()).args(line.split_whitespace());
        command
    }

    /// Runs the client as a guest who means the agent of root.
    fn guest(&self, line: &str) -> Ran {
        run(self.client(GUEST, line).args(["--server-uid", "0"]), "")
    }

    fn own(&self, line: &str) -> Ran {
        run(&mut self.client(getuid().as_raw(), line), "")
    }

    /// Connects as the guest, and asks for a token that may take a while.
    fn asks(&self) -> Raw {
        let mut guest = Raw::connect_as(GUEST, self.home.path("shared/agent.sock").as_path());
        guest.send(&token());
        guest
    }

    fn token_comes(&self) {
        wait_until("a guest gets a token", || self.guest("token").ok);
    }
}

fn token() -> Request {
    Request::Token(TokenRequest { deadline_ms: 60_000, ..TokenRequest::default() })
}

fn is_token(reply: Option<&Reply>) -> bool {
    matches!(reply, Some(Reply::Token(_)))
}

#[test]
fn a_guest_gets_tokens_and_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[GUEST]);
    let _agent = scene.start();
    scene.token_comes();
    assert!(scene.guest("status").ok && scene.guest("list").ok);
    let change =
        ["stop", "add --key-source session", "forget --yes", "remove --yes", "default prod", "refresh"];
    let confirm = ["pending", "approve 4q7m2k", "deny 4q7m2k", "policy explain --pid 1"];
    for line in change.into_iter().chain(confirm) {
        let refused = scene.guest(line);
        assert!(refused.failed_with(8).err.contains("agent's own user"), "{line}: {refused:?}");
    }
    let token = scene.guest("token").unwrap();
    run(scene.client(GUEST, "token --reject").args(["--server-uid", "0"]), &token).unwrap();
}

#[test]
fn a_guest_says_whose_agent_is_meant() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[GUEST]);
    let _agent = scene.start();
    scene.token_comes();
    let foreign = run(&mut scene.client(GUEST, "token"), "");
    assert!(foreign.failed_with(3).err.contains("add `--server-uid 0`"), "{foreign:?}");
    let other = run(&mut scene.client(GUEST, "token --server-uid 1000"), "");
    assert!(other.failed_with(3).err.contains("runs as 0"), "{other:?}");
    run(scene.client(GUEST, "token").env("DPH_AGENT_SERVER_UID", "0"), "").unwrap();
    let overruled = scene.client(GUEST, "token --server-uid 1000").env("DPH_AGENT_SERVER_UID", "0").output();
    assert_eq!(overruled.unwrap().status.code(), Some(3), "an option goes before a variable");
}

#[test]
fn guests_are_let_in_again_when_the_socket_is_made_anew() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[GUEST]);
    let _agent = scene.start();
    scene.token_comes();
    fs::remove_file(scene.socket()).unwrap();
    wait_until("the socket is there again", || fs::exists(scene.socket()).unwrap());
    scene.token_comes();
}

#[test]
fn guests_come_and_go_with_the_configuration() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[]);
    let agent = scene.start();
    let closed = scene.guest("token");
    assert!(closed.failed_with(3).err.contains("must list this one in `allow-uid`"), "{closed:?}");
    scene.configure(&[GUEST]);
    agent.signal(Signal::HUP);
    scene.token_comes();
    scene.configure(&[GUEST + 1]);
    agent.signal(Signal::HUP);
    // One that is connected at this moment is hung up on.
    let refused = wait_for("the guest is refused and told why", || {
        Some(scene.guest("token")).filter(|ran| ran.err.contains("not user 65534"))
    });
    refused.failed_with(8);
    scene.configure(&[]);
    agent.signal(Signal::HUP);
    wait_until("the socket is closed", || scene.guest("token").status == 3);
    run(&mut scene.client(getuid().as_raw(), "token"), "").unwrap();
}

#[test]
fn a_guest_who_is_struck_off_gets_nothing_more_on_a_connection_that_is_open() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[GUEST]);
    let agent = scene.start();
    scene.token_comes();
    let mut connected = scene.asks();
    let Some(Reply::Token(held)) = connected.reply() else { panic!("no token") };
    scene.platform.pause();
    let mut waiting = Raw::connect_as(GUEST, scene.home.path("shared/agent.sock").as_path());
    let (rejected, deadline_ms) = (Some(held.token), 60_000);
    waiting.send(&Request::Token(TokenRequest { rejected, deadline_ms, ..TokenRequest::default() }));
    scene.configure(&[GUEST + 1]);
    agent.signal(Signal::HUP);
    wait_until("the reload is in force", || scene.guest("token").status == 8);
    assert!(!is_token(connected.ask(&token()).as_ref()));
    let begin = Instant::now();
    assert!(!is_token(waiting.reply().as_ref()));
    assert!(begin.elapsed() < PATIENCE / 2, "also one that waits is ended");
    scene.platform.resume();
    scene.own("token").unwrap();
}

#[test]
fn one_guest_cannot_take_every_seat() {
    let Some(scene) = Scene::new() else { return };
    scene.configure(&[GUEST]);
    scene.platform.pause();
    let _agent = scene.start();
    let mut guests: Vec<_> = (0..513).map(|_| scene.asks()).collect();
    scene.own("ping").unwrap();
    scene.platform.resume();
    scene.own("token").unwrap();
    let served = guests.iter_mut().filter_map(Raw::reply).filter(|reply| is_token(Some(reply))).count();
    assert!((1..=128).contains(&served), "{served}");
}

#[test]
fn one_guest_cannot_take_every_place_of_those_who_wait_to_be_confirmed() {
    let Some(scene) = Scene::new() else { return };
    scene.configure_with(&[GUEST], "confirm = true\n");
    let _agent = scene.start();
    let _guests: Vec<_> = (0..65).map(|_| scene.asks()).collect();
    let audit = || run(scene.home.command(program("dph-agent")).args(["audit", "--json"]), "").out;
    wait_until("the others are refused", || audit().matches("\"code\":\"busy\"").count() == 65 - 16);
    let waiting = || scene.own("pending --json").json().as_array().unwrap().clone();
    wait_until("so many wait as may", || waiting().len() == 16);
    let mut own = Raw::connect(scene.home.path("shared/agent.sock").as_path());
    own.send(&token());
    wait_until("the own request waits, too", || waiting().len() == 17);
    for request in waiting() {
        scene.own(&format!("approve {}", request["id"].as_str().unwrap())).unwrap();
    }
    assert!(is_token(own.reply().as_ref()));
}

#[test]
fn the_question_of_the_own_user_comes_before_those_of_guests() {
    let Some(scene) = Scene::new() else { return };
    let askpass = scene.home.write(
        "askpass",
        "#!/bin/sh\necho shown >>$HOME/shown\nwhile [ ! -e $HOME/go ]; do sleep 0.02; done\n\
         rm $HOME/go\nexit 1\n",
    );
    fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755)).unwrap();
    scene.configure_with(&[GUEST], &format!("confirm = \"{}\"\n", askpass.display()));
    let _agent = scene.start_with(|agent| agent.env("DISPLAY", ":7"));
    let shown = || fs::read_to_string(scene.home.path("shown")).unwrap_or_default().lines().count();
    let waiting = || scene.own("pending --json").json().as_array().unwrap().len();
    let (mut first, mut second) = (scene.asks(), scene.asks());
    wait_until("a question is on the screen", || shown() == 1 && waiting() == 2);
    let mut own = Raw::connect(scene.home.path("shared/agent.sock").as_path());
    own.send(&token());
    wait_until("the own request waits, too", || waiting() == 3);
    let answer = |count| {
        scene.home.write("go", "");
        wait_until("it was answered", || waiting() == count);
    };
    answer(2);
    wait_until("the next question is on the screen", || shown() == 2);
    answer(1);
    assert!(matches!(own.reply(), Some(Reply::Failure(_))), "the own question was the second");
    wait_until("the last question is on the screen", || shown() == 3);
    answer(0);
    assert!(first.reply().is_some() && second.reply().is_some());
}
