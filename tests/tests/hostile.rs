//! What a config editor, an impatient user and callers that vanish must not be able to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::process::Stdio;

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
use dph_agent_tests::{Home, program, wait_until};
use rustix::process::Signal;

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";

fn platform(home: &Home, name: &str) -> (MockPlatform, String) {
    let platform = MockPlatform::start();
    platform.add_user("alice", KEY);
    let folder = home.path(name);
    fs::create_dir_all(&folder).unwrap();
    let ca = platform.write_ca(&folder).canonicalize().unwrap().display().to_string();
    (platform, ca)
}

fn profile(platform: &MockPlatform, ca: &str, source: &str) -> String {
    let url = platform.url();
    format!(
        "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{url}\"\nusername = \"alice\"\nca-file = \"{ca}\"\nkey-source = \"{source}\"\n"
    )
}

#[test]
fn a_session_key_is_not_asked_for_again_for_a_place_that_nobody_named() {
    let home = Home::new();
    redirected_behind_the_users_back(&home, "session", &["--key-stdin"]);
}

#[test]
fn a_key_file_is_not_sent_by_add_to_a_place_that_nobody_named() {
    let home = Home::new();
    let source = format!("file:{}", home.write("key", KEY).display());
    redirected_behind_the_users_back(&home, &source, &[]);
}

/// Redirects a profile by an edit of its configuration, and adds its key again: refused with both places, and
/// accepted where the user says so.
fn redirected_behind_the_users_back(home: &Home, source: &str, key_option: &[&str]) {
    let ((good, ca), (evil, evil_ca)) = (platform(home, "good"), platform(home, "evil"));
    home.write_config(&profile(&good, &ca, source));
    let agent = home.start_agent();
    let add = [&["add", "--profile", "prod"], key_option].concat();
    home.client_with(&add, KEY).unwrap();
    home.write_config(&(profile(&good, &evil_ca, source) + &format!("auth-url = \"{}\"\n", evil.url())));
    agent.signal(Signal::HUP);
    wait_until("the change is in force", || home.client(&["token"]).status == 11);
    let told = home.client(&["token"]);
    assert!(told.err.contains(&good.url()) && told.err.contains(&evil.url()), "{told:?}");
    let refused = home.client_with(&add, KEY);
    assert!(refused.status == 2 && refused.err.contains("--replace"), "{refused:?}");
    assert_eq!(evil.exchanges(), 0, "{:?}", evil.requests());
    home.client_with(&[&add[..], &["--replace"]].concat(), KEY).unwrap();
    assert_eq!(evil.exchanges(), 1, "the user said so");
}

#[test]
fn a_new_url_is_where_the_key_goes() {
    let home = Home::new();
    let ((old, ca), (new, new_ca)) = (platform(&home, "old"), platform(&home, "new"));
    let _agent = home.start_agent();
    let (old_url, new_url) = (old.url(), new.url());
    let add = ["add", "--platform", "software-hub", "--username", "alice", "--key-stdin"];
    let first = [&add[..], &["--url", &old_url, "--auth-url", &old_url, "--ca-file", &ca]].concat();
    let first = [&first[..], &["--key-source", "session"]].concat();
    home.client_with(&first, KEY).unwrap();
    let second =
        ["add", "--profile", "default", "--url", &new_url, "--ca-file", &new_ca, "--key-stdin", "--replace"];
    home.client_with(&second, KEY).unwrap();
    assert_eq!((old.exchanges(), new.exchanges()), (1, 1), "the key was proven where the user said");
    let config = fs::read_to_string(home.config()).unwrap();
    assert!(!config.contains(&old_url), "{config}");
}

#[test]
fn a_command_that_fails_changes_nothing() {
    let home = Home::new();
    let (platform, ca) = platform(&home, "p");
    let _agent = home.start_agent();
    let url = platform.url();
    let add = ["add", "--platform", "software-hub", "--url", &url, "--username", "alice", "--ca-file", &ca];
    home.client_with(&[&add[..], &["--key-source", "session", "--key-stdin"]].concat(), KEY).unwrap();
    let config = fs::read_to_string(home.config()).unwrap();
    home.write_config(&format!("# changed by hand\n{config}"));
    home.client(&["remove", "--yes"]).failed_with(11);
    home.client(&["token"]).unwrap();
}

#[test]
fn a_forgotten_key_stays_forgotten_while_other_things_change() {
    let home = Home::new();
    let (platform, ca) = platform(&home, "p");
    let source = format!("file:{}", home.write("key", KEY).display());
    home.write_config(&profile(&platform, &ca, &source));
    let _agent = home.start_agent();
    home.client(&["token"]).unwrap();
    home.client(&["forget", "--yes"]).unwrap();
    home.client(&["default", "prod"]).unwrap();
    home.client(&["token"]).failed_with(5);
}

#[test]
fn a_refused_key_is_not_tried_again_because_something_else_changes() {
    let home = Home::new();
    let (platform, ca) = platform(&home, "p");
    let source = format!("file:{}", home.write("key", "a-key-that-nobody-knows").display());
    home.write_config(&profile(&platform, &ca, &source));
    let _agent = home.start_agent();
    for _change in 0..10 {
        home.client(&["token"]).failed_with(6);
        home.client(&["default", "prod"]).unwrap();
    }
    assert!(platform.exchanges() <= 2, "{}", platform.exchanges());
}

#[test]
fn callers_who_vanish_while_the_platform_hangs_are_in_nobodys_way() {
    let home = Home::new();
    let (platform, ca) = platform(&home, "p");
    let source = format!("file:{}", home.write("key", KEY).display());
    home.write_config(&profile(&platform, &ca, &source));
    let _agent = home.start_agent();
    platform.script(Endpoint::Authorize, Fault::Hang, Times::Forever);
    for _wave in 0..3 {
        let mut callers: Vec<_> = (0..200)
            .map(|_| {
                let mut client = home.command(program("dph-agent-client"));
                client.arg("token").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for caller in &mut callers {
            caller.kill().unwrap();
            caller.wait().unwrap();
        }
    }
    wait_until("there is room again", || home.client(&["ping"]).ok);
}

#[test]
fn who_waits_when_the_agent_stops_is_told_so() {
    let home = Home::new();
    let (platform, ca) = platform(&home, "p");
    let source = format!("file:{}", home.write("key", KEY).display());
    home.write_config(&profile(&platform, &ca, &source));
    let mut agent = home.start_agent();
    platform.script(Endpoint::Authorize, Fault::Hang, Times::Forever);
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| home.client(&["token"]));
        assert!(platform.wait_for_exchanges(1, dph_agent_tests::PATIENCE));
        agent.signal(Signal::TERM);
        waiting.join().unwrap()
    });
    assert!(waiting.err.contains("the agent is stopping"), "{waiting:?}");
    assert_eq!(agent.wait(), 0);
}
