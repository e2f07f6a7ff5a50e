//! Keys in files that the passphrase opens, and keys that go from one source to another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dph_agent_tests::{Home, KEY, Scene};

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
    let agent = scene.home.start_agent();
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
    let mut agent = scene.home.start_agent();
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
    let agent = scene.home.start_agent();
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
    let agent = scene.home.start_agent();
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
    let agent = scene.home.start_agent();
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
    let closed = scene.home.client(&["migrate", "--to", &source]);
    closed.failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    let moved = scene.home.client(&["migrate", "--to", &source, "--json"]);
    assert_eq!((&moved.json()["from"], &moved.json()["to"]), (&"sealed".into(), &source.as_str().into()));
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), KEY);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!sealed_file(&scene.home).exists());
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn a_key_is_moved_only_to_a_place_that_is_proven_to_hold_it() {
    let scene = with_passphrase();
    let _agent = scene.warm();
    let other = scene.home.write("other", "another-key");
    let refuse = |to: &str, status| {
        scene.home.client(&["migrate", "--to", to]).failed_with(status);
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
    scene.home.client(&["migrate", "--to", &format!("command:[\"cat\",\"{}\"]", other.display())]).unwrap();
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn a_file_that_another_profile_reads_is_left_and_named() {
    let scene = with_passphrase();
    let _agent = scene.home.start_agent();
    let file = scene.home.write("key", KEY);
    let source = format!("file:{}", file.display());
    scene.add(&source, &[]).unwrap();
    scene.add(&source, &["--profile", "second"]).unwrap();
    let moved = scene.home.client(&["migrate", "--profile", "default", "--to", "sealed"]);
    assert!(moved.ok && moved.err.contains("second"), "{moved:?}");
    assert!(file.exists());
    scene.home.client(&["token", "--profile", "second", "--new"]).unwrap();
}
