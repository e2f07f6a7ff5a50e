//! The key in a real keyring: gnome-keyring on a session bus of its own, in a home of its own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
use dph_agent_secret::scan;
use dph_agent_tests::{Home, Ran, run, wait_until};

const KEY: &str = "k3y-that-a-keyring-keeps-0123";
/// What "at once" is, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A user's home with a platform to log in to and, where a test starts them, a bus and a keyring on it.
struct Desktop {
    processes: RefCell<Vec<Child>>,
    home: Home,
    platform: MockPlatform,
}

impl Desktop {
    /// Returns `None`, and says so, where this machine has no keyring to test with.
    fn new() -> Option<Self> {
        let missing = ["dbus-daemon", "dbus-monitor", "dbus-send", "gnome-keyring-daemon", "secret-tool"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_err());
        if let Some(program) = missing {
            skipped(program);
            return None;
        }
        let (home, platform) = (Home::new(), MockPlatform::start());
        platform.add_user("alice", KEY);
        home.write_config(&format!(
            "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\nca-file = \"{}\"\nkey-source = \"keyring\"\n",
            platform.url(),
            platform.write_ca(&home.path(".")).canonicalize().unwrap().display()
        ));
        Some(Self { processes: RefCell::default(), home, platform })
    }

    fn with_keyring() -> Option<Self> {
        let desktop = Self::new()?;
        desktop.start_bus();
        desktop.start_keyring();
        Some(desktop)
    }

    fn start_bus(&self) {
        let mut bus = self.home.command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--address"]).arg(self.bus()).stderr(Stdio::null());
        self.processes.borrow_mut().push(bus.spawn().unwrap());
        wait_until("the bus answers", || {
            self.call("org.freedesktop.DBus", &["/", "org.freedesktop.DBus.GetId"]).ok
        });
    }

    /// Starts the keyring as a login does, which makes the `login` collection and opens it.
    fn start_keyring(&self) {
        let mut daemon = self.home.command("gnome-keyring-daemon");
        daemon.env("DBUS_SESSION_BUS_ADDRESS", self.bus());
        daemon.args(["--foreground", "--unlock", "--components=secrets"]);
        let mut daemon =
            daemon.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        daemon.stdin.take().unwrap().write_all(b"the user's password").unwrap();
        self.processes.borrow_mut().push(daemon);
        wait_until("the keyring is open", || self.is_locked() == Some(false));
    }

    /// Ends the bus and all that is on it.
    fn end_all(&self) {
        for mut process in self.processes.take().into_iter().rev() {
            drop(process.kill());
            drop(process.wait());
        }
        drop(fs::remove_file(self.home.path("run/bus")));
    }

    fn bus(&self) -> String {
        format!("unix:path={}", self.home.path("run/bus").display())
    }

    /// Calls something on the bus.
    fn call(&self, whom: &str, what: &[&str]) -> Ran {
        let mut call = self.home.command("dbus-send");
        call.args([format!("--bus={}", self.bus()), "--print-reply".to_owned(), format!("--dest={whom}")]);
        run(call.args(what), "")
    }

    fn is_locked(&self) -> Option<bool> {
        let question = [
            "/org/freedesktop/secrets/aliases/default",
            "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Collection",
            "string:Locked",
        ];
        let owner = self.call(
            "org.freedesktop.DBus",
            &["/", "org.freedesktop.DBus.GetNameOwner", "string:org.freedesktop.secrets"],
        );
        let answer = owner.ok.then(|| self.call("org.freedesktop.secrets", &question))?;
        answer.ok.then(|| answer.out.contains("true"))
    }

    fn lock_keyring(&self) {
        let collection = "array:objpath:/org/freedesktop/secrets/aliases/default";
        self.call(
            "org.freedesktop.secrets",
            &["/org/freedesktop/secrets", "org.freedesktop.Secret.Service.Lock", collection],
        )
        .unwrap();
        wait_until("the keyring is locked", || self.is_locked() == Some(true));
    }

    /// Returns what the desktop's own tool finds of ours.
    fn items(&self) -> String {
        let mut tool = self.home.command("secret-tool");
        tool.env("DBUS_SESSION_BUS_ADDRESS", self.bus()).args(["search", "--all", "service", "dph-agent"]);
        let found = run(&mut tool, "");
        found.out + &found.err
    }

    fn add(&self) -> Ran {
        self.home.client_with(&["add", "--profile", "prod", "--key-stdin"], KEY)
    }

    /// Adds the key with an agent that ends then.
    fn keep_the_key(&self) {
        let agent = self.home.start_agent();
        self.add().unwrap();
        agent.stop();
    }

    fn token(&self) -> Ran {
        self.home.client(&["token"])
    }

    /// Makes sure that a token is refused at once because of the keyring, with what to do instead.
    fn refuses(&self, why: &str) {
        let begun = Instant::now();
        let refused = self.token();
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        refused.failed_with(12);
        assert!(refused.err.contains(why), "{refused:?}");
        for alternative in ["--key-source session", "--key-source file:", "--key-source 'command:["] {
            assert!(refused.err.contains(alternative), "{refused:?}");
        }
        let status = self.home.client(&["status", "--json"]).json();
        assert_eq!(status.pointer("/profiles/0/key_state").unwrap(), "unavailable");
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.end_all();
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
fn skipped(program: &str) {
    eprintln!("SKIPPED: there is no {program} (packages dbus, gnome-keyring, libsecret-tools)");
}

#[test]
fn a_key_in_the_keyring_survives_a_restart_of_the_agent() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    let agent = desktop.home.start_agent();
    desktop.token().failed_with(5);
    desktop.add().unwrap();
    desktop.token().unwrap();
    agent.stop();
    let _agent = desktop.home.start_agent();
    desktop.token().unwrap();
    let status = desktop.home.client(&["status", "--json"]).json();
    assert_eq!(
        (&status["profiles"][0]["key_state"], &status["profiles"][0]["key_source"]),
        (&"held".into(), &"keyring".into())
    );
}

#[test]
fn the_desktops_own_tool_finds_the_key_until_it_is_forgotten() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    let _agent = desktop.home.start_agent();
    desktop.add().unwrap();
    desktop.add().unwrap();
    let (items, url) = (desktop.items(), desktop.platform.url());
    assert_eq!(items.matches("label = ").count(), 1, "a second key takes the place of the first: {items}");
    for detail in [
        format!("label = dph-agent: prod at {url}"),
        "attribute.service = dph-agent".to_owned(),
        "attribute.profile = prod".to_owned(),
        format!("attribute.origin = {url}"),
        "attribute.username = alice".to_owned(),
    ] {
        assert!(items.contains(&detail), "{detail}: {items}");
    }
    desktop.home.client(&["forget", "--profile", "prod", "--yes"]).unwrap();
    assert!(!desktop.items().contains("label = "), "{}", desktop.items());
    desktop.token().failed_with(5);
    desktop.add().unwrap();
    desktop.home.client(&["remove", "--profile", "prod", "--yes"]).unwrap();
    assert!(!desktop.items().contains("label = "), "{}", desktop.items());
}

#[test]
fn the_key_is_in_no_file_of_ours_and_in_no_log() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    let _agent = desktop.home.start_agent_with(|agent| agent.args(["--log-level", "trace"]));
    desktop.add().unwrap();
    desktop.token().unwrap();
    assert!(!files_below(&desktop.home.path(".")).iter().any(|file| contains(file, KEY)));
}

fn files_below(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files_below(&entry.path()),
            kind if kind.is_file() => vec![fs::read(entry.path()).unwrap()],
            _ => Vec::new(),
        })
        .collect()
}

fn contains(text: &[u8], needle: &str) -> bool {
    text.windows(needle.len()).any(|part| part == needle.as_bytes())
}

#[test]
fn a_locked_keyring_is_an_error_at_once_which_asks_nobody_and_deletes_nothing() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.keep_the_key();
    desktop.lock_keyring();
    let seen = desktop.home.path("bus.log");
    let mut monitor = desktop.home.command("dbus-monitor");
    monitor
        .args(["--address", &desktop.bus()])
        .stdout(fs::File::create(&seen).unwrap())
        .stderr(Stdio::null());
    desktop.processes.borrow_mut().push(monitor.spawn().unwrap());
    let on_the_bus = |member: &str| fs::read_to_string(&seen).unwrap().contains(&format!("member={member}"));
    let _agent = desktop.home.start_agent();
    wait_until("the monitor sees the agent", || {
        desktop.refuses("locked");
        on_the_bus("SearchItems")
    });
    let added = desktop.add();
    assert!(added.failed_with(12).err.contains("locked"), "{added:?}");
    desktop.home.client(&["forget", "--profile", "prod", "--yes"]).failed_with(12);
    for member in ["Unlock", "Prompt", "Delete", "CreateItem"] {
        assert!(!on_the_bus(member), "{member}");
    }
    assert!(desktop.items().contains("attribute.profile = prod"), "{}", desktop.items());
}

#[test]
fn without_a_bus_the_error_names_what_else_can_be_done() {
    let Some(desktop) = Desktop::new() else { return };
    let _agent = desktop.home.start_agent();
    desktop.refuses("keyring");
    desktop.add().failed_with(12);
}

#[test]
fn a_keyring_that_was_never_set_up_is_not_taken_for_an_empty_one() {
    let Some(desktop) = Desktop::new() else { return };
    desktop.start_bus();
    let _agent = desktop.home.start_agent();
    desktop.refuses("keyring");
}

#[test]
fn a_keyring_that_appears_later_is_used_without_a_restart() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.keep_the_key();
    desktop.end_all();
    let _agent = desktop.home.start_agent();
    desktop.refuses("keyring");
    desktop.start_bus();
    desktop.start_keyring();
    wait_until("the agent tries again", || desktop.token().ok);
}

#[test]
fn a_key_is_not_sent_elsewhere_than_its_item_says() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.keep_the_key();
    let evil = MockPlatform::start();
    evil.add_user("alice", KEY);
    let config = fs::read_to_string(desktop.home.config()).unwrap();
    desktop.home.write_config(&config.replace(&desktop.platform.url(), &evil.url()));
    let _agent = desktop.home.start_agent();
    desktop.token().failed_with(11);
    assert_eq!(evil.requests().len(), 0);
}

#[test]
fn the_key_of_a_keyring_is_nowhere_in_the_agents_memory() {
    if !rustix::process::geteuid().is_root() {
        return skipped("right to read the agent's memory: only root has it");
    }
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.keep_the_key();
    for form in ["auto", "encrypted"] {
        let text = fs::read_to_string(desktop.home.config()).unwrap();
        let text =
            text.lines().filter(|line| !line.starts_with("secret-memory")).collect::<Vec<_>>().join("\n");
        desktop.home.write_config(&format!("secret-memory = \"{form}\"\n{text}\n"));
        let agent = desktop.home.start_agent();
        let no_copy = |after: &str| {
            let end = Instant::now() + Duration::from_secs(1);
            loop {
                let found = scan::process(agent.pid(), &[KEY.as_bytes()]).unwrap().found;
                if found.is_empty() {
                    break;
                }
                assert!(Instant::now() < end, "after {after}, {form}: {found:#?}");
            }
            let marker = scan::process(agent.pid(), &[desktop.platform.url().as_bytes()]).unwrap();
            assert!(!marker.found.is_empty(), "the scan finds what is there");
        };
        desktop.token().unwrap();
        no_copy("a token");
        desktop.add().unwrap();
        no_copy("add");
        for _refresh in 0..10 {
            desktop.home.client(&["refresh"]).unwrap();
        }
        no_copy("ten refreshes");
        agent.stop();
    }
}

#[test]
fn a_key_in_the_keyring_is_rotated_there_and_a_revoked_one_is_deleted_from_it() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.platform.allow_key_generation();
    let agent = desktop.home.start_agent();
    desktop.add().unwrap();
    desktop.home.client(&["rotate", "--yes"]).unwrap();
    assert!(!desktop.platform.is_valid_key(KEY));
    let items = desktop.items();
    assert!(items.contains("profile = prod") && !items.contains(KEY), "{items}");
    assert!(!items.contains("rotation"), "what was put aside is gone: {items}");
    agent.stop();
    let _agent = desktop.home.start_agent();
    desktop.token().unwrap();
    desktop.home.client(&["revoke", "--yes"]).unwrap();
    assert!(!desktop.items().contains("profile = prod"), "{}", desktop.items());
    desktop.token().failed_with(5);
}

#[test]
fn a_rotation_that_is_cut_off_goes_on_with_what_the_keyring_kept() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    desktop.platform.allow_key_generation();
    let agent = desktop.home.start_agent();
    desktop.add().unwrap();
    let late = Fault::Late(Duration::from_secs(3));
    desktop.platform.script(Endpoint::GenerateKey, late, Times::N(1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| desktop.home.client(&["rotate", "--yes"]));
        assert!(desktop.platform.wait_for_requests(Endpoint::GenerateKey, 1, dph_agent_tests::PATIENCE));
        assert!(desktop.items().contains("prod:rotation"));
        agent.signal(rustix::process::Signal::KILL);
        drop(agent);
        assert!(!waiting.join().unwrap().ok);
    });
    let _agent = desktop.home.start_agent();
    let state =
        || desktop.home.client(&["status", "--json"]).json().pointer("/profiles/0/key_state").cloned();
    wait_until("the rotation ends", || state() == Some("held".into()));
    desktop.home.client(&["token", "--new"]).unwrap();
    assert!(!desktop.platform.is_valid_key(KEY) && !desktop.items().contains("rotation"));
}
