//! Keys in files that the passphrase opens, and keys that go from one source to another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dph_agent_tests::{AgentProcess, Home, KEY, Ran, Scene, wait_until};

const PASSPHRASE: &str = "correct horse battery staple";

/// Returns a scene whose agent has a passphrase and is open.
fn with_passphrase() -> Scene {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    agent.stop();
    scene
}

/// Starts an agent that was given the passphrase.
fn start_opened(scene: &Scene) -> AgentProcess<'_> {
    let agent = scene.home.start_agent();
    scene.unlock(PASSPHRASE).unwrap();
    agent
}

fn migrate_with(passphrase: &str, scene: &Scene, to: &str) -> Ran {
    scene.home.client_with(&["migrate", "--to", to, "--passphrase-stdin"], passphrase)
}

fn sealed_file(home: &Home) -> std::path::PathBuf {
    home.path(".local/share/dph-agent/sealed/default.sealed")
}

fn files_with_the_key(home: &Home) -> usize {
    let mut found = 0;
    let mut folders = vec![home.path(".")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap() {
                meta if meta.is_dir() => folders.push(path),
                meta if meta.is_file() => {
                    let text = fs::read(&path).unwrap();
                    found += usize::from(text.windows(KEY.len()).any(|part| part == KEY.as_bytes()));
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn one_unlock_after_a_restart_brings_the_sealed_key_back() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("sealed", &["--key-stdin"]).unwrap();
    scene.home.client(&["token"]).unwrap();
    agent.stop();
    assert_eq!(files_with_the_key(&scene.home), 0, "it lies nowhere in the clear");
    assert_eq!(fs::metadata(sealed_file(&scene.home)).unwrap().permissions().mode() & 0o777, 0o600);

    let _agent = scene.home.start_agent();
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(4).err.contains("unlock"), "{refused:?}");
    assert_eq!(scene.profile()["key_state"], "unavailable");
    scene.home.client(&["ping", "--ready"]).failed_with(4);
    scene.home.client(&["status", "--check", "--quiet"]).failed_with(4);
    scene.unlock("wrong").failed_with(4);
    scene.home.client(&["token"]).failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).unwrap();
    assert_eq!(scene.profile()["key_state"], "held");
}

#[test]
fn a_sealed_key_survives_lock_kill_and_another_passphrase() {
    let scene = with_passphrase();
    let mut agent = start_opened(&scene);
    scene.add("sealed", &["--key-stdin"]).unwrap();
    let change = format!("{PASSPHRASE}\nanother");
    scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], &change).unwrap();
    agent.signal(rustix::process::Signal::KILL);
    agent.wait();
    let _agent = scene.home.start_agent();
    scene.unlock(PASSPHRASE).failed_with(4);
    scene.unlock("another").unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_key_is_not_sealed_without_a_passphrase_and_not_asked_for_either() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    let refused = scene.add("sealed", &["--key-stdin", "--quiet"]);
    assert!(refused.failed_with(2).err.contains("--set-passphrase"), "{refused:?}");
    assert_eq!(scene.platform.exchanges(), 0);
}

#[test]
fn a_damaged_sealed_key_says_so_and_is_kept_aside() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("sealed", &["--key-stdin"]).unwrap();
    agent.stop();
    let path = sealed_file(&scene.home);
    let damaged = fs::read_to_string(&path).unwrap().replacen("\"sealed\": \"", "\"sealed\": \"AAAA", 1);
    fs::write(&path, &damaged).unwrap();
    let _agent = scene.home.start_agent();
    let opened = scene.unlock(PASSPHRASE);
    assert!(opened.ok && opened.err.contains("damaged"), "{opened:?}");
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(12).err.contains("default.damaged"), "{refused:?}");
    assert_eq!(fs::read_to_string(path.with_extension("damaged")).unwrap(), damaged);
    scene.home.client_with(&["add", "--key-stdin"], KEY).unwrap();
    scene.home.client(&["token"]).unwrap();
    scene.home.client(&["forget", "--yes"]).unwrap();
    assert!(!path.exists() && !path.with_extension("damaged").exists(), "nothing is left of a forgotten key");
}

#[test]
fn a_sealed_key_is_not_sent_elsewhere_than_it_was_given_for() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("sealed", &["--key-stdin"]).unwrap();
    agent.stop();
    let text = fs::read_to_string(scene.home.config()).unwrap();
    scene.home.write_config(&text.replace("\"alice\"", "\"mallory\""));
    let _agent = scene.home.start_agent();
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).failed_with(11);
    assert_eq!(scene.profile()["key_state"], "origin-changed");
    assert_eq!(scene.platform.exchanges(), 1, "the one that proved it");
}

#[test]
fn a_key_goes_from_a_file_to_a_sealed_one_and_back_and_lies_in_one_place_only() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    let file = scene.home.write("key", KEY);
    let source = format!("file:{}", file.display());
    scene.add(&source, &[]).unwrap();

    let planned = scene.home.client(&["migrate", "--to", "sealed", "--dry-run"]);
    assert!(planned.ok && planned.err.contains("would be deleted from"), "{planned:?}");
    assert!(file.exists() && !sealed_file(&scene.home).exists(), "a dry run changes nothing");

    scene.home.client(&["migrate", "--to", "sealed"]).unwrap();
    assert_eq!(files_with_the_key(&scene.home), 0, "the old place is cleared");
    assert!(fs::read_to_string(scene.home.config()).unwrap().contains("key-source = \"sealed\""));
    scene.home.client(&["token", "--new"]).unwrap();
    agent.stop();

    let _agent = scene.home.start_agent();
    migrate_with(PASSPHRASE, &scene, &source).failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    let moved = ["migrate", "--to", &source, "--passphrase-stdin", "--json"];
    let moved = scene.home.client_with(&moved, PASSPHRASE);
    assert_eq!((&moved.json()["from"], &moved.json()["to"]), (&"sealed".into(), &source.as_str().into()));
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), KEY);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!sealed_file(&scene.home).exists());
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn a_key_is_moved_only_to_a_place_that_is_proven_to_hold_it() {
    let scene = with_passphrase();
    let _agent = start_opened(&scene);
    scene.add("session", &["--key-stdin"]).unwrap();
    let other = scene.home.write("other", "another-key");
    let refuse = |to: &str, status| {
        migrate_with(PASSPHRASE, &scene, to).failed_with(status);
        assert!(fs::read_to_string(scene.home.config()).unwrap().contains("key-source = \"session\""));
        scene.home.client(&["token", "--new"]).unwrap();
    };
    refuse(&format!("command:[\"cat\",\"{}\"]", other.display()), 12);
    refuse(&format!("file:{}", other.display()), 12);
    refuse("file:/nowhere/at/all/key", 12);
    refuse("credential:none", 12);
    refuse("session", 2);
    refuse("sealde", 2);
    assert_eq!(fs::read_to_string(&other).unwrap(), "another-key", "nothing was written over it");
    fs::write(&other, KEY).unwrap();
    migrate_with(PASSPHRASE, &scene, &format!("command:[\"cat\",\"{}\"]", other.display())).unwrap();
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn a_key_leaves_the_agent_only_with_the_passphrase() {
    let scene = with_passphrase();
    let _agent = start_opened(&scene);
    scene.add("session", &["--key-stdin"]).unwrap();
    let out = scene.home.path("out");
    let to = format!("file:{}", out.display());
    for source in ["session", "sealed"] {
        let asked = scene.home.client(&["migrate", "--to", &to]);
        assert!(asked.failed_with(2).err.contains("--passphrase-stdin"), "{asked:?}");
        migrate_with("wrong", &scene, &to).failed_with(4);
        assert!(!out.exists() && files_with_the_key(&scene.home) == 0, "nothing left the agent");
        let source = format!("key-source = \"{source}\"");
        assert!(fs::read_to_string(scene.home.config()).unwrap().contains(&source), "{source}");
        scene.home.client(&["migrate", "--to", &to, "--dry-run"]).unwrap();
        if source.contains("session") {
            scene.home.client(&["migrate", "--to", "sealed"]).unwrap();
        }
    }
    migrate_with(PASSPHRASE, &scene, &to).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap().trim(), KEY);
}

#[test]
fn a_key_leaves_the_agent_only_past_its_policy() {
    let scene = Scene::new();
    let agent = scene.warm();
    let out = scene.home.path("out");
    let to = format!("file:{}", out.display());
    let put_policy = |policy: &str| {
        let text = fs::read_to_string(scene.home.config()).unwrap();
        let text = text.lines().filter(|line| !line.contains("allow = ")).collect::<Vec<_>>().join("\n");
        scene.home.write_config(&format!("{text}\n{policy}\n"));
        let reads = scene.home.log().matches("read the configuration").count();
        agent.signal(rustix::process::Signal::HUP);
        wait_until("it is read", || scene.home.log().matches("read the configuration").count() > reads);
    };
    put_policy("allow = [\"/nowhere\"]");
    let refused = scene.home.client(&["migrate", "--to", &to]);
    assert!(refused.failed_with(8).err.contains("`allow` of profile `default`"), "{refused:?}");
    put_policy("confirm = true");
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| scene.home.client(&["migrate", "--to", &to]));
        let waiting = || scene.home.client(&["pending", "--json"]).json();
        wait_until("it waits", || !waiting().as_array().unwrap().is_empty());
        assert!(!out.exists(), "nothing leaves before somebody says so");
        scene.home.client(&["list"]).unwrap();
        let id = waiting().pointer("/0/id").unwrap().as_str().unwrap().to_owned();
        scene.home.client(&["deny", &id]).unwrap();
        moving.join().unwrap().failed_with(8);
    });
    assert!(!out.exists());
    scene.home.client(&["migrate", "--to", &to, "--dry-run"]).unwrap();
}

#[test]
fn a_key_that_leaves_the_agent_is_recorded_before_and_does_not_where_it_must_be_and_cannot() {
    let scene = Scene::new();
    scene.home.write_config("audit = \"required\"\n");
    let _agent = scene.warm();
    let out = scene.home.path("out");
    let to = format!("file:{}", out.display());
    let hanging = fs::File::open(scene.home.path(".local/state/dph-agent/audit.lock")).unwrap();
    hanging.lock().unwrap();
    let refused = scene.home.client(&["migrate", "--to", &to]);
    assert!(refused.failed_with(8).err.contains("cannot be recorded"), "{refused:?}");
    assert!(!out.exists() && files_with_the_key(&scene.home) == 0, "nothing left the agent");
    drop(hanging);
    scene.home.client(&["migrate", "--to", &to]).unwrap();
    let log = scene.home.path(".local/state/dph-agent/audit.jsonl");
    wait_until("all is written", || fs::read_to_string(&log).unwrap().contains("\"migrate\",\"profile\""));
    let log = fs::read_to_string(&log).unwrap();
    let (before, behind) = (log.rfind("\"key-out\"").unwrap(), log.rfind("\"migrate\"").unwrap());
    assert!(before < behind, "{log}");
}

#[test]
fn a_file_that_another_profile_reads_is_left_and_named() {
    let scene = with_passphrase();
    let _agent = start_opened(&scene);
    let file = scene.home.write("key", KEY);
    let source = format!("file:{}", file.display());
    scene.add(&source, &[]).unwrap();
    scene.add(&source, &["--profile", "second"]).unwrap();
    let moved = scene.home.client(&["migrate", "--profile", "default", "--to", "sealed"]);
    assert!(moved.ok && moved.err.contains("second"), "{moved:?}");
    assert!(file.exists());
    scene.home.client(&["token", "--profile", "second", "--new"]).unwrap();
}

#[test]
fn nothing_is_sealed_after_a_start_before_the_passphrase_was_given() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("session", &["--key-stdin", "--profile", "other"]).unwrap();
    agent.stop();
    let record = scene.home.path(".local/state/dph-agent/lock.json");
    let text = fs::read_to_string(&record).unwrap();
    let mut exchanged: serde_json::Value = serde_json::from_str(&text).unwrap();
    // The public half of somebody who waits for what is sealed to it.
    let stranger = "jSC6GYSUd+cqDUGKXuzXEpQHsbcnVJMO4UuWGtQQUxo=";
    *exchanged.pointer_mut("/passphrase/public").unwrap() = stranger.into();
    for (text, opens) in [(exchanged.to_string(), false), (text, true)] {
        fs::write(&record, text).unwrap();
        let agent = scene.home.start_agent();
        let exchanges = scene.platform.exchanges();
        let refused = scene.add("sealed", &["--key-stdin", "--quiet", "--profile", "default"]);
        assert!(refused.failed_with(4).err.contains("dph-agent-client unlock"), "{refused:?}");
        assert_eq!(scene.platform.exchanges(), exchanges, "the key was not even proven");
        scene.home.client_with(&["add", "--profile", "other", "--key-stdin"], KEY).unwrap();
        let refused = scene.home.client(&["migrate", "--profile", "other", "--to", "sealed"]);
        assert!(refused.failed_with(4).err.contains("dph-agent-client unlock"), "{refused:?}");
        assert_eq!(scene.unlock(PASSPHRASE).ok, opens);
        assert_eq!(scene.add("sealed", &["--key-stdin", "--quiet", "--profile", "default"]).ok, opens);
        agent.stop();
    }
    assert!(sealed_file(&scene.home).exists());
}

/// Holds up whoever wants to write the configuration.
fn hold_configuration(scene: &Scene) -> fs::File {
    let lock = fs::File::open(scene.home.path(".config/dph-agent/config.toml.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// Has something `happen` while an `add` has put its key on the disk and has not ended.
fn overtaken(scene: &Scene, happen: impl FnOnce()) -> Ran {
    let held = hold_configuration(scene);
    let refused = std::thread::scope(|scope| {
        let adding = scope.spawn(|| scene.add("sealed", &["--key-stdin", "--quiet", "--profile", "default"]));
        wait_until("the key is on the disk", || sealed_file(&scene.home).exists());
        happen();
        drop(held);
        adding.join().unwrap()
    });
    assert!(refused.err.contains("no key of profile `default` is kept"), "{refused:?}");
    assert!(!sealed_file(&scene.home).exists());
    refused
}

#[test]
fn an_add_that_the_lock_overtakes_leaves_no_key_on_the_disk() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("session", &["--key-stdin", "--profile", "other"]).unwrap();
    overtaken(&scene, || drop(scene.home.client(&["lock"]).unwrap())).failed_with(4);
    agent.stop();
}

#[test]
fn an_add_that_a_signal_overtakes_keeps_nothing_and_one_after_it_does() {
    let scene = with_passphrase();
    let agent = start_opened(&scene);
    scene.add("session", &["--key-stdin", "--profile", "other"]).unwrap();
    let signal = || {
        agent.signal(rustix::process::Signal::USR1);
        wait_until("all are dropped", || scene.home.log().contains("dropped by a signal"));
    };
    overtaken(&scene, signal).failed_with(5);
    scene.home.client(&["token", "--profile", "default"]).failed_with(5);
    scene.add("sealed", &["--key-stdin", "--quiet", "--profile", "default"]).unwrap();
    scene.home.client(&["token", "--profile", "default"]).unwrap();
}
