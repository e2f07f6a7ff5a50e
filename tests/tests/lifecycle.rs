//! One agent at a time: how it starts, stops, survives and gives way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use dph_agent_tests::{Home, program, run, wait_until};
use rustix::process::Signal;

#[test]
fn a_second_agent_refuses_and_names_the_first() {
    let home = Home::new();
    let first = home.start_agent();
    let second = run(&mut home.command(program("dph-agent")), "");
    assert_eq!(second.status, 1);
    let (socket, pid) = (home.socket().display().to_string(), first.pid().to_string());
    assert!(second.err.contains(&socket) && second.err.contains(&format!("process {pid}")), "{}", second.err);
    assert!(home.client(&["ping"]).ok, "the first one lives on");
}

#[test]
fn a_second_agent_on_the_same_named_socket_refuses_and_names_the_first() {
    let home = Home::new();
    let socket = home.path("own/agent.sock").display().to_string();
    let mut first = home.spawn_agent_with(|command| command.args(["--socket", &socket]));
    wait_until("the agent answers", || home.client(&["ping", "--socket", &socket]).ok);
    let second = run(home.command(program("dph-agent")).args(["--socket", &socket]), "");
    assert_eq!(second.status, 1);
    assert!(second.err.contains(&format!("process {}", first.pid())), "{}", second.err);
    assert!(first.child.try_wait().unwrap().is_none());
}

#[test]
fn an_agent_on_a_named_socket_may_live_beside_the_users_own() {
    let home = Home::new();
    let _own = home.start_agent();
    let socket = home.path("other/agent.sock").display().to_string();
    let _other = home.spawn_agent_with(|command| command.args(["--socket", &socket]));
    wait_until("the other agent answers", || home.client(&["ping", "--socket", &socket]).ok);
}

#[test]
fn after_a_kill_a_new_agent_starts_cleanly() {
    let home = Home::new();
    let mut killed = home.start_agent();
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(home.socket().exists(), "the dead one left its socket behind");
    home.client(&["ping"]).failed_with(3);
    home.start_agent().stop();
}

#[test]
fn of_two_agents_started_at_once_exactly_one_wins() {
    for round in 0..50 {
        let home = Home::new();
        let mut two = [home.spawn_agent_with(|agent| agent), home.spawn_agent_with(|agent| agent)];
        wait_until("an agent answers", || home.client(&["ping"]).ok);
        wait_until("the other one gives up", || {
            two.iter_mut().any(|agent| agent.child.try_wait().unwrap().is_some())
        });
        let ended = two.iter_mut().filter_map(|agent| agent.child.try_wait().unwrap()).count();
        assert_eq!(ended, 1, "round {round}: {}", home.log());
        assert!(home.client(&["ping"]).ok, "round {round}");
    }
}

#[test]
fn the_agent_ends_cleanly_when_asked_to_by_signal_or_by_a_client() {
    for how in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        let mut agent = home.start_agent();
        agent.signal(how);
        assert_eq!(agent.wait(), 0);
        assert!(!home.socket().exists(), "nothing is left behind");
    }
    let home = Home::new();
    home.start_agent().stop();
    assert!(!home.socket().exists());
}

#[test]
fn a_removed_socket_is_made_anew() {
    let home = Home::new();
    let _agent = home.start_agent();
    fs::remove_file(home.socket()).unwrap();
    wait_until("the socket is back", || home.client(&["ping"]).ok);
    fs::rename(home.socket().parent().unwrap(), home.path("elsewhere")).unwrap();
    wait_until("the folder is back", || home.client(&["ping"]).ok);
    assert_eq!(home.socket().metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(home.socket().parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn start_is_idempotent_and_prints_what_a_shell_evaluates() {
    let home = Home::new();
    let script = format!(
        "eval \"$({agent} start 2>first)\" && eval \"$({agent} start 2>second)\" && {client} ping --socket \"$DPH_AGENT_SOCK\"",
        agent = program("dph-agent").display(),
        client = program("dph-agent-client").display(),
    );
    let ran = run(home.command("sh").args(["-c", &script]), "");
    assert!(ran.ok, "{ran:?}");
    assert!(fs::read_to_string(home.path("first")).unwrap().contains("agent.log"), "the log file is named");
    assert!(fs::read_to_string(home.path("second")).unwrap().contains("answers already"));
    assert!(home.client(&["stop"]).ok);
    wait_until("the agent is gone", || home.client(&["ping"]).status == 3);
}

#[test]
fn start_replaces_the_agent_that_answers() {
    let home = Home::new();
    let mut old = home.start_agent();
    let ran = run(home.command(program("dph-agent")).args(["start", "--replace"]), "");
    assert!(ran.ok, "{ran:?}");
    assert_eq!(old.wait(), 0);
    assert!(home.client(&["stop"]).ok);
    wait_until("the new agent is gone", || home.client(&["ping"]).status == 3);
}

#[test]
fn start_tells_why_the_agent_did_not_come_up() {
    let home = Home::new();
    home.write_config("nonsense = 1\n");
    let ran = run(home.command(program("dph-agent")).arg("start"), "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("unknown key `nonsense`") && ran.err.contains("hint: "), "{}", ran.err);
}

#[test]
fn check_config_names_every_fault_with_its_place() {
    let home = Home::new();
    home.write_config("[profiles.a]\nplatform = \"hub\"\n\n[profiles.b]\nurll = \"x\"\n");
    let ran = run(home.command(program("dph-agent")).arg("check-config"), "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("line 2, column 12: `platform` is one of"), "{}", ran.err);
    assert!(ran.err.contains("line 5, column 1: unknown key `urll`; did you mean `url`?"), "{}", ran.err);
}

#[test]
fn a_reload_takes_a_good_configuration_and_keeps_the_old_one_over_a_bad() {
    let home = Home::new();
    let agent = home.start_agent();
    home.write_config("[profiles.a]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n");
    agent.signal(Signal::HUP);
    wait_until("the profile is there", || home.client(&["list"]).out.contains("dph.example.com"));
    home.write_config("[profiles.b\n");
    agent.signal(Signal::HUP);
    wait_until("status says what is wrong", || home.client(&["status"]).out.contains("line 1, column"));
    assert!(home.client(&["list"]).out.contains("dph.example.com"), "the profile is still there");
}

#[test]
fn a_dead_socket_variable_falls_through_with_a_warning_for_commands_that_change_nothing() {
    let home = Home::new();
    let _agent = home.start_agent();
    let dead = home.path("dead.sock");
    let client = |command: &str| {
        run(home.command(program("dph-agent-client")).arg(command).env("DPH_AGENT_SOCK", &dead), "")
    };
    let ping = client("ping");
    assert!(ping.ok && ping.err.lines().count() == 1 && ping.err.contains("DPH_AGENT_SOCK"), "{ping:?}");
    assert_eq!(client("stop").status, 3);
}

#[test]
fn the_log_of_an_agent_in_the_background_is_put_aside_while_it_runs() {
    let home = Home::new();
    let ran = run(home.command(program("dph-agent")).arg("start"), "");
    assert!(ran.ok, "{ran:?}");
    let path = home.path(".local/state/dph-agent/agent.log");
    let pid = home.client(&["ping", "--json"]).json()["pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let reload = || {
        // Between the old file and the new one there is none for a moment.
        let log = || fs::read_to_string(&path).unwrap_or_default();
        let lines = || log().matches("read the configuration").count();
        let before = lines();
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
        wait_until("it is reloaded", || lines() != before);
    };
    reload();
    let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(&vec![b'\n'; 8 * 1024 * 1024]).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    let len = |path: &std::path::Path| fs::metadata(path).map_or(0, |file| file.len());
    wait_until("it is put aside", || {
        len(&path) == 0 && len(&path.with_extension("log.old")) > 8 * 1024 * 1024
    });
    reload();
    assert!(len(&path) < 1024, "it goes on in a new one");
    assert!(home.client(&["stop"]).ok);
    wait_until("the agent is gone", || home.client(&["ping"]).status == 3);
}
