//! One command replaces a key, callers notice nothing, and a crash at any step leaves a working key.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::thread;
use std::time::Duration;

use dph_agent_mock_platform::{Endpoint, Fault, Recorded, Times};
use dph_agent_secret::scan;
use dph_agent_tests::{AgentProcess, KEY, PATIENCE, Ran, Scene, wait_for, wait_until, wait_within};
use rustix::process::Signal;
use serde_json::Value;

/// How long a platform may take to know of what it has done.
const PROOF: Duration = Duration::from_secs(60);
const PASSPHRASE: &str = "correct horse battery staple";

fn scene() -> Scene {
    let scene = Scene::new();
    scene.platform.allow_key_generation();
    scene.home.write("key", KEY);
    scene
}

fn source(scene: &Scene) -> String {
    format!("file:{}", scene.home.path("key").display())
}

/// Adds a profile at Software Hub, whose key is in a file.
fn at_hub(scene: &Scene) -> AgentProcess<'_> {
    let agent = scene.home.start_agent();
    scene.add(&source(scene), &[]).unwrap();
    agent
}

/// Adds a profile at IBM Cloud, whose key is in a file.
fn at_iam(scene: &Scene) -> AgentProcess<'_> {
    scene.platform.add_named_iam_key("the-old-one", KEY);
    let agent = scene.home.start_agent();
    let url = scene.platform.url();
    let add = ["add", "--platform", "ibm-cloud", "--url", &url, "--auth-url", &url, "--ca-file", &scene.ca];
    scene.home.client(&[&add[..], &["--key-source", &source(scene)]].concat()).unwrap();
    // When the key ends: what a test does to that call is meant for the rotation's own.
    assert!(scene.platform.wait_for_requests(Endpoint::IamKeyDetails, 1, PATIENCE));
    agent
}

fn rotate(scene: &Scene, more: &[&str]) -> Ran {
    scene.home.client(&[&["rotate", "--yes"], more].concat())
}

fn key_on_disk(scene: &Scene) -> String {
    fs::read_to_string(scene.home.path("key")).unwrap().trim().to_owned()
}

/// Makes sure that the profile works, with the key that is in its place, and nothing is left of the work.
fn works(scene: &Scene) {
    scene.home.client(&["token", "--new"]).unwrap();
    assert!(scene.platform.is_valid_key(&key_on_disk(scene)));
    assert_eq!(scene.profile().get("key_state").unwrap(), "held");
    assert!(!scene.home.path(".local/state/dph-agent/changes/default.json").exists());
    assert!(!scene.home.path("key.rotation").exists());
}

/// Looks for the old and the new key in the agent's whole memory, where that is allowed.
fn neither_key_is_in_memory(scene: &Scene, agent: &AgentProcess<'_>) {
    if rustix::process::geteuid().is_root() {
        let new = key_on_disk(scene);
        let found = || scan::process(agent.pid(), &[KEY.as_bytes(), new.as_bytes()]).unwrap().found;
        wait_until("nothing of either key is in memory", || found().is_empty());
    }
}

fn calls(scene: &Scene, endpoint: Endpoint) -> usize {
    scene.platform.requests().iter().filter(|request| request.endpoint == endpoint).count()
}

#[test]
fn a_rotated_key_is_in_its_place_and_the_old_one_is_dead_at_software_hub() {
    let scene = scene();
    let agent = at_hub(&scene);
    let done = rotate(&scene, &["--json"]);
    assert_eq!((done.ok, &done.json()["outcome"]), (true, &"rotated".into()), "{done:?}");
    assert!(!scene.platform.is_valid_key(KEY) && key_on_disk(&scene) != KEY);
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 1);
    neither_key_is_in_memory(&scene, &agent);
    works(&scene);
    agent.stop();
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_rotated_key_is_in_its_place_and_the_old_one_deleted_at_ibm_cloud() {
    let scene = scene();
    scene.platform.add_named_iam_key("somebody-elses-use", "another-key-0123456789-0123456789-01");
    let agent = at_iam(&scene);
    rotate(&scene, &[]).unwrap();
    neither_key_is_in_memory(&scene, &agent);
    assert!(key_on_disk(&scene) != KEY && key_on_disk(&scene).len() >= 32);
    let names = scene.platform.iam_key_names();
    assert!(!names.contains(&"the-old-one".to_owned()), "{names:?}");
    assert!(names.len() == 2 && names.iter().any(|name| name.starts_with("dph-agent default")), "{names:?}");
    works(&scene);
}

#[test]
fn a_key_in_a_sealed_file_is_rotated_and_opens_after_a_restart() {
    let scene = scene();
    let agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    rotate(&scene, &[]).unwrap();
    assert!(!scene.platform.is_valid_key(KEY));
    agent.stop();
    let _agent = scene.home.start_agent();
    scene.unlock(PASSPHRASE).unwrap();
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_lost_answer_about_a_sealed_key_is_made_up_for_when_it_is_opened() {
    let scene = scene();
    let agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    killed_at(&scene, agent, Endpoint::GenerateKey, Fault::DropAnswer);
    let _agent = scene.home.start_agent();
    wait_until("the call was carried out", || !scene.platform.is_valid_key(KEY));
    assert_eq!(scene.profile()["key_state"], "rotating");
    scene.unlock(PASSPHRASE).unwrap();
    rotate(&scene, &["--wait"]).unwrap();
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 2);
    scene.home.client(&["token", "--new"]).unwrap();
    assert!(!scene.home.path(".local/share/dph-agent/sealed/default.rotation").exists());
}

#[test]
fn a_rotation_that_a_signal_overtakes_brings_no_key_back() {
    let scene = scene();
    let agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Slow(Duration::from_secs(2)), Times::N(1));
    thread::scope(|scope| {
        let rotating = scope.spawn(|| rotate(&scene, &[]));
        assert!(scene.platform.wait_for_requests(Endpoint::GenerateKey, 1, PATIENCE));
        agent.signal(Signal::USR1);
        wait_until("all are dropped", || scene.home.log().contains("dropped by a signal"));
        rotating.join().unwrap().failed_with(5);
    });
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(5).err.contains("SIGUSR1"), "{refused:?}");
    scene.home.client(&["unlock"]).unwrap();
    rotate(&scene, &["--wait"]).unwrap();
    assert!(!scene.platform.is_valid_key(KEY));
    works(&scene);
}

#[test]
fn a_key_that_cannot_be_written_back_is_not_rotated() {
    let scene = scene();
    let _agent = scene.home.start_agent();
    let refuse = |source: &str, more: &[&str]| {
        scene.add(source, &[more, &["--replace"]].concat()).unwrap();
        let refused = rotate(&scene, &[]);
        assert!(refused.failed_with(8).err.contains("migrate"), "{refused:?}");
    };
    refuse("session", &["--key-stdin"]);
    refuse(&format!("command:[\"cat\",\"{}\"]", scene.home.path("key").display()), &[]);
    assert!(scene.platform.is_valid_key(KEY));
    assert!(calls(&scene, Endpoint::GenerateKey) == 0 && scene.platform.violations().is_empty());
    scene.home.client(&["rotate"]).failed_with(8);
}

#[test]
fn fifty_callers_see_no_failure_while_a_key_is_rotated() {
    for begin in [at_hub, at_iam] {
        let scene = scene();
        let _agent = begin(&scene);
        thread::scope(|scope| {
            let home = &scene.home;
            let callers: Vec<_> = (0..50)
                .map(|number| {
                    let arguments: &[&str] = if number % 5 == 0 { &["token", "--new"] } else { &["token"] };
                    scope.spawn(move || (0..4).all(|_| home.client(arguments).ok))
                })
                .collect();
            rotate(&scene, &[]).unwrap();
            assert!(callers.into_iter().all(|caller| caller.join().unwrap()), "{}", home.log());
        });
        works(&scene);
    }
}

#[test]
fn a_key_that_was_made_elsewhere_is_noticed_and_stays_alive() {
    let scene = scene();
    let _agent = at_hub(&scene);
    scene.platform.stop_listening();
    rotate(&scene, &[]).failed_with(7);
    assert_eq!(scene.profile()["key_state"], "rotating");
    let newer = scene.platform.generate_key_elsewhere("alice");
    scene.platform.listen_again();
    let refused = rotate(&scene, &["--wait"]);
    assert!(refused.failed_with(6).err.contains("made elsewhere"), "{refused:?}");
    assert!(scene.platform.is_valid_key(&newer) && calls(&scene, Endpoint::GenerateKey) == 0);
    fs::write(scene.home.path("key"), &newer).unwrap();
    wait_until("the newer one is used", || scene.home.client(&["token", "--new"]).ok);
}

#[test]
fn a_rotation_that_the_platform_refuses_leaves_the_old_key_working_and_says_so() {
    let scene = scene();
    let _agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Forbidden, Times::Forever);
    let refused = rotate(&scene, &[]);
    assert!(refused.failed_with(10).err.contains("goes on working"), "{refused:?}");
    assert_eq!(key_on_disk(&scene), KEY);
    works(&scene);

    let scene = self::scene();
    let _agent = at_iam(&scene);
    scene.platform.script(Endpoint::CreateIamKey, Fault::Forbidden, Times::Forever);
    let refused = rotate(&scene, &[]);
    assert!(refused.failed_with(1).err.contains("goes on working"), "{refused:?}");
    assert_eq!(key_on_disk(&scene), KEY);
    works(&scene);
}

#[test]
fn a_lost_answer_is_asked_for_once_more_and_never_a_third_time() {
    let scene = scene();
    let _agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::DropAnswer, Times::N(1));
    rotate(&scene, &["--wait"]).unwrap();
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 2);
    works(&scene);

    let before = calls(&scene, Endpoint::GenerateKey);
    scene.platform.script(Endpoint::GenerateKey, Fault::DropAnswer, Times::Forever);
    let lost = rotate(&scene, &["--wait"]);
    assert!(lost.failed_with(6).err.contains("is lost") && lost.err.contains("log in to"), "{lost:?}");
    assert_eq!(calls(&scene, Endpoint::GenerateKey), before + 2);
    wait_until("status says so", || scene.profile()["key_state"] == "lost");
    let newer = scene.platform.generate_key_elsewhere("alice");
    fs::write(scene.home.path("key"), &newer).unwrap();
    scene.home.client(&["add"]).unwrap();
    wait_until("it works again", || scene.profile()["key_state"] == "held");
    scene.home.client(&["token"]).unwrap();
}

/// Holds the agent up at a call, kills it there, and starts another.
fn killed_at(scene: &Scene, agent: AgentProcess<'_>, endpoint: Endpoint, fault: Fault) {
    let seen = scene.platform.requests().iter().filter(|request| request.endpoint == endpoint).count();
    scene.platform.script(endpoint, fault, Times::N(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rotate(scene, &["--timeout", "30s"]));
        assert!(scene.platform.wait_for_requests(endpoint, seen + 1, PATIENCE));
        agent.signal(Signal::KILL);
        drop(agent);
        assert!(!waiting.join().unwrap().ok);
    });
    scene.platform.clear_scripts();
}

#[test]
fn a_kill_at_any_call_to_software_hub_ends_in_a_working_key() {
    for (endpoint, fault) in [
        // Before the proof that the key is current; before the call is carried out; after it, with its answer lost.
        (Endpoint::Authorize, Fault::Hang),
        (Endpoint::GenerateKey, Fault::Hang),
        (Endpoint::GenerateKey, Fault::DropAnswer),
    ] {
        let scene = scene();
        let agent = at_hub(&scene);
        killed_at(&scene, agent, endpoint, fault.clone());
        let _agent = scene.home.start_agent();
        // Where the call was not carried out, it may still be for as long as a platform takes.
        wait_within(2 * PROOF, "it ends well", || (scene.profile()["key_state"] != "rotating").then_some(()));
        assert!(scene.home.client(&["token", "--new"]).ok, "{endpoint:?} {fault:?}: {}", scene.home.log());
        works(&scene);
        assert!(calls(&scene, Endpoint::GenerateKey) <= 2);
    }
}

#[test]
fn a_kill_at_any_call_to_ibm_cloud_ends_in_a_working_key() {
    for (endpoint, fault) in [
        (Endpoint::IamToken, Fault::Hang),
        (Endpoint::IamKeyDetails, Fault::Hang),
        (Endpoint::CreateIamKey, Fault::Hang),
        (Endpoint::CreateIamKey, Fault::DropAnswer),
        (Endpoint::DeleteIamKey, Fault::Hang),
        (Endpoint::DeleteIamKey, Fault::DropAnswer),
    ] {
        let scene = scene();
        let agent = at_iam(&scene);
        killed_at(&scene, agent, endpoint, fault.clone());
        let _agent = scene.home.start_agent();
        wait_until("it ends", || scene.profile()["key_state"] != "rotating");
        assert!(scene.home.client(&["token", "--new"]).ok, "{endpoint:?} {fault:?}: {}", scene.home.log());
        works(&scene);
        assert_eq!(scene.platform.iam_key_names().len(), 1, "{endpoint:?} {fault:?}: nothing is left over");
    }
}

/// Kills the agent so many milliseconds after a rotation was asked for.
fn killed_after(milliseconds: u64, begin: fn(&Scene) -> AgentProcess<'_>) {
    let scene = scene();
    let agent = begin(&scene);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rotate(&scene, &[]));
        thread::sleep(Duration::from_millis(milliseconds));
        agent.signal(Signal::KILL);
        drop(agent);
        waiting.join().unwrap();
    });
    let _agent = scene.home.start_agent();
    let has_ended = || scene.profile().get("key_state").is_some_and(|state| state != "rotating");
    wait_within(2 * PROOF, "it ends", || has_ended().then_some(()));
    works(&scene);
}

#[test]
fn a_kill_at_a_random_moment_ends_in_a_working_key() {
    // What the moments are differs each time: what matters is that any will do. Beside each other, for some take a minute.
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || killed_after(8 * number, at_hub));
            scope.spawn(move || killed_after(8 * number + 4, at_iam));
        }
    });
}

#[test]
fn a_key_that_is_as_old_as_the_profile_lets_it_be_is_rotated_by_itself() {
    let scene = scene();
    let agent = at_iam(&scene);
    agent.stop();
    let text = fs::read_to_string(scene.home.config()).unwrap();
    scene.home.write_config(&format!("{text}rotate-every = \"30d\"\n"));
    let agent = scene.home.start_agent();
    let note = scene.home.path(".local/state/dph-agent/changes/default.since");
    wait_until("the agent notes since when it knows the key", || note.exists());
    assert_eq!(key_on_disk(&scene), KEY, "it is new to the agent");
    agent.stop();
    fs::write(&note, "1000000000\n").unwrap();
    let _agent = scene.home.start_agent();
    wait_until("it is rotated", || key_on_disk(&scene) != KEY);
    wait_until("it is over", || scene.profile()["key_state"] != "rotating");
    works(&scene);
    let since: i64 = fs::read_to_string(&note).unwrap().trim().parse().unwrap();
    assert!(since > 1_000_000_000, "its age is counted anew");
}

#[test]
fn a_newer_key_in_the_source_is_neither_rotated_nor_moved_away_nor_overwritten() {
    let scene = scene();
    let _agent = at_hub(&scene);
    let newer = scene.platform.generate_key_elsewhere("alice");
    fs::write(scene.home.path("key"), &newer).unwrap();
    let refused = rotate(&scene, &[]);
    assert!(refused.failed_with(2).err.contains("another key now"), "{refused:?}");
    scene.home.client(&["migrate", "--to", "session"]).failed_with(2);
    assert_eq!(key_on_disk(&scene), newer);
    assert!(scene.platform.is_valid_key(&newer) && calls(&scene, Endpoint::GenerateKey) == 0);
    scene.home.client(&["add"]).unwrap();
    rotate(&scene, &[]).unwrap();
    works(&scene);
}

#[test]
fn a_newer_key_that_is_put_there_while_a_rotation_is_unclear_ends_it() {
    let scene = scene();
    let agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Hang, Times::N(1));
    rotate(&scene, &["--timeout", "1s"]).failed_with(9);
    agent.signal(Signal::KILL);
    drop(agent);
    let newer = scene.platform.generate_key_elsewhere("alice");
    fs::write(scene.home.path("key"), &newer).unwrap();
    let _agent = scene.home.start_agent();
    wait_until("it is over", || scene.profile()["key_state"] == "held");
    assert_eq!(key_on_disk(&scene), newer);
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 1, "the one that hung");
    works(&scene);
}

#[test]
fn many_who_rotate_at_once_rotate_once() {
    let scene = scene();
    let _agent = at_hub(&scene);
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| rotate(&scene, &["--wait"]))).collect();
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
    assert!(calls(&scene, Endpoint::GenerateKey) <= 8);
    works(&scene);
}

#[test]
fn a_key_that_cannot_be_written_is_kept_in_use_until_it_can_be() {
    if rustix::process::geteuid().is_root() {
        // Root writes everywhere: a folder in the place of the draft's folder is beyond it, too.
        let scene = scene();
        let _agent = at_hub(&scene);
        let (key, away) = (scene.home.path("key"), scene.home.path("key-away"));
        scene.platform.script(Endpoint::GenerateKey, Fault::Slow(Duration::from_secs(1)), Times::N(1));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rotate(&scene, &[]));
            assert!(scene.platform.wait_for_requests(Endpoint::GenerateKey, 1, PATIENCE));
            fs::rename(&key, &away).unwrap();
            fs::create_dir(&key).unwrap();
            assert!(!waiting.join().unwrap().ok);
        });
        assert_eq!(scene.profile()["key_state"], "rotating");
        fs::remove_dir(&key).unwrap();
        fs::rename(&away, &key).unwrap();
        rotate(&scene, &["--wait"]).unwrap();
        assert_eq!(calls(&scene, Endpoint::GenerateKey), 1, "no other key was asked for");
        works(&scene);
    }
}

#[test]
fn a_key_that_was_made_elsewhere_after_a_rotation_stays_alive() {
    let scene = scene();
    let agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Slow(Duration::from_millis(200)), Times::N(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rotate(&scene, &[]));
        assert!(scene.platform.wait_for_requests(Endpoint::GenerateKey, 1, PATIENCE));
        scene.platform.pause_at(Endpoint::Authorize);
        wait_until("the new key is in its place", || key_on_disk(&scene) != KEY);
        agent.signal(Signal::KILL);
        drop(agent);
        assert!(!waiting.join().unwrap().ok);
    });
    let elsewhere = scene.platform.generate_key_elsewhere("alice");
    scene.platform.resume();
    let _agent = scene.home.start_agent();
    wait_within(2 * PROOF, "it ends", || (scene.profile()["key_state"] == "lost").then_some(()));
    assert!(scene.platform.is_valid_key(&elsewhere));
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 1);
    fs::write(scene.home.path("key"), &elsewhere).unwrap();
    scene.home.client(&["add"]).unwrap();
    works(&scene);
}

#[test]
fn a_lost_answer_is_not_made_up_for_when_much_time_has_passed() {
    let scene = scene();
    let agent = at_hub(&scene);
    killed_at(&scene, agent, Endpoint::GenerateKey, Fault::DropAnswer);
    let path = scene.home.path(".local/state/dph-agent/changes/default.json");
    let mut wish: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    wish["sent_at"] = (wish["sent_at"].as_i64().unwrap() - 3600).into();
    fs::write(&path, wish.to_string()).unwrap();
    wait_until("the call was carried out", || !scene.platform.is_valid_key(KEY));
    let elsewhere = scene.platform.generate_key_elsewhere("alice");
    let _agent = scene.home.start_agent();
    wait_until("it ends", || scene.profile()["key_state"] == "lost");
    assert!(scene.platform.is_valid_key(&elsewhere));
}

#[test]
fn the_agents_end_waits_for_a_new_key_to_be_kept() {
    let scene = scene();
    let mut agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::Slow(Duration::from_secs(2)), Times::N(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rotate(&scene, &[]));
        assert!(scene.platform.wait_for_requests(Endpoint::GenerateKey, 1, PATIENCE));
        agent.signal(Signal::TERM);
        assert_eq!(agent.wait(), 0);
        drop(waiting.join().unwrap());
    });
    assert!(scene.platform.is_valid_key(&key_on_disk(&scene)));
    let _agent = scene.home.start_agent();
    wait_until("it ends", || scene.profile()["key_state"] != "rotating");
    works(&scene);
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 1);
}

#[test]
fn forgetting_everything_while_locked_gives_up_what_was_sent() {
    let scene = scene();
    let _agent = at_hub(&scene);
    scene.platform.script(Endpoint::GenerateKey, Fault::ServerError(503, None), Times::Forever);
    rotate(&scene, &[]).failed_with(7);
    rotate(&scene, &["--cancel"]).failed_with(8);
    scene.lock(PASSPHRASE);
    scene.home.client(&["forget", "--all", "--yes"]).unwrap();
    scene.unlock(PASSPHRASE).unwrap();
    assert_eq!(scene.profile()["key_state"], "none");
    assert!(!scene.home.path(".local/state/dph-agent/changes/default.json").exists());
    scene.platform.clear_scripts();
    scene.home.client(&["add"]).unwrap();
    works(&scene);
}

#[test]
fn a_new_key_that_comes_while_the_agent_is_locked_is_kept_and_opens_with_the_lock() {
    for endpoint in [Endpoint::GenerateKey, Endpoint::CreateIamKey] {
        let scene = scene();
        let _agent = if endpoint == Endpoint::GenerateKey { at_hub(&scene) } else { at_iam(&scene) };
        scene.platform.pause_at(endpoint);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rotate(&scene, &[]));
            assert!(scene.platform.wait_for_requests(endpoint, 1, PATIENCE));
            scene.lock(PASSPHRASE);
            waiting.join().unwrap().failed_with(4);
        });
        scene.platform.resume();
        let is_answered = |request: &Recorded| request.endpoint == endpoint && request.status.is_some();
        wait_until("the platform has answered", || scene.platform.requests().iter().any(is_answered));
        scene.home.client(&["token"]).failed_with(4);
        scene.unlock(PASSPHRASE).unwrap();
        rotate(&scene, &["--wait"]).unwrap();
        works(&scene);
        assert!(key_on_disk(&scene) != KEY && calls(&scene, Endpoint::GenerateKey) <= 1);
        assert!(scene.platform.iam_key_names().len() <= 1, "nothing is left over");
    }
}

#[test]
fn what_is_taken_back_in_the_middle_of_a_try_is_taken_back_or_said_to_be_sent() {
    let scene = scene();
    let _agent = at_hub(&scene);
    let before = calls(&scene, Endpoint::Authorize);
    scene.platform.pause_at(Endpoint::Authorize);
    thread::scope(|scope| {
        let rotating = scope.spawn(|| rotate(&scene, &[]));
        wait_until("it is tried", || calls(&scene, Endpoint::Authorize) > before);
        let cancelling = scope.spawn(|| rotate(&scene, &["--cancel"]));
        scene.platform.resume();
        let (rotated, cancelled) = (rotating.join().unwrap(), cancelling.join().unwrap());
        assert!(rotated.ok && rotated.err.contains("rotated"), "{rotated:?}");
        assert!([2, 8].contains(&cancelled.status), "{cancelled:?}");
    });
    works(&scene);
    assert!(!scene.platform.is_valid_key(KEY));
}

#[test]
fn a_key_that_was_proven_before_a_rotation_is_not_kept_after_it() {
    let scene = scene();
    let _agent = scene.home.start_agent();
    scene.lock(PASSPHRASE);
    scene.unlock(PASSPHRASE).unwrap();
    scene.add("sealed", &["--key-stdin"]).unwrap();
    let before = scene.platform.exchanges();
    scene.platform.script(Endpoint::Authorize, Fault::Late(Duration::from_secs(3)), Times::N(1));
    thread::scope(|scope| {
        let adding = scope.spawn(|| scene.add("sealed", &["--key-stdin"]));
        assert!(scene.platform.wait_for_exchanges(before + 1, PATIENCE));
        rotate(&scene, &[]).unwrap();
        let refused = adding.join().unwrap();
        assert!(refused.status == 2 && refused.err.contains("was changed or removed"), "{refused:?}");
    });
    assert!(!scene.platform.is_valid_key(KEY));
    scene.home.client(&["token", "--new"]).unwrap();
}

#[test]
fn two_profiles_of_one_key_do_not_end_each_others() {
    let scene = scene();
    let _agent = at_hub(&scene);
    let copy = scene.home.write("copy", KEY);
    let source = format!("file:{}", copy.display());
    let url = scene.platform.url();
    let add =
        ["add", "--profile", "other", "--platform", "software-hub", "--url", &url, "--username", "alice"];
    scene.home.client(&[&add[..], &["--ca-file", &scene.ca, "--key-source", &source]].concat()).unwrap();
    let ended = thread::scope(|scope| {
        let both = ["default", "other"].map(|name| {
            let scene = &scene;
            scope.spawn(move || rotate(scene, &["--profile", name, "--wait"]).status)
        });
        both.map(|one| one.join().unwrap())
    });
    assert!(ended == [0, 6] || ended == [6, 0], "{ended:?}");
    assert_eq!(calls(&scene, Endpoint::GenerateKey), 1);
    let on_disk = [key_on_disk(&scene), fs::read_to_string(copy).unwrap().trim().to_owned()];
    assert!(on_disk.iter().any(|key| scene.platform.is_valid_key(key)));
}

#[test]
fn a_new_key_of_ibm_cloud_lives_as_long_as_the_old_one_was_made_for() {
    let scene = scene();
    let _agent = at_iam(&scene);
    // The mock platform's keys are of the first of January 2026.
    scene.platform.set_iam_key_expires_at(KEY, "2027-01-01T00:00+0000");
    rotate(&scene, &[]).unwrap();
    let ends = wait_for("the agent knows when it ends", || {
        scene.profile()["key_expires_at"].as_str().map(str::to_owned)
    });
    assert!(ends.as_str() > "2027-10", "a year from now: {ends}");
}

#[test]
fn a_new_key_of_ibm_cloud_that_cannot_be_kept_is_deleted_again_when_its_place_can_be_seen() {
    let scene = scene();
    let _agent = at_iam(&scene);
    let (key, away) = (scene.home.path("key"), scene.home.path("key-away"));
    scene.platform.script(Endpoint::CreateIamKey, Fault::Slow(Duration::from_secs(1)), Times::N(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rotate(&scene, &[]));
        assert!(scene.platform.wait_for_requests(Endpoint::CreateIamKey, 1, PATIENCE));
        fs::rename(&key, &away).unwrap();
        fs::create_dir(&key).unwrap();
        assert!(!waiting.join().unwrap().ok);
    });
    assert_eq!(scene.platform.iam_key_names().len(), 2, "nothing is deleted while the place cannot be seen");
    fs::remove_dir(&key).unwrap();
    fs::rename(&away, &key).unwrap();
    rotate(&scene, &["--wait"]).unwrap();
    assert_eq!(scene.platform.iam_key_names().len(), 1);
    works(&scene);
}
