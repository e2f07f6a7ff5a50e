//! The lock, as a user and an attacker meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use dph_agent_mock_platform::{Endpoint, Fault, Times};
use dph_agent_tests::{KEY, Scene, program, run, wait_until};
use rustix::process::Signal;

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn a_locked_agent_refuses_at_once_and_opens_with_the_key_it_had() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let token = scene.home.client(&["token"]).unwrap();
    scene.lock(PASSPHRASE);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..50 {
                    scene.home.client(&["token"]).failed_with(4);
                }
            });
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_eq!(scene.platform.exchanges(), 1, "nothing is bought while locked");
    scene.unlock("wrong").failed_with(4);
    assert!(scene.is_locked());
    scene.unlock(PASSPHRASE).unwrap();
    assert_eq!(scene.home.client(&["token"]).unwrap(), token, "the token was sealed, too");
    scene.home.client(&["token", "--new"]).unwrap();
    assert_eq!(scene.platform.exchanges(), 1, "a token just bought is new");
}

#[test]
fn a_locked_agent_says_the_same_of_what_exists_and_what_does_not() {
    let scene = Scene::new();
    let _agent = scene.warm();
    scene.lock(PASSPHRASE);
    let refused = |profile: &str| {
        let ran = scene.home.client(&["token", "--profile", profile]);
        ran.failed_with(4);
        ran.err
    };
    assert_eq!(refused("default"), refused("nobody"));
    let status = scene.home.client(&["status", "--json", "--profile", "nobody"]).json();
    assert_eq!(status["profiles"].as_array().unwrap().len(), 0);
    for command in
        [&["list"][..], &["default"], &["refresh"], &["forget", "--yes"], &["remove", "--all", "--yes"]]
    {
        scene.home.client(command).failed_with(4);
    }
    scene.home.client(&["ping"]).unwrap();
    scene.home.client(&["lock"]).unwrap();
}

#[test]
fn a_locked_agent_that_is_killed_starts_locked() {
    let scene = Scene::new();
    let mut agent = scene.warm();
    scene.lock(PASSPHRASE);
    agent.signal(Signal::KILL);
    agent.wait();
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).failed_with(4);
    scene.unlock("wrong").failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).failed_with(5);
}

#[test]
fn a_damaged_record_leaves_the_agent_locked_and_stays_as_it_is() {
    let scene = Scene::new();
    let agent = scene.warm();
    scene.lock(PASSPHRASE);
    agent.stop();
    let record = scene.home.path(".local/state/dph-agent/lock.json");
    fs::write(&record, "{\"version\":1,").unwrap();
    let _agent = scene.home.start_agent();
    assert!(scene.is_locked());
    let refused = scene.unlock(PASSPHRASE);
    assert!(refused.failed_with(4).err.contains("lock.json"), "{refused:?}");
    assert_eq!(fs::read_to_string(&record).unwrap(), "{\"version\":1,");
}

#[test]
fn without_a_passphrase_a_lock_drops_keys_and_an_unlock_reads_the_sources_again() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    let file = scene.home.write("key", KEY);
    scene.add(&format!("file:{}", file.display()), &[]).unwrap();
    let locked = scene.home.client(&["lock"]);
    assert!(locked.ok && locked.err.contains("not a keyring or file"), "{locked:?}");
    scene.home.client(&["token"]).failed_with(4);
    scene.home.client(&["unlock"]).unwrap();
    scene.home.client(&["token"]).unwrap();
    assert_eq!(scene.platform.exchanges(), 2, "the token was dropped");
}

#[test]
fn a_lock_ends_an_exchange_and_an_add_that_hang_and_keeps_nothing_of_them() {
    let scene = Scene::new();
    let _agent = scene.warm();
    scene.platform.script(Endpoint::Authorize, Fault::Hang, Times::Forever);
    let (home, began) = (&scene.home, scene.platform.exchanges());
    let url = scene.platform.url();
    let add =
        ["add", "--profile", "other", "--platform", "software-hub", "--username", "alice", "--url", &url];
    let add =
        [&add[..], &["--ca-file", &scene.ca, "--key-source", "session", "--key-stdin", "--quiet"]].concat();
    thread::scope(|scope| {
        let adding = scope.spawn(|| home.client_with(&add, KEY));
        let waiting = scope.spawn(|| home.client(&["refresh", "--profile", "default"]));
        assert!(scene.platform.wait_for_exchanges(began + 2, dph_agent_tests::PATIENCE));
        let begin = Instant::now();
        scene.lock(PASSPHRASE);
        waiting.join().unwrap().failed_with(4);
        adding.join().unwrap().failed_with(4);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    });
    scene.platform.clear_scripts();
    scene.unlock(PASSPHRASE).unwrap();
    home.client(&["token"]).unwrap();
    home.client(&["token", "--profile", "other"]).failed_with(5);
}

#[test]
fn forget_all_works_while_locked() {
    let scene = Scene::new();
    let _agent = scene.warm();
    scene.lock(PASSPHRASE);
    scene.home.client(&["forget", "--all", "--yes"]).unwrap();
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).failed_with(5);
}

#[test]
fn another_passphrase_takes_the_one_before() {
    let scene = Scene::new();
    let _agent = scene.warm();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    let set =
        |lines: &str| scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], lines);
    set("wrong\nanother").failed_with(4);
    assert!(!scene.is_locked());
    set(&format!("{PASSPHRASE}\nanother")).unwrap();
    scene.unlock(PASSPHRASE).failed_with(4);
    scene.unlock("another").unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn many_wrong_passphrases_at_once_are_refused_or_turned_away_and_hold_up_nobody() {
    let scene = Scene::new();
    let _agent = scene.warm();
    scene.lock(PASSPHRASE);
    let home = &scene.home;
    thread::scope(|scope| {
        let tries: Vec<_> = (0..40)
            .map(|_| {
                let unlock = ["unlock", "--passphrase-stdin", "--timeout", "3s"];
                scope.spawn(move || home.client_with(&unlock, "wrong"))
            })
            .collect();
        for _ in 0..20 {
            scene.home.client(&["ping", "--timeout", "5s"]).unwrap();
        }
        let statuses: Vec<_> = tries.into_iter().map(|run| run.join().unwrap().status).collect();
        assert!(statuses.iter().all(|status| [4, 9].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&9) && statuses.contains(&4), "{statuses:?}");
    });
    assert!(scene.is_locked());
}

#[test]
fn an_idle_agent_locks_by_itself() {
    let scene = Scene::new();
    let agent = scene.warm();
    scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], PASSPHRASE).unwrap();
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).unwrap();
    let text = fs::read_to_string(scene.home.config()).unwrap();
    scene.home.write_config(&format!("idle-lock = \"1s\"\n{text}"));
    agent.signal(Signal::HUP);
    wait_until("the agent locks", || scene.is_locked());
    scene.home.client(&["token"]).failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn an_automatic_lock_that_would_lose_keys_is_refused_by_check_config_until_a_passphrase_is_set() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let text = fs::read_to_string(scene.home.config()).unwrap();
    scene.home.write_config(&format!("max-unlocked = \"8h\"\n{text}"));
    let check = || run(scene.home.command(program("dph-agent")).arg("check-config"), "");
    let refused = check();
    assert!(refused.status == 1 && refused.err.contains("--set-passphrase"), "{refused:?}");
    scene.lock(PASSPHRASE);
    check().unwrap();
}

#[test]
fn no_file_of_the_home_holds_key_token_or_passphrase() {
    let scene = Scene::new();
    let _agent = scene.warm();
    let token = scene.home.client(&["token"]).unwrap();
    scene.lock(PASSPHRASE);
    let mut looked_at = 0;
    look_through(&scene.home.path("."), &mut |path, bytes| {
        looked_at += 1;
        for secret in [KEY, PASSPHRASE, &token] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", path.display());
        }
    });
    assert!(looked_at >= 3, "record, configuration and log were looked at");
}

fn look_through(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        if kind.is_dir() {
            look_through(&path, look);
        } else if kind.is_file() {
            look(&path, &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn a_key_given_for_a_time_is_wiped_when_that_is_over_and_status_says_why() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.add("session", &["--key-stdin", "--ttl", "2s"]).unwrap();
    scene.home.client(&["token"]).unwrap();
    assert!(scene.profile()["key_expires_at"].is_string());
    wait_until("the key is wiped", || scene.profile()["key_state"] == "none");
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(5).err.contains("time that it was given for is over"), "{refused:?}");
    let error = &scene.profile()["last_error"];
    assert!(error["message"].as_str().unwrap().contains("is over") && error["since"].is_string(), "{error}");
    scene.home.client_with(&["add", "--key-stdin"], KEY).unwrap();
    scene.home.client(&["token"]).unwrap();
    agent.stop();
}

#[test]
fn a_key_given_for_a_time_is_wiped_while_it_is_sealed_too() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    scene.add("session", &["--key-stdin", "--ttl", "1s"]).unwrap();
    scene.lock(PASSPHRASE);
    wait_until("its time is over", || scene.home.log().contains("is over: wiped"));
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).failed_with(5);
}

#[test]
fn a_time_is_refused_for_a_key_that_would_outlive_it() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    let file = scene.home.write("key", KEY);
    let refused = scene.add(&format!("file:{}", file.display()), &["--ttl", "1h", "--quiet"]);
    assert!(refused.failed_with(2).err.contains("--key-source session"), "{refused:?}");
    scene.add("session", &["--key-stdin", "--ttl", "0", "--quiet"]).failed_with(2);
}

#[test]
fn a_signal_drops_all_secrets_until_the_user_says_otherwise() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    let file = scene.home.write("key", KEY);
    scene.add(&format!("file:{}", file.display()), &[]).unwrap();
    scene.home.client(&["token"]).unwrap();
    agent.signal(Signal::USR1);
    wait_until("the key is dropped", || scene.profile()["key_state"] == "none");
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(5).err.contains("SIGUSR1"), "{refused:?}");
    scene.home.client(&["refresh"]).failed_with(5);
    assert_eq!(scene.platform.exchanges(), 1, "the source is not read");
    scene.home.client(&["unlock"]).unwrap();
    scene.home.client(&["token"]).unwrap();

    agent.signal(Signal::USR1);
    wait_until("the key is dropped again", || scene.profile()["key_state"] == "none");
    scene.home.client(&["add"]).unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_reload_brings_back_nothing_that_a_signal_dropped() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    let file = scene.home.write("key", KEY);
    scene.add(&format!("file:{}", file.display()), &["--refresh", "always"]).unwrap();
    agent.signal(Signal::USR1);
    wait_until("the key is dropped", || scene.profile()["key_state"] == "none");
    let exchanges = scene.platform.exchanges();
    let text = fs::read_to_string(scene.home.config()).unwrap();
    for (reads, more) in [(1, ""), (2, "proxy = \"none\"\n")] {
        scene.home.write_config(&format!("{text}{more}"));
        agent.signal(Signal::HUP);
        wait_until("it is read", || scene.home.log().matches("read the configuration").count() == reads);
        let refused = scene.home.client(&["token"]);
        assert!(refused.failed_with(5).err.contains("SIGUSR1"), "{refused:?}");
        assert_eq!((&scene.profile()["key_state"], scene.platform.exchanges()), (&"none".into(), exchanges));
    }
    scene.home.client(&["unlock"]).unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_signal_drops_what_is_sealed_too() {
    let scene = Scene::new();
    let agent = scene.warm();
    scene.lock(PASSPHRASE);
    agent.signal(Signal::USR1);
    wait_until("the key is dropped", || scene.home.log().contains("dropped by a signal"));
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).failed_with(5);
}
