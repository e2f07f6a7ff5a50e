//! What only Software Hub has: `token --format zen`, the key itself where the configuration allows it and nowhere else,
//! and tokens of a service instance.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::process::Stdio;

use dph_agent_tests::{AgentProcess, KEY, Ran, Scene, program, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Alice's name and key, as the header has them.
fn pair() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("alice:{KEY}"))
}

/// Writes the profile `default`, whose key lies in a file, with more keys of its own.
fn configure(scene: &Scene, more: &str) {
    let (url, key) = (scene.platform.url(), scene.home.write("key", KEY));
    scene.home.write_config(&format!(
        "[profiles.default]\nplatform = \"software-hub\"\nurl = \"{url}\"\nusername = \"alice\"\n\
         ca-file = \"{}\"\nkey-source = \"file:{}\"\n{more}\n",
        scene.ca,
        key.display()
    ));
}

fn configured(more: &str) -> Scene {
    let scene = Scene::new();
    configure(&scene, more);
    scene
}

fn zen(scene: &Scene) -> Ran {
    scene.home.client(&["token", "--format", "zen"])
}

/// Has the configuration read, and waits until it is in force.
fn reload(scene: &Scene, agent: &AgentProcess<'_>) {
    let reads = || scene.home.log().matches("read the configuration").count();
    let before = reads();
    agent.signal(Signal::HUP);
    wait_until("the configuration is read", || reads() > before);
}

#[test]
fn a_header_is_printed_with_the_key_that_was_read_and_no_token_is_bought_for_it() {
    let scene = configured("allow-zen = true");
    let _agent = scene.home.start_agent();
    let ran = zen(&scene);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        (&*format!("Authorization: ZenApiKey {}\n", pair()), "")
    );
    assert_eq!(scene.platform.exchanges(), 0);
    scene.home.client(&["token"]).unwrap();
    assert_eq!(
        zen(&scene).unwrap(),
        format!("Authorization: ZenApiKey {}", pair()),
        "with a key that is held"
    );
    assert_eq!(scene.platform.exchanges(), 1);
}

#[test]
fn a_header_is_refused_unless_the_profile_allows_it_and_no_command_does() {
    let scene = configured("");
    let agent = scene.home.start_agent();
    assert!(zen(&scene).failed_with(8).err.contains("allow-zen"));
    scene.home.client(&["add", "--refresh", "always"]).unwrap();
    zen(&scene).failed_with(8);
    configure(&scene, "allow-zen = true");
    reload(&scene, &agent);
    zen(&scene).unwrap();
    configure(&scene, "allow-zen = false");
    reload(&scene, &agent);
    zen(&scene).failed_with(8);
}

#[test]
fn a_platform_without_such_headers_is_10_and_what_makes_no_sense_is_2() {
    let scene = configured("allow-zen = true");
    let _agent = scene.home.start_agent();
    for option in ["--new", "--min-ttl=1m"] {
        scene.home.client(&["token", "--format", "zen", option]).failed_with(2);
    }
    scene.platform.add_iam_key(KEY);
    let url = scene.platform.url();
    let add = ["add", "--profile", "cloud", "--platform", "ibm-cloud", "--url", &url, "--auth-url", &url];
    let add = [&add[..], &["--ca-file", &scene.ca, "--key-source", "session", "--key-stdin"]].concat();
    scene.home.client_with(&add, KEY).unwrap();
    scene.home.client(&["token", "--profile", "cloud", "--format", "zen"]).failed_with(10);
    scene.home.client(&["token", "--profile", "none", "--format", "zen"]).failed_with(5);
}

#[test]
fn a_locked_agent_and_a_key_that_was_dropped_give_no_header() {
    let scene = configured("allow-zen = true");
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    scene.lock("correct horse battery staple");
    zen(&scene).failed_with(4);
    scene.unlock("correct horse battery staple").unwrap();
    zen(&scene).unwrap();
    scene.home.client(&["forget", "--yes"]).unwrap();
    zen(&scene).failed_with(5);
    let copy = scene.home.write("copy", KEY).display().to_string();
    let to = format!("command:[\"cat\",\"{copy}\"]");
    assert_eq!(scene.home.client(&["migrate", "--to", &to]).status, 5, "nor is it read to be moved");
}

#[test]
fn a_key_that_was_given_for_another_place_is_in_no_header() {
    let scene = configured("allow-zen = true");
    let agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    let elsewhere = "auth-url = \"https://evil.example\"\nallow-zen = true";
    configure(&scene, elsewhere);
    reload(&scene, &agent);
    zen(&scene).failed_with(11);
    drop(agent);
    let _another = scene.home.start_agent();
    let ran = zen(&scene);
    assert!(!ran.failed_with(11).err.contains(KEY), "nor once it is read again");
}

/// Starts a client that asks for a header, and returns it with the number of its request.
fn waiting(scene: &Scene) -> (std::process::Child, String) {
    let mut command = scene.home.command(program("dph-agent-client"));
    command.args(["token", "--format", "zen"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = wait_for("it waits", || {
        let pending = scene.home.client(&["pending", "--json"]).json();
        pending.pointer("/0/id").and_then(Value::as_str).map(str::to_owned)
    });
    (child, id)
}

#[test]
fn a_header_waits_to_be_confirmed_where_tokens_do() {
    let scene = configured("allow-zen = true\nconfirm = true");
    let agent = scene.home.start_agent();
    let end = |child: std::process::Child| Ran::from(child.wait_with_output().unwrap());
    let (refused, id) = waiting(&scene);
    scene.home.client(&["deny", &id]).unwrap();
    end(refused).failed_with(8);
    let (confirmed, id) = waiting(&scene);
    scene.home.client(&["approve", &id]).unwrap();
    assert!(end(confirmed).unwrap().ends_with(&pair()));
    assert!(scene.home.log().contains("wanted=\"the API key itself (ZenApiKey)\""));
    let (undone, id) = waiting(&scene);
    configure(&scene, "allow-zen = false\nconfirm = true");
    reload(&scene, &agent);
    scene.home.client(&["approve", &id]).unwrap();
    end(undone).failed_with(8);
}

#[test]
fn a_program_that_the_policy_does_not_name_gets_no_header() {
    let scene = configured("allow-zen = true\nallow = [\"/bin/true\"]");
    let _agent = scene.home.start_agent();
    zen(&scene).failed_with(8);
}

#[test]
fn each_header_and_each_refusal_is_recorded_without_anything_of_the_key() {
    let scene = configured("allow-zen = true");
    let agent = scene.home.start_agent();
    zen(&scene).unwrap();
    configure(&scene, "allow-zen = false");
    reload(&scene, &agent);
    zen(&scene).failed_with(8);
    agent.stop();
    let log = fs::read_to_string(scene.home.path(".local/state/dph-agent/audit.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<_> = lines.filter(|line| line.get("event").is_some_and(|event| event == "zen")).collect();
    let decisions = |decision: &str| {
        let decided = |line: &&Value| line.get("decision").is_some_and(|it| it == decision);
        lines.iter().filter(decided).count()
    };
    assert!(decisions("granted") >= 1 && decisions("refused") >= 1, "{log}");
    for line in &lines {
        let names_it = line.get("profile").is_some_and(|profile| profile == "default");
        assert_eq!(names_it, line.get("decision").is_some_and(|it| it == "granted"), "{line}");
        assert!(line.get("token").is_none(), "{line}");
    }
    for text in [log, scene.home.log()] {
        assert!(!text.contains(KEY) && !text.contains(&pair()));
    }
}

#[test]
fn tokens_of_a_service_instance_are_bought_from_it_and_another_one_drops_them() {
    let scene = configured("instance-id = \"1001\"\nallow-zen = true");
    let agent = scene.home.start_agent();
    let paths = || scene.platform.requests().into_iter().map(|request| request.path).collect::<Vec<_>>();
    let of = |id: &str| format!("/zen-data/v3/service_instances/{id}/token");
    scene.home.client(&["add"]).unwrap();
    let token = scene.home.client(&["token"]).unwrap();
    let asked = paths().into_iter().filter(|path| path.ends_with("token")).collect::<Vec<_>>();
    assert_eq!(asked, [of("1001")], "`add` proves the key there, too");
    zen(&scene).failed_with(10);
    scene.home.client(&["add", "--refresh", "while-used"]).unwrap();
    assert!(fs::read_to_string(scene.home.config()).unwrap().contains("instance-id = \"1001\""));
    configure(&scene, "instance-id = \"1002\"");
    reload(&scene, &agent);
    let other = scene.home.client(&["token"]).unwrap();
    assert_ne!(token, other);
    assert_eq!(paths().last(), Some(&of("1002")));
}
