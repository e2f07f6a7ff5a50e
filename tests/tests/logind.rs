//! Suspend and screen lock: the agent with a stand-in for logind, on a system bus of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use dph_agent_tests::{AgentProcess, Home, program, run, wait_for, wait_until};
use rustix::process::{Signal, geteuid};
use zbus::blocking::{Connection, connection};
use zbus::message::Header;
use zbus::zvariant::{DynamicType, OwnedObjectPath, Value};

const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/login1";
const SESSION: &str = "org.freedesktop.login1.Session";
const OURS: &str = "/org/freedesktop/login1/session/_31";
const THEIRS: &str = "/org/freedesktop/login1/session/_32";
const SUSPEND: &str = "lock-on-suspend = true\n";
const SCREEN_LOCK: &str = "lock-on-screen-lock = true\n";
const BOTH: &str = "lock-on-suspend = true\nlock-on-screen-lock = true\n";

/// What the agent did at the stand-in.
#[derive(Default)]
struct Seen {
    /// Read to their end, they tell when the agent lets the machine sleep.
    delays: Vec<PipeReader>,
    /// Who was it.
    caller: Option<String>,
    /// How often somebody asked whose session it is, by path.
    asked_whose: HashMap<&'static str, usize>,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

struct Manager {
    notes: Notes,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(
        &self,
        what: &str,
        who: &str,
        why: &str,
        mode: &str,
        #[zbus(header)] header: Header<'_>,
    ) -> zbus::zvariant::OwnedFd {
        assert_eq!((what, who, why, mode), ("sleep", "dph-agent", "lock the keys", "delay"));
        let (reader, writer) = std::io::pipe().unwrap();
        self.notes.look(|seen| {
            seen.caller = header.sender().map(ToString::to_string);
            seen.delays.push(reader);
        });
        OwnedFd::from(writer).into()
    }

    fn list_sessions(
        &self,
        #[zbus(header)] header: Header<'_>,
    ) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        self.notes.look(|seen| seen.caller = header.sender().map(ToString::to_string));
        let session = |id: &str, uid, path| {
            (id.to_owned(), uid, String::new(), String::new(), OwnedObjectPath::try_from(path).unwrap())
        };
        vec![session("2", another_uid(), THEIRS), session("1", geteuid().as_raw(), OURS)]
    }

    #[zbus(property)]
    fn preparing_for_sleep(&self) -> bool {
        false
    }
}

struct Session {
    path: &'static str,
    uid: u32,
    locked: bool,
    notes: Notes,
}

#[zbus::interface(name = "org.freedesktop.login1.Session")]
impl Session {
    #[zbus(property)]
    fn user(&self) -> (u32, OwnedObjectPath) {
        self.notes.look(|seen| *seen.asked_whose.entry(self.path).or_default() += 1);
        (self.uid, OwnedObjectPath::try_from("/org/freedesktop/login1/user/_1000").unwrap())
    }

    #[zbus(property)]
    fn locked_hint(&self) -> bool {
        self.locked
    }
}

fn another_uid() -> u32 {
    geteuid().as_raw() + 1
}

/// The stand-in, on the bus until it is dropped.
struct Logind {
    connection: Connection,
    notes: Notes,
}

impl Logind {
    fn emit<B: zbus::export::serde::Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        signal: &str,
        body: &B,
    ) {
        self.connection.emit_signal(None::<&str>, path, interface, signal, body).unwrap();
    }

    fn prepare_for_sleep(&self, start: bool) {
        self.emit(MANAGER_PATH, MANAGER, "PrepareForSleep", &start);
    }

    fn hint(&self, session: &str, property: &str, value: bool) {
        let changed = HashMap::from([(property, Value::from(value))]);
        let body = (SESSION, changed, Vec::<&str>::new());
        self.emit(session, "org.freedesktop.DBus.Properties", "PropertiesChanged", &body);
    }

    /// Waits for the delay that the agent takes next.
    fn delay(&self) -> PipeReader {
        wait_for("the agent takes a delay", || self.notes.look(|seen| seen.delays.pop()))
    }

    fn caller(&self) -> String {
        wait_for("the agent asks something", || self.notes.look(|seen| seen.caller.clone()))
    }

    fn asked_whose(&self, session: &str) -> usize {
        self.notes.look(|seen| seen.asked_whose.get(session).copied().unwrap_or_default())
    }

    /// Returns when the agent has heard all that was sent before.
    fn is_heard(&self) {
        self.prepare_for_sleep(false);
        self.delay();
    }
}

/// Waits until the agent lets go of a delay.
fn released(mut delay: PipeReader) {
    assert_eq!(delay.read(&mut [0]).unwrap(), 0);
}

/// A home with a system bus.
struct Machine {
    bus: Mutex<Option<Child>>,
    home: Home,
}

impl Machine {
    /// Returns `None`, and says so, where this machine has no bus to test with.
    fn new() -> Option<Self> {
        if Command::new("dbus-daemon").arg("--version").output().is_err() {
            skipped();
            return None;
        }
        Some(Self { bus: Mutex::default(), home: Home::new() })
    }

    fn with_bus() -> Option<Self> {
        let machine = Self::new()?;
        machine.start_bus();
        Some(machine)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.home.path("run/system_bus").display())
    }

    fn start_bus(&self) {
        let mut bus = self.home.command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--address", &self.address()]);
        *self.bus.lock().unwrap() = Some(bus.stderr(Stdio::null()).spawn().unwrap());
        wait_until("the bus answers", || self.connect().is_ok());
    }

    fn connect(&self) -> zbus::Result<Connection> {
        connection::Builder::address(self.address().as_str())?.build()
    }

    fn start_logind(&self) -> Logind {
        self.start_logind_with(false)
    }

    fn start_logind_with(&self, locked: bool) -> Logind {
        let notes = Notes::default();
        let session = |path, uid, locked| Session { path, uid, locked, notes: notes.clone() };
        let connection = connection::Builder::address(self.address().as_str())
            .unwrap()
            .serve_at(MANAGER_PATH, Manager { notes: notes.clone() })
            .unwrap()
            .serve_at(OURS, session(OURS, geteuid().as_raw(), locked))
            .unwrap()
            .serve_at(THEIRS, session(THEIRS, another_uid(), true))
            .unwrap()
            .name(LOGIND)
            .unwrap()
            .build()
            .unwrap();
        Logind { connection, notes }
    }

    fn start_agent(&self, config: &str) -> AgentProcess<'_> {
        self.home.write_config(config);
        let address = self.address();
        self.home.start_agent_with(|agent| agent.env("DBUS_SYSTEM_BUS_ADDRESS", address))
    }

    fn reload(&self, agent: &AgentProcess<'_>, config: &str) {
        self.home.write_config(config);
        agent.signal(Signal::HUP);
    }

    fn status(&self) -> serde_json::Value {
        self.home.client(&["status", "--json"]).json()["agent"].clone()
    }

    fn is_locked(&self) -> bool {
        self.status()["locked"].as_bool().unwrap()
    }

    fn is_recorded(&self) -> bool {
        let record = fs::read_to_string(self.home.path(".local/state/dph-agent/lock.json"));
        record.is_ok_and(|record| record.contains("\"locked\": true"))
    }

    /// Waits until `status` says that what is set is not in force, because of `why`.
    fn is_not_in_force(&self, why: &str) {
        wait_until(why, || self.status()["config_error"].as_str().is_some_and(|text| text.contains(why)));
    }

    fn is_in_force(&self) {
        wait_until("it is in force", || self.status()["config_error"].is_null());
    }

    fn unlock(&self) {
        self.home.client(&["unlock"]).unwrap();
        wait_until("the record says so", || !self.is_recorded());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut bus) = self.bus.lock().unwrap().take() {
            drop(bus.kill());
            drop(bus.wait());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
fn skipped() {
    eprintln!("SKIPPED: there is no dbus-daemon (package dbus)");
}

#[test]
fn the_machine_sleeps_when_the_lock_is_on_the_disk_and_not_before() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(SUSPEND);
    for _ in 0..5 {
        let delay = logind.delay();
        assert!(!machine.is_locked());
        logind.prepare_for_sleep(true);
        released(delay);
        assert!(machine.is_recorded(), "the machine sleeps with an open agent on its disk");
        assert!(machine.is_locked());
        logind.prepare_for_sleep(false);
        machine.unlock();
    }
    assert!(machine.home.log().contains("the machine goes to sleep"), "{}", machine.home.log());
}

#[test]
fn an_agent_that_is_locked_holds_up_no_sleep() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(SUSPEND);
    let delay = logind.delay();
    machine.home.client(&["lock"]).unwrap();
    logind.prepare_for_sleep(true);
    released(delay);
    logind.prepare_for_sleep(false);
    logind.delay();
    assert!(machine.is_locked(), "waking up opens nothing");
}

#[test]
fn a_lock_that_cannot_be_recorded_holds_up_no_sleep_either() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(SUSPEND);
    let delay = logind.delay();
    fs::create_dir_all(machine.home.path(".local/state/dph-agent/lock.json/in-the-way")).unwrap();
    logind.prepare_for_sleep(true);
    released(delay);
    assert!(machine.is_locked());
    assert!(machine.home.log().contains("the lock was not recorded"), "{}", machine.home.log());
}

#[test]
fn the_users_screen_lock_locks_however_it_is_told() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(SCREEN_LOCK);
    machine.is_in_force();
    let locks: [&dyn Fn(); 2] =
        [&|| logind.emit(OURS, SESSION, "Lock", &()), &|| logind.hint(OURS, "LockedHint", true)];
    for lock in locks {
        assert!(!machine.is_locked());
        lock();
        wait_until("the agent locks", || machine.is_locked());
        machine.unlock();
    }
    assert!(machine.home.log().contains("the screen is locked"), "{}", machine.home.log());
}

#[test]
fn the_screen_of_another_user_and_other_news_of_ours_lock_nothing() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(BOTH);
    logind.delay();
    logind.emit(THEIRS, SESSION, "Lock", &());
    wait_until("the agent asks whose it is", || logind.asked_whose(THEIRS) == 1);
    logind.hint(THEIRS, "LockedHint", true);
    wait_until("the agent asks again", || logind.asked_whose(THEIRS) == 2);
    logind.hint(OURS, "LockedHint", false);
    logind.hint(OURS, "IdleHint", true);
    logind.emit(OURS, SESSION, "Unlock", &());
    logind.emit("/org/freedesktop/login1/user/_31", SESSION, "Lock", &());
    logind.is_heard();
    assert!(!machine.is_locked(), "{}", machine.home.log());
    assert_eq!(logind.asked_whose(OURS), 0);
}

#[test]
fn nobody_but_logind_locks_the_agent() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(BOTH);
    let (_delay, agent) = (logind.delay(), logind.caller());
    let stranger = Logind { connection: machine.connect().unwrap(), notes: Notes::default() };
    let say = |to: Option<&str>| {
        let say = |path, interface, signal| stranger.connection.emit_signal(to, path, interface, signal, &());
        say(OURS, SESSION, "Lock").unwrap();
        let begins = stranger.connection.emit_signal(to, MANAGER_PATH, MANAGER, "PrepareForSleep", &true);
        begins.unwrap();
        let owner = (LOGIND, "", stranger.connection.unique_name().unwrap().as_str());
        let owner = stranger.connection.emit_signal(
            to,
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "NameOwnerChanged",
            &owner,
        );
        owner.unwrap();
    };
    // To all who want to hear it, and past the bus's rules to the agent alone.
    say(None);
    say(Some(&agent));
    stranger
        .connection
        .call_method(Some("org.freedesktop.DBus"), "/", Some("org.freedesktop.DBus"), "GetId", &())
        .unwrap();
    wait_until("the agent hears both", || machine.home.log().matches("not from logind").count() == 2);
    logind.is_heard();
    assert!(!machine.is_locked(), "{}", machine.home.log());
}

#[test]
fn logind_may_come_later_and_go_and_come_back() {
    let Some(machine) = Machine::with_bus() else { return };
    let _agent = machine.start_agent(BOTH);
    machine.is_not_in_force("lock-on-suspend, lock-on-screen-lock: logind is not on the system bus");
    let failed = machine.home.client(&["status", "--check"]);
    assert!(!failed.ok && failed.err.contains("logind is not on the system bus"), "{failed:?}");
    let logind = machine.start_logind();
    logind.delay();
    machine.is_in_force();
    drop(logind);
    machine.is_not_in_force("logind is not on the system bus");
    let logind = machine.start_logind();
    let delay = logind.delay();
    machine.is_in_force();
    logind.prepare_for_sleep(true);
    released(delay);
    assert!(machine.is_locked());
}

#[test]
fn a_screen_that_was_locked_while_logind_was_away_locks_the_agent() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let _agent = machine.start_agent(SCREEN_LOCK);
    machine.is_in_force();
    drop(logind);
    machine.is_not_in_force("logind is not on the system bus");
    assert!(!machine.is_locked());
    let _logind = machine.start_logind_with(true);
    wait_until("the agent locks", || machine.is_locked());
}

#[test]
fn a_bus_that_is_not_there_is_told_and_found_later() {
    let Some(machine) = Machine::new() else { return };
    let _agent = machine.start_agent(SUSPEND);
    machine.is_not_in_force("lock-on-suspend: the system bus cannot be reached");
    machine.start_bus();
    let logind = machine.start_logind();
    logind.delay();
    machine.is_in_force();
    assert_eq!(machine.home.log().matches("WARN").count(), 1, "{}", machine.home.log());
}

#[test]
fn the_configuration_turns_it_on_and_off_without_a_restart() {
    let Some(machine) = Machine::with_bus() else { return };
    let logind = machine.start_logind();
    let agent = machine.start_agent(SUSPEND);
    let delay = logind.delay();
    machine.reload(&agent, SCREEN_LOCK);
    released(delay);
    wait_until("the agent asks for sessions", || {
        machine.is_in_force();
        machine.home.log().contains("in force keys=\"lock-on-screen-lock\"")
    });
    machine.reload(&agent, BOTH);
    let delay = logind.delay();
    machine.reload(&agent, "");
    released(delay);
}

#[test]
fn an_agent_that_is_to_notice_nothing_does_not_connect_to_the_bus() {
    let home = Home::new();
    let bus = UnixListener::bind(home.path("run/system_bus")).unwrap();
    bus.set_nonblocking(true).unwrap();
    let address = format!("unix:path={}", home.path("run/system_bus").display());
    let agent = home.start_agent_with(|agent| agent.env("DBUS_SYSTEM_BUS_ADDRESS", address));
    home.write_config("idle-lock = \"8h\"\n");
    agent.signal(Signal::HUP);
    wait_until("it is in force", || home.log().contains("read the configuration"));
    assert_eq!(bus.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    home.write_config(SUSPEND);
    agent.signal(Signal::HUP);
    let _silent = wait_for("now it connects", || bus.accept().ok());
    let status = home.client(&["status", "--json"]).json();
    assert!(status["agent"]["config_error"].as_str().unwrap().contains("has not answered"), "{status}");
}

#[test]
fn check_config_says_what_would_be_lost_or_not_noticed() {
    let home = Home::new();
    let check = || {
        let mut check = home.command(program("dph-agent"));
        let nowhere = format!("unix:path={}", home.path("run/nowhere").display());
        run(check.env("DBUS_SYSTEM_BUS_ADDRESS", nowhere).arg("check-config"), "")
    };
    let profile = "[profiles.prod]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n";
    home.write_config(&format!("{SUSPEND}{profile}key-source = \"session\"\n"));
    let refused = check();
    assert!(refused.status == 1 && refused.err.contains("drops the keys of prod"), "{refused:?}");
    home.write_config(&format!("{SUSPEND}{profile}key-source = \"file:/key\"\n"));
    let warned = check();
    assert!(warned.ok && warned.err.contains("warning: lock-on-suspend: the system bus"), "{warned:?}");
    home.write_config("lock-on-suspend = 1\n");
    let refused = check();
    assert!(refused.status == 1 && refused.err.contains("is true or false"), "{refused:?}");
}
