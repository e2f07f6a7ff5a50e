//! What root finds of a key in the agent's whole memory: nothing.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::time::{Duration, Instant};

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
use dph_agent_secret::scan;
use dph_agent_tests::{AgentProcess, Home, Ran};

/// With signs that URLs and JSON write in another way.
const KEY: &str = "k3y+with/signs=that\"are&escaped%differently-0123456789";
/// In the agent's memory like any other name: the scan must find it.
const USER: &str = "alice-who-is-a-marker-in-plain-memory";
/// How long after an exchange a copy may still be there.
const GRACE: Duration = Duration::from_secs(1);

struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    fn new() -> Self {
        let (home, platform) = (Home::new(), MockPlatform::start());
        platform.add_user(USER, KEY);
        home.write("key", KEY);
        Self { home, platform }
    }

    /// Adds the key from a source, handed over where that wants it.
    fn add(&self, source: &str) -> Ran {
        let (url, ca) = (self.platform.url(), self.platform.write_ca(&self.home.path(".")));
        let add = ["add", "--profile", "p", "--platform", "software-hub", "--url", &url, "--username", USER];
        let add = [&add[..], &["--ca-file", ca.to_str().unwrap(), "--key-source", source]].concat();
        match source {
            "session" => self.home.client_with(&[&add[..], &["--key-stdin"]].concat(), KEY),
            _ => self.home.client(&add),
        }
    }

    /// Looks for the key in each form that it takes on its way, and says where it is.
    fn copies_in(&self, agent: &AgentProcess<'_>) -> Vec<String> {
        let forms = [
            KEY.to_owned(),
            base64(&format!("{USER}:{KEY}")),
            percent(KEY),
            serde_json::json!(KEY).to_string(),
        ];
        let needles: Vec<&[u8]> = forms.iter().map(String::as_bytes).collect();
        let found = scan::process(agent.pid(), &needles).unwrap();
        found.found.iter().map(|place| format!("{place:?}")).collect()
    }

    fn no_copy_in(&self, agent: &AgentProcess<'_>, after: &str) {
        let end = Instant::now() + GRACE;
        loop {
            let copies = self.copies_in(agent);
            if copies.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "after {after}: {copies:#?}");
        }
        let marker = scan::process(agent.pid(), &[USER.as_bytes()]).unwrap();
        assert!(!marker.found.is_empty(), "the scan finds what is there");
    }
}

#[test]
fn the_key_is_nowhere_in_the_agents_memory() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can read the agent's memory");
    }
    for source in ["session", "file", "command", "credential"] {
        let scene = Scene::new();
        let file = scene.home.path("key").display().to_string();
        let text = match source {
            "file" => format!("file:{file}"),
            "command" => format!("command:[\"cat\",\"{file}\"]"),
            "credential" => "credential:key".to_owned(),
            _ => source.to_owned(),
        };
        let folder = scene.home.path(".");
        let agent = scene.home.start_agent_with(|agent| agent.env("CREDENTIALS_DIRECTORY", folder));
        scene.add(&text).unwrap();
        scene.no_copy_in(&agent, &format!("add from {source}"));
        for _refresh in 0..10 {
            scene.home.client(&["refresh"]).unwrap();
        }
        scene.no_copy_in(&agent, &format!("ten refreshes from {source}"));
        for fault in [Fault::Unauthorized { json: true }, Fault::DropMidBody, Fault::ServerError(503, None)] {
            scene.platform.script(Endpoint::Authorize, fault.clone(), Times::N(2));
            assert!(!scene.home.client(&["refresh"]).ok);
            scene.no_copy_in(&agent, &format!("{fault:?} with the key from {source}"));
            scene.platform.clear_scripts();
        }
        scene.home.client(&["forget", "--yes"]).unwrap();
        scene.no_copy_in(&agent, &format!("forget of the key from {source}"));
    }
}

#[test]
fn a_forgotten_token_is_nowhere_in_the_agents_memory() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can read the agent's memory");
    }
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.add("session").unwrap();
    let token = scene.home.client(&["token"]).unwrap();
    // The signature: the rest of a token says nothing that is secret.
    let signature = token.rsplit('.').next().unwrap().as_bytes();
    assert!(!scan::process(agent.pid(), &[signature]).unwrap().found.is_empty(), "it is held until then");
    scene.home.client(&["forget", "--yes"]).unwrap();
    let end = Instant::now() + GRACE;
    while !scan::process(agent.pid(), &[signature]).unwrap().found.is_empty() {
        assert!(Instant::now() < end, "{:?}", scan::process(agent.pid(), &[signature]).unwrap().found);
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
