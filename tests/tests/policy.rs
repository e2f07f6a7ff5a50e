//! Policies: which programs get tokens, and what waits until somebody confirms it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dph_agent_mock_platform::MockPlatform;
use dph_agent_tests::{AgentProcess, Home, Ran, Terminal, program, run, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";
const PASSPHRASE: &str = "correct horse battery staple";

/// A home whose profile `prod` has a policy, and a platform that knows its key.
struct Scene {
    home: Home,
    platform: MockPlatform,
}

impl Scene {
    fn new(policy: &str) -> Self {
        let scene = Self { home: Home::new(), platform: MockPlatform::start() };
        scene.platform.add_user("alice", KEY);
        scene.home.write("key", KEY);
        scene.configure(policy);
        scene
    }

    fn configure(&self, policy: &str) {
        let (ca, url) = (self.platform.write_ca(&self.home.path(".")), self.platform.url());
        self.home.write_config(&format!(
            "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{url}\"\nusername = \"alice\"\nca-file = \"{}\"\n\
             key-source = \"file:{}\"\n{policy}\n",
            ca.canonicalize().unwrap().display(),
            self.home.path("key").display()
        ));
    }

    /// Starts an agent on whose screen questions can be shown, as far as it knows.
    fn start_with_display(&self) -> AgentProcess<'_> {
        self.home.start_agent_with(|agent| agent.env("DISPLAY", ":7"))
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).display().to_string()
    }

    /// Makes a copy of the client that is a program of its own.
    fn copy_client(&self, name: &str) -> PathBuf {
        let path = self.home.path(name);
        fs::copy(program("dph-agent-client"), &path).unwrap();
        path
    }

    fn token_by(&self, program: &Path) -> Ran {
        run(self.home.command(program).arg("token"), "")
    }

    /// Starts a client that connects only once it is told a token; the caller may look at it before.
    fn waiting_for_input(&self, program: &Path) -> Child {
        let mut command = self.home.command(program);
        command.args(["token", "--reject"]);
        wait_for("the copy can be run", || spawn(&mut command).ok())
    }

    /// Starts a client in the background that asks for a token.
    fn ask(&self) -> Child {
        self.ask_within("60")
    }

    fn ask_within(&self, seconds: &str) -> Child {
        let mut command = self.home.command(program("dph-agent-client"));
        spawn(command.args(["token", "--timeout", seconds])).unwrap()
    }

    fn pending(&self) -> Vec<Value> {
        self.home.client(&["pending", "--json"]).json().as_array().unwrap().clone()
    }

    /// Waits until so many requests wait, and returns them.
    fn wait_for_pending(&self, count: usize) -> Vec<Value> {
        wait_for("requests wait", || Some(self.pending()).filter(|pending| pending.len() == count))
    }

    fn id_of_the_only_one(&self) -> String {
        id(&self.wait_for_pending(1)[0])
    }

    fn explain(&self, pid: u32) -> Value {
        let pid = pid.to_string();
        let ran = self.home.client(&["policy", "explain", "--pid", &pid, "--json"]);
        assert!(ran.ok, "{ran:?}");
        ran.json()
    }

    /// Writes a program that is run as the one of `confirm`.
    fn askpass(&self, script: &str) -> String {
        let path = self.home.write("askpass", &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    }

    fn set_passphrase(&self) {
        self.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], PASSPHRASE).unwrap();
        self.home.client_with(&["unlock", "--passphrase-stdin"], PASSPHRASE).unwrap();
    }

    /// Starts a client on a terminal of its own.
    fn on_terminal(&self, arguments: &[&str]) -> (Terminal, Child) {
        let terminal = Terminal::new();
        let mut client = self.home.command(program("dph-agent-client"));
        let mut client = terminal.controlling(client.args(arguments));
        let child = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        (terminal, child)
    }

    /// Approves on a terminal, with a passphrase.
    fn approve_with(&self, id: &str, passphrase: &str) -> Ran {
        let (mut terminal, client) = self.on_terminal(&["approve", id]);
        terminal.shown_until("Passphrase: ");
        terminal.type_keys(passphrase);
        terminal.type_keys("\r");
        end(client)
    }
}

fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn end(child: Child) -> Ran {
    Ran::from(child.wait_with_output().unwrap())
}

/// Tells a client that waits for input a token that nobody holds.
fn go_on(mut child: Child) -> Ran {
    child.stdin.take().unwrap().write_all(b"eyJ.unknown\n").unwrap();
    end(child)
}

fn id(request: &Value) -> String {
    request["id"].as_str().unwrap().to_owned()
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn only_the_programs_of_allow_get_tokens_and_a_refusal_names_nothing_else() {
    let scene = Scene::new("");
    let (mine, other) = (scene.copy_client("mine"), scene.copy_client("other"));
    symlink(&mine, scene.home.path("link")).unwrap();
    fs::hard_link(&mine, scene.home.path("second-name")).unwrap();
    scene.configure(&format!("allow = [\"/nowhere\", \"{}\"]", scene.path("link")));
    let _agent = scene.home.start_agent();
    scene.token_by(&mine).unwrap();
    scene.token_by(&scene.home.path("link")).unwrap();
    for stranger in [&other, &scene.home.path("second-name"), &program("dph-agent-client")] {
        let refused = scene.token_by(stranger);
        assert!(refused.failed_with(8).err.contains("`allow` of profile `prod`"), "{refused:?}");
        let own = stranger.canonicalize().unwrap().display().to_string();
        assert!(refused.err.contains(&own), "{refused:?}");
        for secret in ["/nowhere", &scene.path("mine"), &scene.path("link"), KEY] {
            assert!(!refused.err.contains(secret), "{secret}: {refused:?}");
        }
    }
    assert_eq!(scene.platform.exchanges(), 1, "nothing is bought for who is refused");
    for command in [&["status"][..], &["list"], &["ping"], &["ping", "--ready"]] {
        scene.home.client(command).unwrap();
    }
}

#[test]
fn a_program_that_was_replaced_on_the_disk_while_it_runs_is_refused() {
    let scene = Scene::new("");
    let mine = scene.copy_client("mine");
    scene.configure(&format!("allow = [\"{}\"]", mine.display()));
    let _agent = scene.home.start_agent();
    let running = scene.waiting_for_input(&mine);
    assert_eq!(scene.explain(running.id())["verdict"], "allowed");
    fs::rename(scene.copy_client("new"), &mine).unwrap();
    let explained = scene.explain(running.id());
    let refused = go_on(running);
    assert!(refused.failed_with(8).err.contains("replaced or deleted"), "{refused:?}");
    assert!(refused.err.contains(explained["reason"].as_str().unwrap()), "{explained}");
    scene.token_by(&mine).unwrap();
}

#[test]
fn a_script_is_its_interpreter() {
    if !has_python() {
        return skipped("no python3 on this machine: no script was run by it");
    }
    let scene = Scene::new("");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/dph_client.py");
    let script = scene.home.write("job.py", &fs::read_to_string(source).unwrap());
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let python =
        run(scene.home.command("python3").args(["-c", "import sys; print(sys.executable)"]), "").unwrap();
    let job = |scene: &Scene| run(scene.home.command(&script).arg(scene.home.socket()).arg("token"), "");
    scene.configure(&format!("allow = [\"{}\"]", script.display()));
    let agent = scene.home.start_agent();
    let refused = job(&scene);
    assert!(!refused.ok && refused.err.contains("denied") && refused.err.contains("python"), "{refused:?}");
    scene.configure(&format!("allow = [\"{python}\"]"));
    agent.signal(Signal::HUP);
    wait_until("the reload lets python in", || job(&scene).ok);
    scene.home.client(&["token"]).failed_with(8);
}

/// Starts the process that ends while a child of it goes on with its connection.
fn leaver(scene: &Scene, when: &str) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/leaves_its_connection.py");
    let mut command = scene.home.command("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).arg(scene.home.socket()).arg(when);
    spawn(&mut command).unwrap()
}

#[test]
fn a_number_that_is_used_again_is_not_believed() {
    if !has_python() {
        return skipped("no python3 on this machine: no process left its connection");
    }
    let scene = Scene::new("");
    let allowed = scene.home.path("allowed");
    fs::copy("/bin/sleep", &allowed).unwrap();
    scene.configure(&format!("allow = [\"{}\"]", allowed.display()));
    let _agent = scene.home.start_agent();
    let mut asker = leaver(&scene, "before");
    let number = asker.id();
    let (mut input, output) = (asker.stdin.take().unwrap(), asker.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines().map(Result::unwrap);
    asker.wait().unwrap();
    assert_eq!(lines.next().as_deref(), Some("alone"));
    let successor = successor_of(number, &allowed);
    if successor.is_some() {
        assert_eq!(scene.explain(number)["verdict"], "allowed", "the number alone would be let in");
    } else {
        skipped("the number could not be used again: only its absence was tested");
    }
    input.write_all(b"\n").unwrap();
    let answer = lines.next().unwrap();
    assert!(answer.starts_with("denied") && answer.contains("its process has ended"), "{answer}");
    if let Some(mut successor) = successor {
        successor.kill().unwrap();
        successor.wait().unwrap();
    }
}

/// Starts `program` under a certain number, where the system lets us choose the next one.
fn successor_of(number: u32, program: &Path) -> Option<Child> {
    for _ in 0..100 {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).ok()?;
        let mut child = Command::new(program).arg("600").spawn().ok()?;
        if child.id() == number {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

#[test]
fn a_process_that_has_ended_before_it_is_confirmed_gets_nothing() {
    if !has_python() {
        return skipped("no python3 on this machine: no process left its connection");
    }
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    let mut asker = leaver(&scene, "after");
    let id = scene.id_of_the_only_one();
    asker.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut lines = BufReader::new(asker.stdout.take().unwrap()).lines().map(Result::unwrap);
    asker.wait().unwrap();
    assert_eq!(lines.next().as_deref(), Some("alone"));
    scene.home.client(&["approve", &id]).unwrap();
    let answer = lines.next().unwrap();
    assert!(answer.starts_with("denied") && answer.contains("changed while the request waited"), "{answer}");
}

#[test]
fn without_a_display_a_request_waits_until_a_second_terminal_approves_it() {
    let scene = Scene::new("confirm = \"/usr/bin/ssh-askpass\"");
    let _agent = scene.home.start_agent();
    let asker = scene.ask();
    let waiting = scene.wait_for_pending(1).remove(0);
    assert_eq!(waiting["profile"], "prod");
    assert_eq!(waiting["pid"], asker.id());
    assert_eq!(waiting["exe"], program("dph-agent-client").canonicalize().unwrap().display().to_string());
    assert_eq!(waiting["parent"], std::env::current_exe().unwrap().display().to_string());
    assert!(waiting["expires_in"].as_u64().unwrap() <= 60 && waiting["since"].is_string(), "{waiting}");
    assert!(scene.home.client(&["pending"]).unwrap().starts_with(&format!("{}  prod  /", id(&waiting))));
    assert_eq!(scene.explain(asker.id())["verdict"], "confirm");
    let (_terminal, client) = scene.on_terminal(&["approve", &id(&waiting)]);
    end(client).unwrap();
    assert!(!end(asker).unwrap().is_empty());
    assert!(scene.pending().is_empty());
    scene.home.client(&["approve", &id(&waiting)]).failed_with(1);
}

#[test]
fn one_confirmation_is_for_one_request() {
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    for _ in 0..2 {
        let asker = scene.ask();
        scene.home.client(&["approve", &scene.id_of_the_only_one()]).unwrap();
        end(asker).unwrap();
    }
    assert_eq!(scene.platform.exchanges(), 1, "the token was held");
}

#[test]
fn of_two_that_wait_each_gets_its_own_answer() {
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    let (first, second) = (scene.ask(), scene.ask());
    let waiting = scene.wait_for_pending(2);
    let of = |child: &Child| id(waiting.iter().find(|request| request["pid"] == child.id()).unwrap());
    let (ours, theirs) = (of(&first), of(&second));
    scene.home.client(&["approve", &theirs]).unwrap();
    end(second).unwrap();
    assert_eq!(scene.id_of_the_only_one(), ours);
    scene.home.client(&["deny", &ours]).unwrap();
    let denied = end(first);
    assert!(
        denied.failed_with(8).err.contains("`confirm` of profile `prod`: the request was denied"),
        "{denied:?}"
    );
}

#[test]
fn a_request_that_nobody_answers_ends_with_its_time_or_that_of_the_policy() {
    let scene = Scene::new("confirm = true\nconfirm-timeout = \"1s\"");
    let agent = scene.home.start_agent();
    let expired = end(scene.ask());
    assert!(expired.failed_with(9).err.contains("nobody confirmed"), "{expired:?}");
    assert!(scene.pending().is_empty());
    scene.configure("confirm = true\nconfirm-timeout = \"5m\"");
    agent.signal(Signal::HUP);
    wait_until("the reload is in force", || scene.home.log().contains("read the configuration"));
    let expired = end(scene.ask_within("1"));
    assert!(expired.failed_with(9).err.contains("nobody confirmed"), "{expired:?}");
    assert!(scene.pending().is_empty());
    assert_eq!(scene.platform.exchanges(), 0);
}

#[test]
fn a_request_is_forgotten_with_who_asked() {
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    let mut asker = scene.ask();
    let id = scene.id_of_the_only_one();
    asker.kill().unwrap();
    asker.wait().unwrap();
    scene.wait_for_pending(0);
    scene.home.client(&["approve", &id]).failed_with(1);
    scene.home.client(&["deny", &id]).failed_with(1);
}

#[test]
fn where_a_passphrase_is_set_approving_takes_it() {
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    scene.set_passphrase();
    let asker = scene.ask();
    let id = scene.id_of_the_only_one();
    scene.home.client(&["approve", &id]).failed_with(2);
    scene.home.client_with(&["approve", &id, "--passphrase-stdin"], "wrong").failed_with(4);
    scene.approve_with(&id, "wrong").failed_with(4);
    assert_eq!(scene.id_of_the_only_one(), id, "it still waits");
    scene.approve_with(&id, PASSPHRASE).unwrap();
    end(asker).unwrap();
    let asker = scene.ask();
    scene.home.client(&["deny", &scene.id_of_the_only_one()]).unwrap();
    end(asker).failed_with(8);
}

#[test]
fn a_lock_ends_what_waits_and_a_locked_agent_shows_nothing() {
    let scene = Scene::new("confirm = true");
    let _agent = scene.home.start_agent();
    let asker = scene.ask();
    let id = scene.id_of_the_only_one();
    scene.home.client(&["lock"]).unwrap();
    end(asker).failed_with(4);
    for command in [&["pending"][..], &["approve", &id], &["deny", &id], &["policy", "explain", "--pid", "1"]]
    {
        scene.home.client(command).failed_with(4);
    }
    scene.home.client(&["unlock"]).unwrap();
    assert!(scene.pending().is_empty());
}

#[test]
fn an_agent_that_stops_does_not_wait_for_an_answer() {
    let scene = Scene::new("confirm = true");
    let agent = scene.home.start_agent();
    let asker = scene.ask();
    scene.wait_for_pending(1);
    let begin = Instant::now();
    agent.stop();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    end(asker).failed_with(1);
}

#[test]
fn the_program_of_confirm_is_asked_and_its_end_is_the_answer() {
    let scene = Scene::new("");
    let seen = scene.path("seen");
    for (status, expected) in [(0, 0), (1, 8)] {
        let script = format!("printf '%s\\n' \"$#\" \"$1\" \"$DISPLAY\" >'{seen}'; exit {status}");
        scene.configure(&format!("confirm = \"{}\"", scene.askpass(&script)));
        let agent = scene.start_with_display();
        let asker = scene.ask();
        let pid = asker.id();
        let ran = end(asker);
        assert_eq!(ran.status, expected, "{ran:?}");
        let seen = fs::read_to_string(&seen).unwrap();
        let [count, question, display] = seen.lines().collect::<Vec<_>>()[..] else { panic!("{seen}") };
        assert_eq!((count, display), ("1", ":7"));
        assert!(
            question.contains("dph-agent-client") && question.contains(&format!("process {pid}")),
            "{question}"
        );
        assert!(question.contains("profile prod") && !question.contains(KEY), "{question}");
        agent.stop();
    }
}

#[test]
fn a_question_on_the_screen_can_be_answered_from_a_terminal_and_goes_away_with_all_that_it_started() {
    let scene = Scene::new("");
    let pids = scene.path("pids");
    let script = format!("sleep 600 & echo $$ $! >'{pids}.new'; mv '{pids}.new' '{pids}'; wait");
    scene.configure(&format!("confirm = \"{}\"", scene.askpass(&script)));
    let _agent = scene.start_with_display();
    let asker = scene.ask();
    let started = wait_for("the program asks", || fs::read_to_string(&pids).ok());
    scene.home.client(&["approve", &scene.id_of_the_only_one()]).unwrap();
    end(asker).unwrap();
    for pid in started.split_whitespace() {
        wait_until("the question goes away", || !is_running(pid));
    }
    fs::remove_file(&pids).unwrap();
    let mut asker = scene.ask();
    let started = wait_for("the program asks again", || fs::read_to_string(&pids).ok());
    asker.kill().unwrap();
    asker.wait().unwrap();
    for pid in started.split_whitespace() {
        wait_until("the question goes away with who asked", || !is_running(pid));
    }
}

#[test]
fn where_the_program_cannot_be_run_or_there_is_no_display_a_request_waits() {
    let scene = Scene::new("confirm = \"/nowhere/askpass\"");
    let agent = scene.start_with_display();
    let asker = scene.ask();
    scene.home.client(&["approve", &scene.id_of_the_only_one()]).unwrap();
    end(asker).unwrap();
    assert!(scene.home.log().contains("names a program that cannot be run"), "{}", scene.home.log());
    agent.stop();
    scene.configure(&format!("confirm = \"{}\"", scene.askpass("touch ran; exit 0")));
    let _agent = scene.home.start_agent();
    let asker = scene.ask();
    scene.home.client(&["deny", &scene.id_of_the_only_one()]).unwrap();
    end(asker).failed_with(8);
    assert!(!scene.home.path("ran").exists());
}

#[test]
fn explain_tells_what_happens_and_why() {
    let scene = Scene::new("");
    let (mine, other) = (scene.copy_client("mine"), scene.copy_client("other"));
    scene.configure(&format!("allow = [\"{}\", \"/nowhere\"]", mine.display()));
    let _agent = scene.home.start_agent();
    for (program, verdict) in [(&mine, "allowed"), (&other, "denied")] {
        let running = scene.waiting_for_input(program);
        let explained = scene.explain(running.id());
        assert_eq!(explained["verdict"], verdict);
        assert_eq!(explained["exe"], program.canonicalize().unwrap().display().to_string());
        let notes = explained["notes"].to_string();
        assert!(
            notes.contains("interpreter") && notes.contains("/nowhere, which cannot be found"),
            "{notes}"
        );
        let ran = go_on(running);
        assert_eq!(ran.ok, verdict == "allowed", "{ran:?}");
        assert!(ran.ok || ran.err.contains(explained["reason"].as_str().unwrap()), "{ran:?}: {explained}");
    }
    let text = scene.home.client(&["policy", "explain", "--pid", &std::process::id().to_string()]).unwrap();
    assert!(text.starts_with("denied: ") && text.contains("`allow` of profile `prod`"), "{text}");
    scene.home.client(&["policy", "explain", "--pid", "4294967295"]).failed_with(1);
    scene.home.client(&["policy", "explain"]).failed_with(2);
}

#[test]
fn a_reload_changes_the_policy_at_once_also_for_what_waits() {
    let scene = Scene::new("confirm = true");
    let agent = scene.home.start_agent();
    let asker = scene.ask();
    let id = scene.id_of_the_only_one();
    scene.configure("allow = [\"/nowhere\"]");
    agent.signal(Signal::HUP);
    wait_until("the reload is in force", || scene.home.log().contains("read the configuration"));
    scene.home.client(&["token"]).failed_with(8);
    scene.home.client(&["approve", &id]).unwrap();
    assert!(end(asker).failed_with(8).err.contains("changed while the request waited"));
    scene.configure("");
    agent.signal(Signal::HUP);
    wait_until("everybody may again", || scene.home.client(&["token"]).ok);
}

#[test]
fn adding_a_key_again_keeps_the_policy() {
    let scene = Scene::new("allow = [\"/nowhere\"] # nobody yet");
    let _agent = scene.home.start_agent();
    let key = scene.home.write("other-key", KEY);
    let source = format!("file:{}", key.display());
    scene.home.client(&["add", "--profile", "prod", "--key-source", &source]).unwrap();
    assert!(fs::read_to_string(scene.home.config()).unwrap().contains("allow = [\"/nowhere\"] # nobody yet"));
    scene.home.client(&["token"]).failed_with(8);
}
