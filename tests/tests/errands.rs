//! Requests that change something: carried out whole, in an order in which none waits for another for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;

use dph_agent_tests::{KEY, Scene, program, wait_until};

/// A key command that holds up whoever runs it.
struct Command {
    /// As a key source.
    source: String,
    /// There once it holds somebody up.
    holds: PathBuf,
    /// Made by whoever lets it go on.
    go: PathBuf,
}

impl Command {
    /// Makes one that holds up its second run, or every one.
    fn new(scene: &Scene, only_second: bool) -> Self {
        let (holds, go) = (scene.home.path("holds"), scene.home.path("go"));
        let (first, key) = (scene.home.path("first"), scene.home.write("kept", KEY));
        let [here, until, first, key] = [&holds, &go, &first, &key].map(|path| path.display().to_string());
        let wait = format!("touch {here}; while ! test -e {until}; do sleep 0.02; done");
        let script = match only_second {
            true => format!("if test -e {first}; then {wait}; fi; touch {first}; cat {key}"),
            false => format!("{wait}; cat {key}"),
        };
        Self { source: format!("command:[\"sh\",\"-c\",\"{script}\"]"), holds, go }
    }

    fn holds_somebody_up(&self) {
        wait_until("the command runs", || self.holds.exists());
    }

    fn let_go(&self) {
        fs::write(&self.go, "").unwrap();
    }
}

fn start(scene: &Scene, arguments: &[&str]) -> Child {
    let mut client = scene.home.command(program("dph-agent-client"));
    client.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn vanish(mut client: Child) {
    client.kill().unwrap();
    client.wait().unwrap();
}

fn config(scene: &Scene) -> String {
    fs::read_to_string(scene.home.config()).unwrap()
}

fn audit(scene: &Scene) -> String {
    fs::read_to_string(scene.home.path(".local/state/dph-agent/audit.jsonl")).unwrap()
}

/// Has a caller vanish while its key is written to the new place, and waits until the agent has noticed.
fn vanish_in_the_middle(scene: &Scene) -> Command {
    let command = Command::new(scene, true);
    let caller = start(scene, &["migrate", "--to", &command.source]);
    command.holds_somebody_up();
    vanish(caller);
    wait_until("it is noticed", || scene.home.log().contains("a client has gone before its answer"));
    command
}

#[test]
fn a_move_whose_caller_has_gone_is_carried_out_to_its_end_and_recorded() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let command = vanish_in_the_middle(&scene);
    assert!(config(&scene).contains("key-source = \"session\""));
    command.let_go();
    wait_until("the file says so", || config(&scene).contains("command:"));
    wait_until("it is recorded", || audit(&scene).contains("\"migrate\",\"profile\":\"default\""));
    assert_eq!(scene.profile()["key_source"], "command", "the agent goes by it");
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn the_agents_end_waits_for_what_was_begun() {
    let scene = Scene::new();
    let mut agent = scene.warm();
    let command = vanish_in_the_middle(&scene);
    scene.home.client(&["stop"]).unwrap();
    command.let_go();
    assert_eq!(agent.wait(), 0, "{}", scene.home.log());
    assert!(config(&scene).contains("command:"), "it was carried out");
    assert!(audit(&scene).contains("\"migrate\",\"profile\":\"default\""), "and recorded");
}

#[test]
fn a_move_that_waits_to_be_confirmed_is_forgotten_with_who_asked() {
    let scene = Scene::new();
    let agent = scene.warm();
    scene.home.write_config(&format!("{}\nconfirm = true\n", config(&scene)));
    agent.signal(rustix::process::Signal::HUP);
    wait_until("it is read", || scene.home.log().contains("read the configuration"));
    let out = scene.home.path("out");
    let caller = start(&scene, &["migrate", "--to", &format!("file:{}", out.display())]);
    let waiting = || scene.home.client(&["pending", "--json"]).json().as_array().unwrap().len();
    wait_until("it waits", || waiting() == 1);
    vanish(caller);
    wait_until("nobody waits any more", || waiting() == 0);
    assert!(!out.exists());
}

#[test]
fn a_removal_and_two_moves_at_once_do_not_wait_for_each_other_for_ever() {
    let scene = Scene::new();
    let _agent = scene.warm();
    for name in ["second", "third"] {
        scene.add("session", &["--key-stdin", "--profile", name]).unwrap();
    }
    let (command, out) = (Command::new(&scene, false), scene.home.path("out"));
    let out = format!("file:{}", out.display());
    let migrate = |name, to| scene.home.client(&["migrate", "--profile", name, "--to", to]);
    let asked = |what: &str| scene.home.log().matches(&format!("request=\"{what}\"")).count();
    thread::scope(|scope| {
        let first = scope.spawn(|| migrate("default", &command.source));
        command.holds_somebody_up();
        let second = scope.spawn(|| migrate("second", &out));
        let third = scope.spawn(|| scene.home.client(&["remove", "--profile", "third", "--yes"]));
        // The first request to remove only says what would be removed.
        wait_until("all are asked", || asked("migrate") == 2 && asked("remove") == 2);
        // What they asked of the vault before they wait is answered when this is.
        scene.home.client(&["status"]).unwrap();
        command.let_go();
        for done in [first, second, third] {
            done.join().unwrap().unwrap();
        }
    });
    scene.home.client(&["default", "second"]).unwrap();
}

#[test]
fn a_removal_that_is_refused_deletes_no_key() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.lock("a passphrase");
    scene.unlock("a passphrase").unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    scene.home.write_config(&format!("# changed by hand\n{}", config(&scene)));
    scene.home.client(&["remove", "--yes"]).failed_with(11);
    agent.stop();
    let _agent = scene.home.start_agent();
    scene.unlock("a passphrase").unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_key_that_cannot_be_deleted_is_named_though_its_profile_has_gone() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    scene.lock("a passphrase");
    scene.unlock("a passphrase").unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    let sealed = scene.home.path(".local/share/dph-agent/sealed/default.sealed");
    fs::remove_file(&sealed).unwrap();
    fs::create_dir(&sealed).unwrap();
    let left = scene.home.client(&["remove", "--yes"]);
    left.failed_with(12);
    assert!(left.err.contains("removed, but a key is still there (default in sealed)"), "{left:?}");
    assert!(!config(&scene).contains("[profiles.default]"));
}
