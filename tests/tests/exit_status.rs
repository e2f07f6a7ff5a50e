//! Every exit status that scripts rely on, each with its two lines for people.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::time::Duration;

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
use dph_agent_tests::{AgentProcess, Home, Ran, program, run};

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";

/// An agent with the profile `prod`, whose key is in a file, and a platform that knows it.
struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    fn new() -> Self {
        let (home, platform) = (Home::new(), MockPlatform::start());
        platform.add_user("alice", KEY);
        let source = home.write("key", KEY);
        let (ca, url) = (platform.write_ca(&home.path(".")), platform.url());
        home.write_config(&format!(
            "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{url}\"\nusername = \"alice\"\nca-file = \"{}\"\nkey-source = \"file:{}\"\n",
            ca.canonicalize().unwrap().display(),
            source.display()
        ));
        Self { home, platform }
    }

    fn start(&self) -> AgentProcess<'_> {
        self.home.start_agent()
    }

    /// Returns how a token request ends when the platform has this fault.
    fn token_with(&self, fault: Fault) -> Ran {
        self.platform.script(Endpoint::Authorize, fault, Times::Forever);
        self.home.client(&["token"])
    }
}

#[test]
fn success_is_0_and_prints_nothing_but_the_answer() {
    let scene = Scene::new();
    let _agent = scene.start();
    let token = scene.home.client(&["token"]);
    assert_eq!((token.status, token.err.as_str(), token.out.lines().count()), (0, "", 1), "{token:?}");
}

#[test]
fn wrong_usage_and_an_ambiguous_profile_are_2() {
    let scene = Scene::new();
    let _agent = scene.start();
    let client = |arguments: &[&str]| scene.home.client(arguments);
    assert!(client(&["tokne"]).failed_with(2).err.contains("token"));
    assert!(client(&["token", "--min-tll", "1"]).failed_with(2).err.contains("--min-ttl"));
    client(&["token", "--min-ttl", "soon"]).failed_with(2);
    client(&["token", "--format", "xml"]).failed_with(2);
    client(&["token", "--profile", "not/a/name"]).failed_with(2);
    client(&["add", "--profile", "more", "--platform", "software-hub", "--url", "http://cpd.example.com"])
        .failed_with(2);
    scene
        .home
        .client_with(
            &[
                "add",
                "--profile",
                "more",
                "--platform",
                "ibm-cloud",
                "--url",
                "https://x.example",
                "--key-source",
                "session",
                "--no-verify",
                "--key-stdin",
            ],
            KEY,
        )
        .unwrap();
    let ambiguous = client(&["token"]);
    assert!(ambiguous.failed_with(2).err.contains("more, prod"), "the names are told: {ambiguous:?}");
}

#[test]
fn a_prompt_without_a_terminal_is_2_and_names_the_option() {
    let scene = Scene::new();
    let _agent = scene.start();
    let add = ["add", "--profile", "prod", "--key-source", "session", "--quiet"];
    // In a session of its own a process has no terminal to open.
    let mut client = scene.home.command("setsid");
    let asked = run(client.arg("--wait").arg(program("dph-agent-client")).args(add), "");
    assert!(asked.failed_with(2).err.contains("--key-stdin"), "{asked:?}");
}

#[test]
fn no_agent_is_3_and_lists_every_place_tried() {
    let home = Home::new();
    let none = home.client(&["token"]);
    assert!(
        none.failed_with(3).err.contains("XDG_RUNTIME_DIR") && none.err.contains("dph-agent start"),
        "{none:?}"
    );
}

#[test]
fn no_such_profile_or_no_key_is_5() {
    let scene = Scene::new();
    let _agent = scene.start();
    let missing = scene.home.client(&["token", "--profile", "dev"]);
    assert!(missing.failed_with(5).err.contains("prod"), "the known ones are told: {missing:?}");
    scene.home.client(&["token", "--for-url", "https://other.example"]).failed_with(5);
    scene.home.client(&["token", "--for-url", &format!("{}/any/page", scene.platform.url())]).unwrap();
    scene.home.client(&["forget", "--yes"]).unwrap();
    scene.home.client(&["token"]).failed_with(5);
    assert_eq!(scene.home.client(&["status", "--check"]).status, 5);
}

#[test]
fn a_refused_key_is_6() {
    for fault in [Fault::Unauthorized { json: true }, Fault::Unauthorized { json: false }] {
        let scene = Scene::new();
        let _agent = scene.start();
        let refused = scene.token_with(fault);
        assert!(refused.failed_with(6).err.contains("IAM#"), "what it usually means: {refused:?}");
        assert_eq!(scene.home.client(&["status", "--check"]).status, 6);
        scene.platform.clear_scripts();
        scene.home.client(&["refresh"]).unwrap();
        scene.home.client(&["token"]).unwrap();
    }
}

#[test]
fn the_same_token_after_a_rejection_is_6() {
    let scene = Scene::new();
    let _agent = scene.start();
    scene.platform.script(Endpoint::Authorize, Fault::SameToken, Times::Forever);
    let token = scene.home.client(&["token"]).unwrap();
    scene.home.client_with(&["token", "--reject"], &token).failed_with(6);
}

#[test]
fn a_platform_that_cannot_be_reached_or_fails_is_7() {
    let scene = Scene::new();
    let _agent = scene.start();
    scene.token_with(Fault::ServerError(503, None)).failed_with(7);
    let scene = Scene::new();
    let _agent = scene.start();
    scene.platform.stop_listening();
    let down = scene.home.client(&["token", "--json"]);
    assert_eq!((down.status, down.out.as_str()), (7, ""));
    let error: serde_json::Value = serde_json::from_str(&down.err).unwrap();
    assert!(error["retry_after"].is_number() && error["hint"].is_string(), "{error}");
    scene.home.client(&["add", "--profile", "prod"]).failed_with(7);
}

#[test]
fn a_missing_yes_is_8() {
    let scene = Scene::new();
    let _agent = scene.start();
    for command in ["forget", "remove"] {
        let mut client = scene.home.command("setsid");
        let refused = run(client.arg("--wait").arg(program("dph-agent-client")).arg(command), "");
        assert!(refused.failed_with(8).err.contains("--yes"), "{refused:?}");
        assert_eq!(scene.home.client(&[command, "--dry-run"]).unwrap(), "prod");
    }
    assert!(scene.home.client(&["list"]).out.contains("prod"), "nothing was removed");
    scene.home.client(&["remove", "--yes"]).unwrap();
    assert!(!scene.home.client(&["list"]).out.contains("prod"));
    assert!(scene.home.path("key").exists(), "a key file is its owner's");
}

#[test]
fn a_deadline_is_9() {
    let scene = Scene::new();
    let _agent = scene.start();
    scene.platform.script(Endpoint::Authorize, Fault::Hang, Times::Forever);
    let late = scene.home.client(&["token", "--timeout", "1"]);
    assert!(late.failed_with(9).err.contains("--timeout"), "{late:?}");
}

#[test]
fn a_wrong_set_up_is_11() {
    for (fault, word) in [
        (Fault::NotFound, "404"),
        (Fault::Html, "web page"),
        (
            Fault::Redirect("https://elsewhere.example/login".to_owned()),
            "redirects to `https://elsewhere.example`",
        ),
        (Fault::Code602, "602"),
        (Fault::Garbage, "not what this platform sends"),
        (Fault::EmptyBody, "not what this platform sends"),
        (Fault::NoTokenField, "no token"),
        (Fault::HugeBody, "too large"),
        (Fault::LongToken(60 * 1024), "longer than"),
    ] {
        let scene = Scene::new();
        let _agent = scene.start();
        let told = scene.token_with(fault.clone());
        assert!(told.failed_with(11).err.contains(word), "{fault:?}: {told:?}");
    }
}

#[test]
fn an_untrusted_certificate_is_11() {
    let scene = Scene::new();
    scene
        .home
        .write_config(&std::fs::read_to_string(scene.home.config()).unwrap().replace("ca-file", "# ca-file"));
    let _agent = scene.start();
    let untrusted = scene.home.client(&["token"]);
    assert!(untrusted.failed_with(11).err.contains("--ca-file"), "{untrusted:?}");
    assert!(scene.platform.requests().is_empty(), "nothing was sent");
}

#[test]
fn a_source_that_cannot_be_read_is_12() {
    let scene = Scene::new();
    std::fs::remove_file(scene.home.path("key")).unwrap();
    let _agent = scene.start();
    scene.home.client(&["token"]).failed_with(12);
    assert_eq!(scene.home.client(&["status", "--json"]).json()["profiles"][0]["key_state"], "unavailable");
}

#[test]
fn a_life_that_the_platform_does_not_sell_is_13() {
    let scene = Scene::new();
    scene.platform.set_token_life(Duration::from_secs(300));
    let _agent = scene.start();
    let short = scene.home.client(&["token", "--min-ttl", "10m"]);
    assert!(short.failed_with(13).err.contains("300 s") || short.err.contains("299 s"), "{short:?}");
}

#[test]
fn answers_that_public_documents_show_otherwise_are_understood() {
    for fault in
        [Fault::AccessTokenField, Fault::MessageCodeVariant, Fault::WrongContentType, Fault::TokenWithoutExp]
    {
        let scene = Scene::new();
        let _agent = scene.start();
        let token = scene.token_with(fault.clone());
        assert!(token.ok, "{fault:?}: {token:?}");
    }
}

#[test]
fn other_answers_of_the_command_line() {
    let scene = Scene::new();
    let _agent = scene.start();
    assert!(scene.home.client(&["version"]).unwrap().contains(env!("CARGO_PKG_VERSION")));
    assert!(scene.home.client(&["ping", "--ready"]).ok);
    assert_eq!(scene.home.client(&["default"]).unwrap(), "prod");
    for command in [
        "token", "add", "list", "status", "default", "forget", "remove", "refresh", "ping", "stop", "version",
    ] {
        assert!(scene.home.client(&[command, "--help"]).unwrap().contains(command), "{command}");
    }
    let status = scene.home.client(&["status", "--json"]).json();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&status["agent"]),
        [
            "audit",
            "config_error",
            "locked",
            "pid",
            "profile_count",
            "secret_memory",
            "socket",
            "started_at",
            "version"
        ]
    );
    assert_eq!(
        keys(&status["profiles"][0]),
        [
            "exchanges",
            "key_added_at",
            "key_expires_at",
            "key_source",
            "key_state",
            "last_error",
            "name",
            "next_refresh_at",
            "platform",
            "served",
            "token_state",
            "url",
            "usable_until",
            "username",
        ]
    );
}
