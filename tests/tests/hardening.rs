//! What other programs of the same user cannot do to the agent, and what it and its key commands cannot do.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dph_agent_mock_platform::MockPlatform;
use dph_agent_tests::{Home, program, run, wait_for, wait_until};

const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";
/// Whom the agent and those who attack it are.
const USER: u32 = 65_534;

/// Calls of the kernel by number, for perl.
#[cfg(target_arch = "x86_64")]
const NUMBERS: &str = "my ($ptrace, $readv, $writev, $pidfd_open, $getfd) = (101, 310, 311, 434, 438);";
#[cfg(target_arch = "aarch64")]
const NUMBERS: &str = "my ($ptrace, $readv, $writev, $pidfd_open, $getfd) = (117, 270, 271, 434, 438);";

/// What a program of the same user tries; prints `NAME: RESULT, ERROR` for each. The address is one that nobody
/// has, so that the memory of one who lets himself be read gives EFAULT (14), not EPERM (1).
const ATTACKS: &str = r#"
my $pid = shift;
sub report { my ($name, $got) = @_; print "$name: ", ($got < 0 ? $! + 0 : "done"), "\n"; }
my $buffer = "\0" x 8;
my ($here, $there) = (pack("PQ", $buffer, 8), pack("QQ", 64, 8));
for (["read", $readv], ["write", $writev]) {
    my ($name, $call) = @$_;
    report($name, syscall($call, $pid + 0, $here, 1, $there, 1, 0));
}
my $pidfd = syscall($pidfd_open, $pid + 0, 0);
die "no pidfd: $!" if $pidfd < 0;
report("getfd", syscall($getfd, $pidfd, 0, 0));
for (qw(mem environ maps)) {
    my $file;
    report($_, open($file, "<", "/proc/$pid/$_") && defined(sysread($file, $buffer, 0)) ? 0 : -1);
}
report("seize", syscall($ptrace, 0x4206, $pid + 0, 0, 0));
report("attach", syscall($ptrace, 16, $pid + 0, 0, 0));
"#;

#[expect(clippy::print_stderr, reason = "what was not tested is said aloud")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A home of an ordinary user, with the agent's program in it.
fn home_of_user() -> Option<Home> {
    if !rustix::process::geteuid().is_root() {
        skipped("the agent and who attacks it must be of a user whom only root can become");
        return None;
    }
    let home = Home::new();
    for name in ["dph-agent", "dph-agent-client"] {
        fs::copy(program(name), home.path(name)).unwrap();
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for path in [home.path("."), home.path("run")] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    Some(home)
}

/// A program of the user, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn command_of_user(home: &Home, program: PathBuf) -> Command {
    let mut command = home.command(program);
    command.uid(USER).gid(USER).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start_agent(home: &Home, mut command: Command) -> Running {
    let agent = Running(command.spawn().unwrap());
    let ping = || run(command_of_user(home, home.path("dph-agent-client")).arg("ping"), "").ok;
    wait_until("the agent answers", ping);
    agent
}

/// Returns what becomes of each attack on a process, or nothing where there is no perl.
fn attacks_on(home: &Home, process: &Running) -> Option<Vec<String>> {
    let mut perl = command_of_user(home, "perl".into());
    perl.args(["-e", &format!("{NUMBERS}{ATTACKS}"), &process.0.id().to_string()]);
    if Command::new("perl").arg("-v").output().is_err() {
        skipped("there is no perl to attack with");
        return None;
    }
    Some(run(&mut perl, "").unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn a_program_of_the_same_user_cannot_trace_read_or_borrow_from_the_agent() {
    let Some(home) = home_of_user() else { return };
    let agent = start_agent(&home, command_of_user(&home, home.path("dph-agent")));
    let Some(refused) = attacks_on(&home, &agent) else { return };
    assert_eq!(
        refused,
        ["read: 1", "write: 1", "getfd: 1", "mem: 13", "environ: 13", "maps: 13", "seize: 1", "attach: 1"]
    );
    let mut sleep = command_of_user(&home, "sleep".into());
    let unprotected = Running(sleep.arg("1000").spawn().unwrap());
    // Until it has become `sleep`, it is a copy of this test.
    wait_until("it sleeps", || {
        fs::read_to_string(format!("/proc/{}/comm", unprotected.0.id())).is_ok_and(|name| name == "sleep\n")
    });
    let done = attacks_on(&home, &unprotected).unwrap();
    if fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope != "0\n") {
        return skipped("this machine protects every process: that the attacks are real was not seen");
    }
    assert_eq!(
        done[..7],
        ["read: 14", "write: 14", "getfd: done", "mem: done", "environ: done", "maps: done", "seize: done"]
    );
}

#[test]
fn an_agent_that_is_killed_leaves_no_core_though_its_parent_wants_one() {
    let Some(home) = home_of_user() else { return };
    let unlimited = |what: &str| {
        let mut shell = command_of_user(&home, "sh".into());
        shell.args(["-c", &format!("ulimit -c unlimited; {what}")]);
        shell
    };
    // The limit can be raised by root alone where it is low.
    let mut control = home.command("sh");
    control.args(["-c", "ulimit -c unlimited; kill -s SEGV $$"]).stderr(Stdio::null());
    if !control.status().unwrap().core_dumped() {
        return skipped("this machine dumps no cores");
    }
    for signal in ["ABRT", "SEGV"] {
        let agent = format!("exec {}", home.path("dph-agent").display());
        let mut agent = start_agent(&home, unlimited(&agent));
        let kill = format!("kill -s {signal} {}", agent.0.id());
        let status = wait_for("it dies", || {
            // The first SIGSEGV goes to the handler that looks for overflowing stacks.
            run(home.command("sh").args(["-c", &kill]), "");
            agent.0.try_wait().unwrap()
        });
        assert!(status.signal().is_some() && !status.core_dumped(), "{status:?}");
    }
}

/// A home with a profile whose key is what a command prints.
fn with_key_command(command: &str) -> (Home, MockPlatform) {
    let (home, platform) = (Home::new(), MockPlatform::start());
    platform.add_user("alice", KEY);
    home.write("key", KEY);
    let ca = platform.write_ca(&home.path(".")).canonicalize().unwrap();
    home.write_config(&format!(
        "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"{}\"\nusername = \"alice\"\nca-file = \"{}\"\nkey-source = '''command:[\"sh\",\"-c\",\"{}\"]'''\n",
        platform.url(),
        ca.display(),
        command.replace('\\', r"\\").replace('"', "\\\"")
    ));
    (home, platform)
}

#[test]
fn the_agent_gains_no_rights_and_filters_its_system_calls() {
    let home = Home::new();
    let agent = home.start_agent();
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        assert_eq!(value("NoNewPrivs:").as_deref(), Some("1"));
        assert_eq!(value("Seccomp:").as_deref(), Some("2"), "{}", home.log());
    }
}

#[test]
fn a_key_command_runs_behind_the_filter() {
    let command = "grep -q 'Seccomp:.2' /proc/self/status && tr a-z A-Z < key | tr A-Z a-z | (cat; echo)";
    let (home, _platform) = with_key_command(command);
    let _agent = home.start_agent();
    home.client(&["token"]).unwrap();
}

#[test]
fn a_key_command_cannot_trace_anybody() {
    if Command::new("perl").arg("-v").output().is_err() {
        return skipped("there is no perl to try with");
    }
    let perl = format!("{NUMBERS} exit(syscall($ptrace, 0, 0, 0, 0) == -1 && $! == 1 ? 0 : 1)");
    let (home, _platform) = with_key_command(&format!("perl -e '{perl}' && cat key"));
    let traced = run(home.command("perl").args(["-e", &perl]), "");
    assert_eq!(traced.status, 1, "without the filter it can: {traced:?}");
    let _agent = home.start_agent();
    home.client(&["token"]).unwrap();
}
