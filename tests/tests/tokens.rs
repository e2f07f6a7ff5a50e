//! The main job: a script gets tokens, whatever happens behind the agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::thread;
use std::time::{Duration, Instant};

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Options, RetryAfter, Times, call};
use dph_agent_tests::{AgentProcess, Home, wait_until};

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";

/// A platform that knows alice, and a home in which its CA lies.
struct Scene {
    home: Home,
    platform: MockPlatform,
    ca: String,
}

impl Scene {
    fn new() -> Self {
        Self::with(MockPlatform::start())
    }

    fn with(platform: MockPlatform) -> Self {
        let home = Home::new();
        platform.add_user("alice", KEY);
        let ca = platform.write_ca(&home.path(".")).canonicalize().unwrap().display().to_string();
        Self { home, platform, ca }
    }

    /// Starts an agent that holds alice's key, unproven: no token was bought yet.
    fn cold(&self) -> AgentProcess<'_> {
        let agent = self.home.start_agent();
        self.add(&["--no-verify"]);
        agent
    }

    /// Starts an agent that holds alice's key, and a token.
    fn warm(&self) -> AgentProcess<'_> {
        let agent = self.home.start_agent();
        self.add(&[]);
        agent
    }

    fn add(&self, more: &[&str]) {
        let url = self.platform.url();
        let add = ["add", "--platform", "software-hub", "--url", &url, "--username", "alice"];
        let add =
            [&add[..], &["--ca-file", &self.ca, "--key-source", "session", "--key-stdin"], more].concat();
        self.home.client_with(&add, KEY).unwrap();
    }

    /// Uses a token as a script would, and returns the status.
    fn use_token(&self, token: &str) -> u16 {
        let url = format!("{}/data_product_exchange/v1/data_products?limit=1", self.platform.url());
        call(&url, self.platform.ca_pem(), token).unwrap()
    }

    fn token(&self) -> String {
        self.home.client(&["token"]).unwrap()
    }
}

#[test]
fn a_script_gets_good_tokens_across_refreshes_without_a_failure() {
    let scene = Scene::new();
    scene.platform.set_token_life(Duration::from_secs(3));
    let _agent = scene.warm();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let token = scene.token();
        assert_eq!(scene.use_token(&token), 200, "the token is good where it is used");
        if !seen.contains(&token) {
            seen.push(token);
        }
    }
    let status = scene.home.client(&["status", "--json"]).json();
    assert!(status["profiles"][0]["exchanges"].as_u64().unwrap() >= 4, "{status}");
    assert!(status["profiles"][0]["served"].as_u64().unwrap() >= 4, "{status}");
}

#[test]
fn a_hundred_callers_of_a_cold_profile_cause_one_exchange() {
    let scene = Scene::new();
    let _agent = scene.cold();
    scene.platform.pause();
    let tokens: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..100).map(|_| scope.spawn(|| scene.token())).collect();
        assert!(scene.platform.wait_for_exchanges(1, Duration::from_secs(10)));
        scene.platform.resume();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0] && !token.is_empty()));
    assert_eq!(scene.platform.exchanges(), 1);
}

#[test]
fn a_good_token_is_served_while_the_platform_is_down() {
    let scene = Scene::new();
    scene.platform.set_token_life(Duration::from_secs(8));
    let _agent = scene.warm();
    let (first, bought) = (scene.token(), Instant::now());
    scene.platform.stop_listening();
    // A fifth of its life must be left by default; less where the caller says so.
    while bought.elapsed() < Duration::from_secs(6) {
        assert_eq!(scene.token(), first);
    }
    while bought.elapsed() < Duration::from_secs(7) {
        assert_eq!(scene.home.client(&["token", "--min-ttl", "0"]).unwrap(), first);
    }
    wait_until("the token is used up", || !scene.home.client(&["token"]).ok);
    let down = scene.home.client(&["token", "--json"]);
    assert_eq!(down.status, 7, "{down:?}");
    scene.platform.listen_again();
    wait_until("the first call after the outage works", || scene.home.client(&["token"]).ok);
    assert_eq!(scene.home.client(&["status", "--check"]).status, 0);
}

#[test]
fn a_refused_key_is_tried_at_most_twice() {
    let scene = Scene::new();
    let source = format!("file:{}", scene.home.write("key", "another-key-that-nobody-knows").display());
    scene.home.write_config(&format!(
        "[profiles.p]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\nca-file = \"{}\"\nkey-source = \"{source}\"\n",
        scene.platform.url(),
        scene.ca
    ));
    let _agent = scene.home.start_agent();
    for _call in 0..20 {
        scene.home.client(&["token"]).failed_with(6);
    }
    assert!(scene.platform.exchanges() <= 2, "{}", scene.platform.exchanges());
    assert_eq!(scene.home.client(&["status", "--json"]).json()["profiles"][0]["key_state"], "rejected");
    scene.home.write("key", KEY);
    wait_until("the new key in the file is noticed", || scene.home.client(&["token"]).ok);
}

#[test]
fn a_longer_life_than_the_platform_sells_costs_one_exchange() {
    let scene = Scene::new();
    scene.platform.set_token_life(Duration::from_secs(600));
    let _agent = scene.cold();
    for _call in 0..100 {
        let refused = scene.home.client(&["token", "--min-ttl", "1h"]);
        assert!(refused.failed_with(13).err.contains("s, less than was asked"), "{refused:?}");
    }
    assert_eq!(scene.platform.exchanges(), 1);
}

#[test]
fn a_program_that_is_never_content_does_not_hammer_the_platform() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let first = scene.home.client(&["token"]).unwrap();
    let second = scene.home.client_with(&["token", "--reject"], &first).unwrap();
    assert_ne!(first, second, "whoever is refused once gets another at once");
    let exchanges = scene.platform.exchanges();
    let again = ["token", "--reject", "--timeout", "1s"];
    for _reject in 0..3 {
        scene.home.client_with(&again, &second).failed_with(9);
    }
    assert_eq!(scene.platform.exchanges(), exchanges);
    assert_eq!(scene.home.client(&["token"]).unwrap(), second, "others are not held up");
    assert_ne!(scene.home.client_with(&["token", "--reject"], &second).unwrap(), second, "its time comes");
    assert_eq!(scene.platform.exchanges(), exchanges + 1);
}

#[test]
fn a_rejected_token_is_replaced_once_however_many_saw_the_401() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let stale = scene.token();
    let before = scene.platform.exchanges();
    let tokens: Vec<_> = thread::scope(|scope| {
        let reject = || scene.home.client_with(&["token", "--reject"], &stale).unwrap();
        let callers: Vec<_> = (0..50).map(|_| scope.spawn(reject)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0] && *token != stale));
    assert_eq!(scene.platform.exchanges(), before + 1);
}

#[test]
fn what_the_platform_says_about_coming_back_is_told_and_obeyed() {
    let scene = Scene::new();
    let _agent = scene.cold();
    let after = RetryAfter::Seconds(120);
    scene.platform.script(Endpoint::Authorize, Fault::Throttled(after), Times::Once);
    for _call in 0..5 {
        let throttled = scene.home.client(&["token", "--json"]);
        assert_eq!(throttled.status, 7);
        let error: serde_json::Value = serde_json::from_str(throttled.err.trim()).unwrap();
        let seconds = error["retry_after"].as_f64().unwrap();
        assert!((100.0..=120.0).contains(&seconds) && error["code"] == "throttled", "{error}");
    }
    assert_eq!(scene.platform.exchanges(), 1);
}

#[test]
fn every_platform_sells_a_token() {
    let scene = Scene::new();
    scene.platform.add_iam_key(KEY);
    scene.platform.add_mcsp_key(KEY);
    let _agent = scene.home.start_agent();
    let url = scene.platform.url();
    for (name, more) in [
        ("hub", &["--platform", "software-hub", "--username", "alice"][..]),
        ("cloud", &["--platform", "ibm-cloud"]),
        ("mcsp", &["--platform", "mcsp"]),
        ("scoped", &["--platform", "mcsp", "--scope", "services/1234"]),
    ] {
        let add = ["add", "--profile", name, "--url", "https://dph.example.com", "--auth-url", &url];
        let add =
            [&add[..], &["--ca-file", &scene.ca, "--key-source", "session", "--key-stdin"], more].concat();
        scene.home.client_with(&add, KEY).unwrap();
        let token = scene.home.client(&["token", "--profile", name, "--json"]).json();
        assert_eq!((&token["profile"], &token["type"]), (&name.into(), &"Bearer".into()), "{token}");
        assert!(token["expires_in"].as_u64().unwrap() > 60, "{token}");
    }
    scene.home.client(&["token"]).failed_with(2);
    scene.home.client(&["default", "cloud"]).unwrap();
    assert_eq!(scene.home.client(&["token", "--json"]).json()["profile"], "cloud");
}

#[test]
fn when_an_ibm_cloud_key_ends_is_asked_once_and_told_and_no_token_waits_for_it() {
    let scene = Scene::new();
    let (file, _agent) = (scene.home.write("cloud-key", KEY), scene.home.start_agent());
    scene.platform.add_iam_key(KEY);
    let add = |more: &[&str]| {
        let url = scene.platform.url();
        let add =
            ["add", "--platform", "ibm-cloud", "--url", &url, "--auth-url", &url, "--ca-file", &scene.ca];
        scene.home.client_with(&[&add[..], more].concat(), KEY).unwrap();
    };
    let status = || scene.home.client(&["status", "--profile", "cloud", "--json"]).json();
    let ends = || status()["profiles"][0]["key_expires_at"].clone();

    // The agent's own clock tells what is ten days ahead.
    add(&["--profile", "cloud", "--key-source", "session", "--key-stdin", "--no-verify", "--ttl", "240h"]);
    let minute = ends().as_str().unwrap().get(..16).unwrap().to_owned();
    scene.home.client(&["remove", "--profile", "cloud", "--yes"]).unwrap();
    scene.platform.set_iam_key_expires_at(KEY, &format!("{minute}+0000"));

    scene.platform.pause_at(Endpoint::IamKeyDetails);
    add(&["--profile", "cloud", "--key-source", &format!("file:{}", file.display())]);
    scene.home.client(&["token", "--profile", "cloud"]).unwrap();
    assert!(ends().is_null(), "the platform has not answered yet");
    scene.platform.resume();
    wait_until("the platform has told", || ends() == format!("{minute}:00Z"));
    let lines = scene.home.client(&["status"]).unwrap();
    assert!(lines.contains("\n  warning   the key ends within 14 days"), "{lines}");
    assert!(scene.home.client(&["status", "--check"]).ok, "it still buys tokens");

    scene.home.client(&["refresh", "--profile", "cloud"]).unwrap();
    let passphrase = "correct horse battery staple";
    scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], passphrase).unwrap();
    scene.home.client_with(&["unlock", "--passphrase-stdin"], passphrase).unwrap();
    assert_eq!(ends(), format!("{minute}:00Z"), "it is kept with the key");
    scene.home.client(&["refresh", "--profile", "cloud"]).unwrap();
    let requests = scene.platform.requests();
    let asked = requests.iter().filter(|request| request.endpoint == Endpoint::IamKeyDetails).count();
    assert_eq!((asked, scene.platform.exchanges()), (1, 3));
}

#[test]
fn every_format_carries_the_same_token() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let token = scene.token();
    let format = |format: &str| scene.home.client(&["token", "--format", format]).unwrap();
    assert_eq!(format("raw"), token);
    assert_eq!(format("header"), format!("Authorization: Bearer {token}"));
    assert!(format("curl").contains(&format!("header = \"Authorization: Bearer {token}\"")));
    assert!(format("curl").contains(&format!("cacert = \"{}\"", scene.ca)));
    let json: serde_json::Value = serde_json::from_str(&format("json")).unwrap();
    assert_eq!((&json["token"], &json["username"]), (&token.into(), &"alice".into()));
    assert_eq!(json["url"].as_str().unwrap().trim_end_matches('/'), scene.platform.url());
}

#[test]
fn keys_come_from_files_commands_and_credentials() {
    let scene = Scene::new();
    let file = scene.home.write("creds/dph", KEY);
    let command = format!("command:[\"cat\",\"{}\"]", file.display());
    let folder = file.parent().unwrap().to_owned();
    let _agent = scene.home.start_agent_with(|agent| agent.env("CREDENTIALS_DIRECTORY", folder));
    let url = scene.platform.url();
    for source in [format!("file:{}", file.display()), command, "credential:dph".to_owned()] {
        let name = source.split_once(':').unwrap().0;
        let add =
            ["add", "--profile", name, "--platform", "software-hub", "--url", &url, "--username", "alice"];
        scene.home.client(&[&add[..], &["--ca-file", &scene.ca, "--key-source", &source]].concat()).unwrap();
        scene.home.client(&["token", "--profile", name]).unwrap();
    }
    scene.home.client(&["forget", "--profile", "file", "--yes"]).unwrap();
    scene.home.client(&["token", "--profile", "file"]).failed_with(5);
    scene.home.client(&["add", "--profile", "file"]).unwrap();
    scene.home.client(&["token", "--profile", "file"]).unwrap();
}

#[test]
fn a_command_that_fails_is_tried_again_when_asked() {
    let scene = Scene::new();
    let file = scene.home.path("later");
    let source = format!("command:[\"cat\",\"{}\"]", file.display());
    let _agent = scene.home.start_agent();
    let url = scene.platform.url();
    let add = ["add", "--platform", "software-hub", "--url", &url, "--username", "alice", "--no-verify"];
    scene.home.client(&[&add[..], &["--ca-file", &scene.ca, "--key-source", &source]].concat()).unwrap();
    scene.home.client(&["token"]).failed_with(12);
    scene.home.write("later", KEY);
    wait_until("the source opened", || scene.home.client(&["token"]).ok);
}

#[test]
fn a_self_signed_server_is_trusted_by_its_pin_and_no_other() {
    let scene = Scene::with(MockPlatform::start_with(Options { self_signed: true, ..Options::default() }));
    let agent = scene.home.start_agent();
    let url = scene.platform.url();
    let add = ["add", "--platform", "software-hub", "--url", &url, "--username", "alice"];
    let add = [&add[..], &["--key-source", "session", "--key-stdin"]].concat();
    let refused = scene.home.client_with(&add, KEY);
    assert!(refused.failed_with(11).err.contains("--trust-server"), "{refused:?}");
    let blind = scene.home.client_with(&[&add[..], &["--trust-server"]].concat(), KEY);
    assert!(blind.status == 2 && blind.err.contains(&scene.platform.fingerprint()), "{blind:?}");
    assert_eq!(scene.platform.exchanges(), 0, "no key was sent to a server that nobody vouched for");
    let pin = scene.platform.fingerprint();
    scene.home.client_with(&[&add[..], &["--tls-pin", &pin]].concat(), KEY).unwrap();
    scene.token();
    drop(agent);

    let port = url.rsplit(':').next().unwrap().parse().ok();
    drop(scene.platform);
    let other = MockPlatform::start_with(Options { self_signed: true, port, ..Options::default() });
    other.add_user("alice", KEY);
    let _agent = scene.home.start_agent();
    let add = ["add", "--key-stdin", "--profile", "default"];
    let changed = scene.home.client_with(&add, KEY);
    let (expected, found) = (pin, other.fingerprint());
    assert!(changed.failed_with(11).err.contains(&found) || changed.err.contains(&expected), "{changed:?}");
    scene.home.client_with(&["add", "--key-stdin", "--profile", "default", "--no-verify"], KEY).unwrap();
    let changed = scene.home.client(&["token"]);
    assert!(changed.failed_with(11).err.contains(&expected) && changed.err.contains(&found), "{changed:?}");
    assert_eq!(other.exchanges(), 0);
}

#[test]
fn a_reload_keeps_keys_and_tokens() {
    let scene = Scene::new();
    let agent = scene.warm();
    let token = scene.token();
    let config = std::fs::read_to_string(scene.home.config()).unwrap();
    scene.home.write_config(&format!(
        "{config}\n[profiles.more]\nplatform = \"ibm-cloud\"\nurl = \"https://x.example\"\n"
    ));
    agent.signal(rustix::process::Signal::HUP);
    wait_until("the new profile is there", || scene.home.client(&["list"]).out.contains("x.example"));
    assert_eq!(scene.home.client(&["token", "--profile", "default"]).unwrap(), token);
    assert_eq!(scene.platform.exchanges(), 1);
}

#[test]
fn a_stranger_with_python_and_the_specification_gets_a_token() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/dph_client.py");
    let Ok(python) = std::process::Command::new("python3").arg("--version").output() else {
        return skipped("no python3 on this machine: the client written from PROTOCOL.md was not run");
    };
    assert!(python.status.success());
    let mut client = scene.home.command("python3");
    client.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).arg(scene.home.socket()).arg("token");
    assert_eq!(dph_agent_tests::run(&mut client, "").unwrap(), scene.token());
}

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
