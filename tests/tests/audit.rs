//! The audit log, as a user, an attacker and a broken disk meet it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use dph_agent_mock_platform::MockPlatform;
use dph_agent_tests::{AgentProcess, Home, Ran, Raw, program, run, wait_for, wait_until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getuid, prlimit};
use serde_json::Value;

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";
const PASSPHRASE: &str = "correct horse battery staple";
/// The user whom Linux calls nobody.
const GUEST: u32 = 65534;

/// A home with the profile `prod`, whose key is in a file.
struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { home: Home::new(), platform: MockPlatform::start() };
        scene.platform.add_user("alice", KEY);
        scene.home.write("key", KEY);
        scene.configure("");
        scene
    }

    fn configure(&self, top: &str) {
        self.configure_with(top, "");
    }

    fn configure_with(&self, top: &str, policy: &str) {
        let ca = self.platform.write_ca(&self.home.path(".")).canonicalize().unwrap();
        self.home.write_config(&format!(
            "{top}\n[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\n\
             ca-file = \"{}\"\nkey-source = \"file:{}\"\n{policy}",
            self.platform.url(),
            ca.display(),
            self.home.path("key").display()
        ));
    }

    fn file(&self) -> PathBuf {
        self.home.path(".local/state/dph-agent/audit.jsonl")
    }

    fn audit(&self, arguments: &[&str]) -> Ran {
        self.audit_with(arguments, "")
    }

    fn audit_with(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.home.command(program("dph-agent")).arg("audit").args(arguments), input)
    }

    fn verify(&self) -> String {
        self.audit(&["verify"]).unwrap()
    }

    /// Returns the lines with this event.
    fn lines(&self, event: &str) -> Vec<Value> {
        let ran = self.audit(&["--json"]);
        let lines = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }

    fn wait_for_line(&self, event: &str, code: &str) -> Value {
        wait_for(&format!("{event} {code}"), || {
            self.lines(event).into_iter().find(|line| line["code"].as_str().unwrap_or("") == code)
        })
    }

    fn state(&self) -> Value {
        self.home.client(&["status", "--json"]).json()["agent"]["audit"].clone()
    }

    /// Holds up whoever wants to write, as a disk does that hangs.
    fn hang(&self) -> File {
        let lock = File::open(self.home.path(".local/state/dph-agent/audit.lock")).unwrap();
        lock.lock().unwrap();
        lock
    }

    fn tokens(&self, callers: usize, each: usize) {
        thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| (0..each).for_each(|_| drop(self.home.client(&["token"]).unwrap())));
            }
        });
    }
}

#[test]
fn twenty_parallel_callers_leave_exactly_as_many_lines_as_they_got_tokens() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.tokens(20, 5);
    agent.stop();
    let lines = scene.lines("token");
    assert_eq!(lines.len(), 100);
    for line in &lines {
        assert_eq!((&line["decision"], &line["profile"]), (&"granted".into(), &"prod".into()), "{line}");
        assert_eq!(line["uid"], getuid().as_raw());
        assert!(line["exe"].as_str().unwrap().ends_with("/dph-agent-client"), "{line}");
        assert!(line["pid"].is_u64() && line["token"].as_str().unwrap().len() == 16, "{line}");
    }
    let bought = scene.lines("refresh");
    assert_eq!((bought.len(), &bought[0]["token"]), (1, &lines[0]["token"]));
    assert_eq!(bought[0].get("pid"), None, "the agent did it by itself");
    assert!(scene.verify().starts_with("whole: "));
    assert_eq!((scene.lines("started").len(), scene.lines("stopped").len()), (1, 1));
}

#[test]
fn refusals_and_all_that_changes_something_are_recorded() {
    let scene = Scene::new();
    let _agent = scene.home.start_agent();
    let client = |line: &str| scene.home.client(&line.split(' ').collect::<Vec<_>>());
    client("token --profile nobody").failed_with(5);
    let unknown = scene.wait_for_line("token", "no-such-profile");
    assert_eq!((&unknown["decision"], unknown.get("profile")), (&"refused".into(), None));
    client("refresh").unwrap();
    assert_eq!(scene.wait_for_line("retry", "")["profile"], "prod");
    client("default prod").unwrap();
    scene.wait_for_line("default", "");
    client("add --profile prod --no-verify").unwrap();
    assert_eq!(scene.wait_for_line("add", "")["profile"], "prod");
    scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], PASSPHRASE).unwrap();
    scene.wait_for_line("lock", "");
    client("token").failed_with(4);
    assert_eq!(scene.wait_for_line("token", "locked")["decision"], "refused");
    assert_eq!(scene.state()["mode"], "on", "a locked agent tells how its log stands");
    scene.home.client_with(&["unlock", "--passphrase-stdin"], "wrong").failed_with(4);
    scene.wait_for_line("unlock", "wrong-passphrase");
    scene.home.client_with(&["unlock", "--passphrase-stdin"], PASSPHRASE).unwrap();
    scene.wait_for_line("unlock", "");
    client("forget --yes --dry-run").unwrap();
    client("forget --yes").unwrap();
    scene.wait_for_line("forget", "");
    assert_eq!(scene.lines("forget").len(), 1, "what only looks is not recorded");
    client("token").failed_with(5);
    scene.wait_for_line("token", "no-key");
}

#[test]
fn other_users_and_guests_are_recorded() {
    let scene = Scene::new();
    let Some(_agent) = open_to_guest(&scene) else { return };
    let guest = |uid: u32, line: &str| {
        let mut command = scene.home.command(scene.home.path("client"));
        command.uid(uid).gid(uid).arg("--socket").arg(scene.home.path("shared/agent.sock"));
        run(command.args(["--server-uid", "0"]).args(line.split(' ')), "")
    };
    guest(GUEST, "token").unwrap();
    assert_eq!(scene.wait_for_line("token", "")["uid"], GUEST);
    guest(GUEST, "forget --yes").failed_with(8);
    assert_eq!(scene.wait_for_line("forget", "denied")["uid"], GUEST);
    let status = guest(GUEST, "status --json").json();
    assert_eq!(status["agent"].get("audit"), None, "guests do not learn where the log is");
    assert_eq!(scene.wait_for_line("look", "denied")["request"], "audit-state");
    guest(GUEST - 1, "token").failed_with(8);
    assert_eq!(scene.wait_for_line("connect", "denied")["uid"], GUEST - 1);
}

#[test]
fn strangers_who_try_again_and_again_leave_two_lines_and_two_warnings() {
    let scene = Scene::new();
    let Some(mut agent) = open_to_guest(&scene) else { return };
    let socket = scene.home.path("shared/agent.sock");
    for _ in 0..200 {
        assert!(Raw::connect_as(GUEST - 1, &socket).reply().is_some(), "each is told why");
    }
    scene.home.client(&["stop", "--socket", &socket.display().to_string()]).unwrap();
    agent.wait();
    let counts: Vec<_> = scene.lines("connect").iter().map(|line| line["count"].as_u64()).collect();
    assert_eq!(counts, [None, Some(199)]);
    assert!(scene.lines("connect").iter().all(|line| line["uid"] == GUEST - 1));
    assert_eq!(scene.home.log().matches("refused a connection of another user").count(), 2);
    scene.verify();
}

/// Returns nothing for a user who cannot play another.
#[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
fn open_to_guest(scene: &Scene) -> Option<AgentProcess<'_>> {
    if !getuid().is_root() {
        eprintln!("skipped: only root can play another user");
        return None;
    }
    scene.configure(&format!("allow-uid = [{GUEST}]"));
    let open = |name: &str| fs::set_permissions(scene.home.path(name), fs::Permissions::from_mode(0o755));
    fs::create_dir(scene.home.path("shared")).unwrap();
    fs::copy(program("dph-agent-client"), scene.home.path("client")).unwrap();
    [".", "shared", "client"].iter().for_each(|name| open(name).unwrap());
    let socket = scene.home.path("shared/agent.sock");
    let agent = scene.home.spawn_agent_with(|agent| agent.arg("--socket").arg(&socket));
    let socket = socket.display().to_string();
    wait_until("the agent answers", || scene.home.client(&["ping", "--socket", &socket]).ok);
    Some(agent)
}

#[test]
fn no_line_holds_a_key_a_token_or_a_passphrase() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    let token = scene.home.client(&["token"]).unwrap();
    scene.home.client(&["token", "--profile", KEY]).failed_with(5);
    scene.home.client(&["token", "--for-url", &format!("https://{KEY}")]).failed_with(5);
    scene.home.client_with(&["token", "--reject"], &token).unwrap();
    scene.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], PASSPHRASE).unwrap();
    scene.home.client_with(&["unlock", "--passphrase-stdin"], PASSPHRASE).unwrap();
    agent.stop();
    let log = fs::read_to_string(scene.file()).unwrap();
    assert!(log.lines().count() > 6, "{log}");
    for secret in [KEY, PASSPHRASE, &token, &token[..20]] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_leaked_token_tells_which_hand_outs_it_came_from_and_is_not_shown() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    let token = scene.home.client(&["token"]).unwrap();
    scene.home.client(&["token"]).unwrap();
    agent.stop();
    let found = scene.audit_with(&["--token-stdin"], &format!("{token}\n")).unwrap();
    assert_eq!(found.lines().count(), 3, "bought once and handed out twice: {found}");
    assert!(!found.contains(&token));
    let beside =
        scene.home.client_with(&["audit", "--token-stdin", "--json", "--profile", "prod"], &token).unwrap();
    assert_eq!(beside.lines().count(), 3, "the client runs the program beside it");
    let other = scene.audit_with(&["--token-stdin"], "eyJ.other.sig");
    assert!(other.failed_with(1).err.contains("no line is about this token"), "{other:?}");
    assert_eq!(scene.audit_with(&["--token-stdin"], "").status, 1);
    assert_eq!(scene.audit(&["--since", "soon"]).status, 2);
    assert_eq!(scene.audit(&["--since", "2999-01-01"]).unwrap(), "");
    assert!(scene.audit(&["--since", "1h"]).unwrap().contains(" token     granted  prod "));
}

#[test]
fn random_changes_of_a_real_log_are_found_by_the_program() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.tokens(4, 5);
    agent.stop();
    let log = fs::read(scene.file()).unwrap();
    scene.verify();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..60 {
        let mut changed = log.clone();
        let at = random(log.len());
        changed[at] ^= u8::try_from(1 + random(255)).unwrap();
        fs::write(scene.file(), &changed).unwrap();
        let ran = scene.audit(&["verify"]);
        assert!(ran.failed_with(1).err.contains("audit.jsonl, line "), "byte {at}: {ran:?}");
    }
}

#[test]
fn the_head_from_the_agents_log_shows_that_the_end_was_cut_off() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.tokens(1, 3);
    wait_until("all is written", || scene.lines("token").len() == 3);
    let status = scene.state();
    agent.stop();
    assert!(scene.audit(&["verify", "--head", status["head"].as_str().unwrap()]).ok);
    let log = scene.home.log();
    let last = log.lines().rfind(|line| line.contains("the audit log ends here")).unwrap();
    let head = last.split("head=").nth(1).and_then(|rest| rest.split([' ', '"']).find(|it| !it.is_empty()));
    let head = head.unwrap();
    assert!(scene.verify().contains(head), "{last}");
    let whole = fs::read_to_string(scene.file()).unwrap();
    let end = whole.trim_end().rfind('\n').unwrap() + 1;
    fs::write(scene.file(), &whole[..end]).unwrap();
    scene.verify();
    let cut = scene.audit(&["verify", "--head", head]);
    assert!(cut.failed_with(1).err.contains("cut off"), "{cut:?}");
    assert_eq!(scene.audit(&["verify", "--head", "xyz"]).status, 2);
}

#[test]
fn a_torn_last_line_is_no_tampering_and_the_chain_goes_on_behind_it() {
    let scene = Scene::new();
    scene.home.start_agent().stop();
    let whole = fs::read_to_string(scene.file()).unwrap();
    fs::write(scene.file(), &whole[..whole.len() - 30]).unwrap();
    let verdict = scene.verify();
    assert!(verdict.contains("note: audit.jsonl, line 4: not finished"), "{verdict}");
    scene.home.start_agent().stop();
    let verdict = scene.verify();
    assert!(verdict.contains("before line 5: the rest of an unfinished line"), "{verdict}");
    assert!(fs::read_to_string(scene.file()).unwrap().starts_with(&whole[..whole.len() - 30]));
}

#[test]
fn an_agent_killed_in_the_middle_of_many_hand_outs_leaves_a_whole_log_that_goes_on() {
    let scene = Scene::new();
    for mode in ["on", "required"] {
        scene.configure(&format!("audit = \"{mode}\""));
        let mut agent = scene.home.start_agent();
        scene.home.client(&["token"]).unwrap();
        let before = scene.lines("token").len();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| while scene.home.client(&["token"]).ok {});
            }
            wait_until("hand-outs are recorded", || scene.lines("token").len() > before + 30);
            agent.signal(Signal::KILL);
            agent.wait();
        });
        scene.verify();
        let again = scene.home.start_agent();
        scene.home.client(&["token"]).unwrap();
        again.stop();
        scene.verify();
    }
}

#[test]
fn a_full_disk_is_reported_and_what_was_lost_is_told_once_there_is_room() {
    let scene = Scene::new();
    let agent = start_under_limits(&scene);
    scene.home.client(&["token"]).unwrap();
    wait_until("all is written", || scene.lines("token").len() == 1);
    fill(&scene, &agent);
    for _ in 0..10 {
        scene.home.client(&["token"]).unwrap();
    }
    let state = wait_for("lines are lost", || Some(scene.state()).filter(|it| it["lost"].as_u64() > Some(4)));
    assert!(state["error"].as_str().unwrap().contains("audit log"), "{state}");
    scene.verify();
    limit(&agent, None);
    scene.home.client(&["token"]).unwrap();
    wait_until("it is written again", || scene.state()["error"].is_null());
    let told: u64 = scene.lines("lost").iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(Some(told), scene.state()["lost"].as_u64());
    assert_eq!(scene.lines("token").len() as u64 + told, 12);
    let verdict = scene.verify();
    assert!(verdict.contains("could not be written before this one"), "{verdict}");
}

#[test]
fn where_it_is_required_a_full_disk_stops_hand_outs_and_nothing_else() {
    let scene = Scene::new();
    scene.configure("audit = \"required\"");
    let agent = start_under_limits(&scene);
    scene.home.client(&["token"]).unwrap();
    assert_eq!(scene.lines("token").len(), 1, "it was written before the answer");
    fill(&scene, &agent);
    wait_until("the disk is full", || !scene.home.client(&["token"]).ok);
    let refused = scene.home.client(&["token"]);
    assert!(refused.failed_with(8).err.contains("cannot be recorded"), "{refused:?}");
    scene.home.client(&["refresh"]).unwrap();
    scene.home.client(&["lock"]).unwrap();
    scene.home.client(&["unlock"]).unwrap();
    limit(&agent, None);
    scene.home.client(&["token"]).unwrap();
    scene.verify();
}

/// Starts an agent that gets an error in place of a signal when a file becomes too long.
fn start_under_limits(scene: &Scene) -> AgentProcess<'_> {
    scene.home.start_agent_with(|agent| {
        *agent = scene.home.command("sh");
        agent.args(["-c", "trap '' XFSZ; exec \"$0\" --log-level off"]).arg(program("dph-agent"))
    })
}

/// Leaves room for a part of a line.
fn fill(scene: &Scene, agent: &AgentProcess<'_>) {
    limit(agent, Some(fs::metadata(scene.file()).unwrap().len() + 100));
}

fn limit(agent: &AgentProcess<'_>, current: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_and_loses_nothing_that_finds_room() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    wait_until("all is written", || scene.lines("token").len() == 1);
    let hanging = scene.hang();
    let (len, begin) = (fs::metadata(scene.file()).unwrap().len(), Instant::now());
    scene.tokens(4, 10);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(fs::metadata(scene.file()).unwrap().len(), len, "nothing could be written");
    drop(hanging);
    agent.stop();
    let lost: u64 = scene.lines("lost").iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(scene.lines("token").len() as u64 + lost, 41);
    scene.verify();
}

#[test]
fn where_it_is_required_a_disk_that_hangs_stops_hand_outs_in_time() {
    let scene = Scene::new();
    scene.configure("audit = \"required\"");
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    let hanging = scene.hang();
    scene.home.client(&["token"]).failed_with(8);
    scene.home.client(&["ping"]).unwrap();
    drop(hanging);
    scene.home.client(&["token"]).unwrap();
}

#[test]
fn a_lock_that_comes_while_a_hand_out_waits_for_the_disk_stops_it() {
    let scene = Scene::new();
    scene.configure("audit = \"required\"");
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    let served = || scene.home.client(&["status", "--json"]).json()["profiles"][0]["served"].as_u64();
    let before = served();
    let hanging = scene.hang();
    thread::scope(|scope| {
        let asking = scope.spawn(|| scene.home.client(&["token"]));
        wait_until("the token waits for the disk", || served() > before);
        scene.home.client(&["lock"]).unwrap();
        drop(hanging);
        asking.join().unwrap().failed_with(4);
    });
    scene.wait_for_line("token", "locked");
    scene.verify();
}

#[test]
fn a_reload_puts_another_mode_into_force_and_that_is_recorded() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    scene.configure("audit = \"off\"");
    agent.signal(Signal::HUP);
    wait_until("it is off", || scene.state()["mode"] == "off");
    scene.home.client(&["token"]).unwrap();
    scene.configure("audit = \"required\"");
    agent.signal(Signal::HUP);
    wait_until("it is required", || scene.state()["mode"] == "required");
    scene.home.client(&["token"]).unwrap();
    assert_eq!(scene.lines("token").len(), 2);
    let modes: Vec<_> = scene.lines("mode").iter().map(|line| line["mode"].clone()).collect();
    assert_eq!(modes, ["off", "required"]);
    let state = scene.state();
    assert!(scene.verify().contains(state["head"].as_str().unwrap()));
    assert_eq!(state["file"], scene.file().display().to_string());
}

/// Returns how many lines the log says are missing.
fn told_as_lost(scene: &Scene) -> u64 {
    scene.lines("lost").iter().map(|line| line["lines"].as_u64().unwrap()).sum()
}

#[test]
fn what_a_full_disk_still_refuses_at_the_end_is_told_by_the_next_agent() {
    let scene = Scene::new();
    let agent = start_under_limits(&scene);
    scene.home.client(&["token"]).unwrap();
    wait_until("all is written", || scene.lines("token").len() == 1);
    fill(&scene, &agent);
    (0..5).for_each(|_| drop(scene.home.client(&["token"]).unwrap()));
    agent.stop();
    for _ in 0..2 {
        scene.home.start_agent().stop();
        assert_eq!(told_as_lost(&scene), 7, "five tokens, the command and the end");
    }
    assert!(scene.verify().contains("7 lines could not be written before this one"));
}

#[test]
fn what_a_disk_that_hangs_never_took_is_told_by_the_next_agent() {
    let scene = Scene::new();
    let agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    wait_until("all is written", || scene.lines("token").len() == 1);
    let hanging = scene.hang();
    (0..3).for_each(|_| drop(scene.home.client(&["token"]).unwrap()));
    agent.stop();
    drop(hanging);
    scene.home.start_agent().stop();
    assert_eq!(told_as_lost(&scene), 5, "three tokens, the command and the end");
    scene.verify();
}

#[test]
fn an_agent_that_starts_with_the_log_off_says_so_once() {
    let scene = Scene::new();
    scene.configure("audit = \"off\"");
    scene.home.start_agent().stop();
    assert!(!scene.file().exists(), "there is no log to say it in");
    scene.configure("");
    scene.home.start_agent().stop();
    scene.configure("audit = \"off\"");
    (0..2).for_each(|_| scene.home.start_agent().stop());
    let modes: Vec<_> = scene.lines("mode").iter().map(|line| line["mode"].clone()).collect();
    assert_eq!(modes, ["off"]);
    scene.verify();
}

#[test]
fn a_pipe_in_the_place_of_an_older_file_is_told_and_holds_up_nobody() {
    let scene = Scene::new();
    let older = scene.home.write(".local/state/dph-agent/audit.000003.jsonl", "");
    fs::remove_file(&older).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &older, mode).unwrap();
    let _agent = scene.home.start_agent();
    scene.home.client(&["token"]).unwrap();
    let error = wait_for("it is told", || scene.state()["error"].as_str().map(str::to_owned));
    assert!(error.contains("not a regular file"), "{error}");
    let refused = scene.audit(&["verify"]);
    assert!(
        refused.failed_with(1).err.contains("audit.000003.jsonl: it is not a regular file"),
        "{refused:?}"
    );
}

#[test]
fn a_newest_file_that_is_gone_beside_older_ones_is_found() {
    let scene = Scene::new();
    scene.home.start_agent().stop();
    fs::rename(scene.file(), scene.file().with_file_name("audit.000001.jsonl")).unwrap();
    for _ in 0..2 {
        let found = scene.audit(&["verify"]);
        assert!(
            found.failed_with(1).err.contains("audit.jsonl, line 1: this file is gone or empty"),
            "{found:?}"
        );
        fs::write(scene.file(), "").unwrap();
    }
    scene.home.start_agent().stop();
    scene.verify();
}

#[test]
fn a_reload_that_protects_less_is_recorded_and_warned_of() {
    let scene = Scene::new();
    let strict = "audit = \"required\"\nidle-lock = \"5m\"";
    scene.configure_with(strict, "allow = [\"/bin/sh\"]\nconfirm = true\n");
    let agent = scene.home.start_agent();
    let reload = |top: &str, policy: &str| {
        let before = scene.home.log().matches("read the configuration").count();
        scene.configure_with(top, policy);
        agent.signal(Signal::HUP);
        wait_until("it is reloaded", || scene.home.log().matches("read the configuration").count() > before);
    };
    reload(strict, "allow = [\"/bin/sh\", \"/bin/ls\"]\nallow-zen = true\n");
    reload("audit = \"off\"\nidle-lock = \"1h\"", "allow = [\"/bin/sh\"]\n");
    drop(agent);
    let told: Vec<_> = scene
        .lines("config")
        .into_iter()
        .map(|line| (line["profile"].clone(), line["weaker"].clone()))
        .collect();
    let profile = serde_json::json!(["allow", "confirm", "allow-zen"]);
    let whole = serde_json::json!(["audit", "idle-lock"]);
    assert_eq!(told, [("prod".into(), profile), (Value::Null, whole)]);
    assert_eq!(scene.home.log().matches("the configuration protects less than before").count(), 2);
    assert!(scene.audit(&["--profile", "prod"]).unwrap().contains("config"));
}

#[test]
fn a_home_without_a_log_is_told_so() {
    let home = Home::new();
    let none = run(home.command(program("dph-agent")).args(["audit", "verify"]), "");
    assert!(none.failed_with(1).err.contains("there is no audit log in"), "{none:?}");
}
