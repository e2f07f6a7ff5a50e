//! One command makes a key invalid, also when the platform is away for a while, and never another key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::thread;

use dph_agent_mock_platform::{Endpoint, Fault, Times};
use dph_agent_secret::scan;
use dph_agent_tests::{AgentProcess, KEY, PATIENCE, Ran, Scene, wait_until};
use rustix::process::Signal;

const PASSPHRASE: &str = "correct horse battery staple";

fn scene() -> Scene {
    let scene = Scene::new();
    scene.platform.allow_key_generation();
    scene
}

/// Returns a scene whose agent reads alice's key from a file, and that agent.
fn with_a_file(scene: &Scene) -> AgentProcess<'_> {
    let file = scene.home.write("key", KEY);
    let agent = scene.home.start_agent();
    scene.add(&format!("file:{}", file.display()), &[]).unwrap();
    agent
}

fn revoke(scene: &Scene, more: &[&str]) -> Ran {
    scene.home.client(&[&["revoke", "--yes"], more].concat())
}

fn generated(scene: &Scene) -> usize {
    scene.platform.requests().iter().filter(|request| request.endpoint == Endpoint::GenerateKey).count()
}

fn wishes(scene: &Scene) -> usize {
    let files =
        fs::read_dir(scene.home.path(".local/state/dph-agent/changes")).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|ending| ending == "json")).count()
}

#[test]
fn a_revoked_key_is_refused_by_the_platform_and_gone_from_the_agent() {
    let scene = scene();
    let agent = scene.warm();
    let token = scene.home.client(&["token"]).unwrap();
    let done = revoke(&scene, &["--json"]);
    assert_eq!((done.ok, &done.json()["outcome"]), (true, &"revoked".into()), "{done:?}");
    assert!(done.json()["tokens_until"].is_string(), "what stays valid is told with the time");
    assert!(!scene.platform.is_valid_key(KEY));
    assert_eq!(generated(&scene), 1);
    scene.home.client(&["token"]).failed_with(5);
    assert_eq!(scene.profile()["key_state"], "none");
    assert_eq!(wishes(&scene), 0);
    if rustix::process::geteuid().is_root() {
        let signature = token.rsplit('.').next().unwrap().to_owned();
        wait_until("nothing of it is in memory", || {
            scan::process(agent.pid(), &[KEY.as_bytes(), signature.as_bytes()]).unwrap().found.is_empty()
        });
    }
    let audit = scene.home.client(&["audit", "--json"]).unwrap();
    assert_eq!(audit.matches("\"event\":\"revoke\"").count(), 2, "the wish and its end: {audit}");
    assert!(!audit.contains(KEY));
}

#[test]
fn a_revoke_outlasts_an_outage_and_a_restart_of_the_agent() {
    let scene = scene();
    let agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    scene.platform.stop_listening();
    let away = revoke(&scene, &[]);
    assert!(away.failed_with(7).err.contains("goes on trying"), "{away:?}");
    assert_eq!(scene.profile()["key_state"], "revoking");
    scene.home.client(&["token"]).failed_with(5);
    agent.signal(Signal::KILL);
    drop(agent);

    let agent = scene.home.start_agent();
    assert_eq!(scene.profile()["key_state"], "revoking");
    scene.home.client(&["token"]).failed_with(5);
    scene.platform.listen_again();
    assert!(scene.platform.is_valid_key(KEY), "what is sealed can be revoked when it is opened");
    scene.unlock(PASSPHRASE).unwrap();
    wait_until("it is revoked", || !scene.platform.is_valid_key(KEY));
    wait_until("the agent knows", || scene.profile()["key_state"] == "none");
    assert_eq!((generated(&scene), wishes(&scene)), (1, 0));
    assert!(!scene.home.path(".local/share/dph-agent/sealed/default.sealed").exists());
    if rustix::process::geteuid().is_root() {
        wait_until("nothing of it is in memory", || {
            scan::process(agent.pid(), &[KEY.as_bytes()]).unwrap().found.is_empty()
        });
    }
}

#[test]
fn a_key_that_was_made_elsewhere_while_a_revoke_was_pending_stays_alive() {
    let scene = scene();
    let agent = with_a_file(&scene);
    scene.platform.stop_listening();
    revoke(&scene, &[]).failed_with(7);
    let newer = scene.platform.generate_key_elsewhere("alice");
    agent.signal(Signal::KILL);
    drop(agent);
    let _agent = scene.home.start_agent();
    scene.platform.listen_again();
    let done = revoke(&scene, &["--wait", "--json"]);
    assert_eq!(done.json()["outcome"], "already-invalid", "{done:?}");
    assert!(scene.platform.is_valid_key(&newer));
    assert_eq!(generated(&scene), 0);
}

#[test]
fn an_answer_that_is_lost_is_made_up_for_by_a_look_at_the_old_key() {
    let scene = scene();
    let _agent = scene.warm();
    scene.platform.script(Endpoint::GenerateKey, Fault::DropAnswer, Times::N(1));
    revoke(&scene, &[]).unwrap();
    assert_eq!((scene.platform.is_valid_key(KEY), generated(&scene)), (false, 1));
}

#[test]
fn a_kill_between_the_call_and_its_end_makes_no_second_call() {
    let scene = scene();
    let agent = with_a_file(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Hang, Times::N(1));
    let waiting = ["revoke", "--yes", "--timeout", "1s"];
    scene.home.client(&waiting).failed_with(9);
    agent.signal(Signal::KILL);
    drop(agent);
    // The call hung, and something ended the key: the agent cannot tell who, and calls nobody for it.
    let newer = scene.platform.generate_key_elsewhere("alice");
    let _agent = scene.home.start_agent();
    revoke(&scene, &["--wait"]).unwrap();
    assert_eq!(generated(&scene), 1, "the one that hung");
    assert!(scene.platform.is_valid_key(&newer));
}

#[test]
fn a_revoke_is_taken_back_as_long_as_nothing_was_sent() {
    let scene = scene();
    let _agent = with_a_file(&scene);
    scene.home.client(&["revoke", "--cancel"]).failed_with(2);
    scene.platform.stop_listening();
    revoke(&scene, &[]).failed_with(7);
    scene.home.client(&["add"]).failed_with(2);
    scene.home.client(&["migrate", "--to", "session"]).failed_with(2);
    scene.home.client(&["revoke", "--cancel"]).unwrap();
    scene.platform.listen_again();
    scene.home.client(&["token"]).unwrap();
    assert_eq!((wishes(&scene), generated(&scene)), (0, 0));
    assert!(scene.platform.is_valid_key(KEY));
}

#[test]
fn a_revoke_pauses_while_the_agent_is_locked() {
    let scene = scene();
    let _agent = scene.warm();
    scene.platform.stop_listening();
    revoke(&scene, &[]).failed_with(7);
    scene.lock(PASSPHRASE);
    scene.platform.listen_again();
    revoke(&scene, &[]).failed_with(4);
    scene.unlock(PASSPHRASE).unwrap();
    wait_until("it is revoked", || !scene.platform.is_valid_key(KEY));
}

#[test]
fn a_key_of_ibm_cloud_is_deleted_and_the_others_of_the_user_live_on() {
    let scene = scene();
    scene.platform.add_named_iam_key("the-one", KEY);
    scene.platform.add_named_iam_key("another", "another-key-0123456789-0123456789-01");
    let _agent = scene.home.start_agent();
    let url = scene.platform.url();
    let add = ["add", "--platform", "ibm-cloud", "--url", &url, "--auth-url", &url, "--ca-file", &scene.ca];
    let add = [&add[..], &["--key-source", "session", "--key-stdin"]].concat();
    scene.home.client_with(&add, KEY).unwrap();
    scene.platform.set_iam_key_locked(KEY, true);
    let locked = revoke(&scene, &[]);
    assert!(locked.failed_with(8).err.contains("`the-one`") && locked.err.contains("unlock"), "{locked:?}");
    scene.home.client(&["token", "--new"]).unwrap();
    scene.platform.set_iam_key_locked(KEY, false);
    revoke(&scene, &[]).unwrap();
    assert_eq!(scene.platform.iam_key_names(), ["another"]);
    scene.home.client(&["token"]).failed_with(5);
}

#[test]
fn a_platform_without_an_interface_is_said_so_with_the_steps() {
    let scene = scene();
    scene.platform.add_mcsp_key(KEY);
    let _agent = scene.home.start_agent();
    let url = scene.platform.url();
    let add = ["add", "--platform", "mcsp", "--url", &url, "--auth-url", &url, "--ca-file", &scene.ca];
    let add = [&add[..], &["--key-source", "session", "--key-stdin"]].concat();
    scene.home.client_with(&add, KEY).unwrap();
    let refused = revoke(&scene, &[]);
    assert!(refused.failed_with(10).err.contains("log in to"), "{refused:?}");
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn nothing_is_revoked_that_nobody_confirmed() {
    let scene = scene();
    let _agent = scene.warm();
    scene.home.client(&["revoke", "--quiet"]).failed_with(8);
    let planned = scene.home.client(&["revoke", "--dry-run"]);
    assert!(planned.ok && planned.err.contains("stops working"), "{planned:?}");
    assert!(scene.platform.is_valid_key(KEY));
    scene.home.client(&["refresh"]).unwrap();
    assert!(generated(&scene) == 0 && scene.platform.violations().is_empty());
    revoke(&scene, &["--all"]).unwrap();
    assert!(!scene.platform.is_valid_key(KEY));
}

#[test]
fn a_key_that_came_into_the_place_of_the_one_that_was_meant_is_not_touched() {
    let scene = scene();
    let agent = with_a_file(&scene);
    scene.platform.stop_listening();
    revoke(&scene, &[]).failed_with(7);
    agent.signal(Signal::KILL);
    drop(agent);
    let newer = scene.platform.generate_key_elsewhere("alice");
    fs::write(scene.home.path("key"), &newer).unwrap();
    scene.platform.listen_again();
    let _agent = scene.home.start_agent();
    wait_until("it is over", || scene.profile()["key_state"] != "revoking");
    assert!(scene.platform.is_valid_key(&newer) && generated(&scene) == 0);
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn stray_refusals_are_not_taken_for_the_end_of_a_key() {
    let scene = scene();
    let _agent = scene.warm();
    let stray = Fault::Unauthorized { json: true };
    scene.platform.script(Endpoint::Authorize, stray.clone(), Times::N(2));
    let done = revoke(&scene, &["--json"]);
    assert_eq!(done.json()["outcome"], "revoked", "it was valid all the time: {done:?}");
    assert!(!scene.platform.is_valid_key(KEY));

    // The call changed nothing, and its answer says nothing.
    let scene = self::scene();
    let _agent = scene.warm();
    scene.platform.script(Endpoint::GenerateKey, Fault::ServerError(503, None), Times::N(1));
    scene.platform.pause_at(Endpoint::GenerateKey);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| revoke(&scene, &["--wait", "--json"]));
        assert!(scene.platform.wait_for_requests(Endpoint::GenerateKey, 1, PATIENCE));
        scene.platform.script(Endpoint::Authorize, stray, Times::N(2));
        scene.platform.resume();
        assert_eq!(waiting.join().unwrap().json()["outcome"], "revoked");
    });
    assert!(!scene.platform.is_valid_key(KEY), "what is called revoked is");
    assert_eq!(generated(&scene), 2);
}

#[test]
fn a_revoke_waits_for_a_key_that_is_withheld_and_is_not_forgotten() {
    let scene = scene();
    let agent = with_a_file(&scene);
    scene.platform.stop_listening();
    revoke(&scene, &[]).failed_with(7);
    agent.signal(Signal::USR1);
    wait_until("the key is dropped", || scene.home.log().contains("dropped by a signal"));
    scene.platform.listen_again();
    revoke(&scene, &[]).failed_with(5);
    assert_eq!(scene.profile()["key_state"], "revoking");
    scene.home.client(&["unlock"]).unwrap();
    revoke(&scene, &["--wait"]).unwrap();
    assert!(!scene.platform.is_valid_key(KEY));
}

#[test]
fn a_change_is_carried_out_by_one_of_two_agents() {
    let scene = scene();
    let first = with_a_file(&scene);
    let other = scene.home.path("other.sock").display().to_string();
    let second = scene.home.spawn_agent_with(|agent| agent.args(["--socket", &other]));
    wait_until("the second answers", || scene.home.client(&["ping", "--socket", &other]).ok);
    let refused = scene.home.client(&["revoke", "--yes", "--socket", &other]);
    assert!(refused.failed_with(2).err.contains("another agent"), "{refused:?}");
    first.stop();
    scene.home.client(&["revoke", "--yes", "--socket", &other]).unwrap();
    assert!(!scene.platform.is_valid_key(KEY));
    drop(second);
}

#[test]
fn a_key_that_came_after_a_revoke_was_done_is_not_dropped_with_it() {
    let scene = scene();
    let agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    agent.stop();
    // What an agent leaves that was killed before it struck the wish out, of another key than this one.
    let wish = "{\"version\":1,\"kind\":\"revoke\",\"since\":1,\"sent\":1,\"sent_at\":1,\"done_there\":true,\
                \"tokens_until\":null,\"key\":\"0123456789abcdef\",\"made\":null,\"old_id\":null,\"lost\":null}";
    scene.home.write(".local/state/dph-agent/changes/default.json", wish);
    let _agent = scene.home.start_agent();
    assert_eq!(scene.profile()["key_state"], "revoking");
    scene.unlock(PASSPHRASE).unwrap();
    wait_until("it is struck out", || wishes(&scene) == 0);
    assert!(scene.home.path(".local/share/dph-agent/sealed/default.sealed").exists());
    assert!(scene.platform.is_valid_key(KEY) && generated(&scene) == 0);
}

#[test]
fn nothing_is_sent_that_cannot_be_written_down() {
    let scene = scene();
    let _agent = with_a_file(&scene);
    let folder = scene.home.path(".local/state/dph-agent/changes");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    for command in ["revoke", "rotate"] {
        let refused = scene.home.client(&[command, "--yes"]);
        assert!(refused.failed_with(1).err.contains("changes"), "{refused:?}");
    }
    scene.home.client(&["token", "--new"]).unwrap();
    assert!(scene.platform.is_valid_key(KEY) && generated(&scene) == 0);
}
