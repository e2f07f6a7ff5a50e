//! What root finds of secrets in the agent's whole memory, and in a core of it: nothing.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
use dph_agent_secret::scan::{self, Scan};
use dph_agent_tests::{AgentProcess, Home, Ran, run};

/// With signs that URLs and JSON write in another way.
const KEY: &str = "k3y+with/signs=that\"are&escaped%differently-0123456789";
/// In the agent's memory like any other name: the scan must find it.
const USER: &str = "alice-who-is-a-marker-in-plain-memory";
const PASSPHRASE: &str = "correct horse battery staple of the owner";
/// How long after an exchange a copy may still be there.
const GRACE: Duration = Duration::from_secs(1);

/// Everywhere that a key can come from, but for keyrings, which are tested with a keyring.
const SOURCES: [&str; 5] = ["session", "file", "command", "credential", "sealed"];

struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    /// Returns a scene whose agent keeps keys in one form of memory.
    fn new(form: &str) -> Self {
        let (home, platform) = (Home::new(), MockPlatform::start());
        platform.add_user(USER, KEY);
        home.write("key", KEY);
        home.write_config(&format!("secret-memory = \"{form}\"\n"));
        Self { home, platform }
    }

    fn start(&self) -> AgentProcess<'_> {
        let folder = self.home.path(".");
        self.home.start_agent_with(|agent| agent.env("CREDENTIALS_DIRECTORY", folder))
    }

    /// Adds the key from a source, handed over where that wants it.
    fn add(&self, source: &str) -> Ran {
        let (url, ca) = (self.platform.url(), self.platform.write_ca(&self.home.path(".")));
        let file = self.home.path("key").display().to_string();
        let text = match source {
            "file" => format!("file:{file}"),
            "command" => format!("command:[\"cat\",\"{file}\"]"),
            "credential" => "credential:key".to_owned(),
            _ => source.to_owned(),
        };
        let add = ["add", "--profile", "p", "--platform", "software-hub", "--url", &url, "--username", USER];
        let add = [&add[..], &["--ca-file", ca.to_str().unwrap(), "--key-source", &text]].concat();
        match source {
            "session" | "sealed" => self.home.client_with(&[&add[..], &["--key-stdin"]].concat(), KEY),
            _ => self.home.client(&add),
        }
    }

    fn set_passphrase(&self) {
        self.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], PASSPHRASE).unwrap();
    }

    fn unlock(&self) {
        self.home.client_with(&["unlock", "--passphrase-stdin"], PASSPHRASE).unwrap();
    }

    /// Lets the key itself be handed out, and asks for it.
    fn hand_out_the_key(&self, agent: &AgentProcess<'_>) {
        let config = std::fs::read_to_string(self.home.config()).unwrap();
        self.home.write_config(&format!("{config}allow-zen = true\n"));
        agent.signal(rustix::process::Signal::HUP);
        let header = dph_agent_tests::wait_for("the configuration is read", || {
            Some(self.home.client(&["token", "--format", "zen"])).filter(|ran| ran.ok)
        });
        assert!(header.out.contains(&base64(&format!("{USER}:{KEY}"))));
    }

    /// Returns the signature of a token: the rest of it says nothing that is secret.
    fn signature(&self) -> String {
        self.home.client(&["token"]).unwrap().rsplit('.').next().unwrap().to_owned()
    }
}

/// Each form that the key takes on its way.
fn forms_of_the_key() -> Vec<String> {
    let json = serde_json::json!(KEY).to_string();
    vec![KEY.to_owned(), base64(&format!("{USER}:{KEY}")), percent(KEY), json]
}

/// Looks again and again until nothing of `secrets` is found, and a marker is.
fn finds_nothing(look: impl Fn(&[&[u8]]) -> Scan, secrets: &[String], after: &str) {
    let needles: Vec<&[u8]> = secrets.iter().map(String::as_bytes).collect();
    let end = Instant::now() + GRACE;
    loop {
        let found = look(&needles).found;
        if found.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "after {after}: {found:#?}");
    }
    assert!(!look(&[USER.as_bytes()]).found.is_empty(), "the scan finds what is there");
}

fn none_in(agent: &AgentProcess<'_>, secrets: &[String], after: &str) {
    finds_nothing(|needles| scan::process(agent.pid(), needles).unwrap(), secrets, after);
}

/// The whole life of a key from one source.
fn follow(source: &str, form: &str) {
    let (scene, key) = (Scene::new(form), forms_of_the_key());
    let agent = scene.start();
    if source == "sealed" {
        scene.set_passphrase();
        scene.unlock();
    }
    let none_after = |what: &str, secrets: &[String]| {
        none_in(&agent, secrets, &format!("{what}, the key from {source} in {form} memory"));
    };
    scene.add(source).unwrap();
    let status = scene.home.client(&["status", "--json"]).json();
    let memory = status.pointer("/agent/secret_memory").unwrap().as_str().unwrap();
    assert!(memory.starts_with(form), "{memory}");
    none_after("add", &key);
    for _refresh in 0..10 {
        scene.home.client(&["refresh"]).unwrap();
    }
    none_after("ten refreshes", &key);
    scene.hand_out_the_key(&agent);
    none_after("a header with the key", &key);
    for fault in [Fault::Unauthorized { json: true }, Fault::DropMidBody, Fault::ServerError(503, None)] {
        scene.platform.script(Endpoint::Authorize, fault.clone(), Times::N(2));
        assert!(!scene.home.client(&["refresh"]).ok);
        none_after(&format!("{fault:?}"), &key);
        scene.platform.clear_scripts();
    }
    scene.home.client(&["refresh"]).unwrap();
    let token = scene.signature();
    let all = [&key[..], &[PASSPHRASE.to_owned(), token.clone()]].concat();
    if source == "sealed" {
        scene.home.client(&["lock"]).unwrap();
    } else {
        scene.set_passphrase();
    }
    none_after("lock", &all);
    scene.unlock();
    none_after("unlock", &[&key[..], &[PASSPHRASE.to_owned()]].concat());
    scene.home.client(&["token"]).unwrap();
    none_after("a token after unlock", &key);
    scene.home.client(&["forget", "--yes"]).unwrap();
    none_after("forget", &all);
}

/// Returns the forms of memory that this machine has.
fn forms() -> Vec<&'static str> {
    let has_memfd = Scene::new("memfd");
    let mut agent = has_memfd.home.spawn_agent_with(|agent| agent);
    let refused = || has_memfd.home.log().contains("memfd_secret");
    dph_agent_tests::wait_until("the agent answers or gives up", || {
        has_memfd.home.client(&["ping"]).ok || refused()
    });
    if refused() {
        agent.wait();
        skipped("this kernel has no memfd_secret, or limits forbid it");
        return vec!["encrypted"];
    }
    vec!["memfd", "encrypted"]
}

#[test]
fn the_key_is_nowhere_in_the_agents_memory_nor_token_and_passphrase_once_it_is_locked() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can read the agent's memory");
    }
    for form in forms() {
        // Beside each other, for `refresh` keeps its distance from the one before.
        thread::scope(|scope| {
            SOURCES.iter().for_each(|source| drop(scope.spawn(move || follow(source, form))))
        });
    }
}

#[test]
fn a_token_that_is_held_is_found_by_the_scan() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can read the agent's memory");
    }
    let scene = Scene::new("auto");
    let agent = scene.start();
    scene.add("session").unwrap();
    let token = scene.signature();
    assert!(!scan::process(agent.pid(), &[token.as_bytes()]).unwrap().found.is_empty());
}

#[test]
fn a_core_that_root_makes_holds_no_key_and_once_locked_no_token() {
    if !rustix::process::geteuid().is_root() || Command::new("gcore").output().is_err() {
        return skipped("only root can make a core of the agent, by gcore (package gdb)");
    }
    for form in forms() {
        let scene = Scene::new(form);
        let agent = scene.start();
        scene.add("session").unwrap();
        let token = scene.signature();
        let core = |name: &str| {
            let prefix = scene.home.path(name);
            let mut gcore = scene.home.command("gcore");
            run(gcore.arg("-o").arg(&prefix).arg(agent.pid().to_string()), "").unwrap();
            prefix.with_extension(agent.pid().to_string())
        };
        none_in(&agent, &forms_of_the_key(), &format!("add, {form}"));
        let open = core("open");
        finds_nothing(
            |needles| scan::file(&open, needles).unwrap(),
            &forms_of_the_key(),
            &format!("gcore, {form}"),
        );
        scene.set_passphrase();
        let all = [&forms_of_the_key()[..], &[PASSPHRASE.to_owned(), token]].concat();
        // A session that answered before may have its buffers for a moment more.
        none_in(&agent, &all, &format!("lock, {form}"));
        let locked = core("locked");
        finds_nothing(|needles| scan::file(&locked, needles).unwrap(), &all, &format!("lock, gcore, {form}"));
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
