//! The README's tour, typed word for word.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dph_agent_tests::{Home, Terminal, program, wait_until};

const README: &str = include_str!("../../README.md");
/// What bash is told to prompt with: nothing else shows this.
const PROMPT: &str = "tour$ ";
/// What the tour calls its home and its port.
const ITS_HOME: &str = "/tmp/try";
const ITS_PORT: &str = "8443";

/// One command of the tour, and what the README shows after it.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// Returns the steps of a section's console blocks.
fn steps(section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let blocks = section.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("console\n"));
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.into(), shown: Vec::new() }),
            (None, Some(step)) => step.shown.push(line.into()),
            (None, None) => {}
        }
    }
    steps
}

/// Returns a section of the README by its title.
fn section(title: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n## {title}\n")).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// Whether a line is what the README shows, but for what differs each time: moments, process numbers,
/// hashes and tokens. A `…` stands for the rest of a line.
fn is_like(shown: &str, readme: &str) -> bool {
    match readme.split_once('…') {
        Some((start, _)) if start.starts_with("eyJ") => shown.starts_with("eyJ"),
        Some((start, _)) => masked(shown).starts_with(&masked(start)),
        None => masked(shown) == masked(readme),
    }
}

/// Replaces each word that has a digit and is long, such as a moment or a hash. What is counted in the
/// tour has fewer digits; the seconds that a token has left depend on the machine.
fn masked(line: &str) -> String {
    const LONG: usize = 4;
    let is_volatile =
        |word: &str| word.len() >= LONG && word.contains(|it: char| it.is_ascii_digit()) && word != ITS_PORT;
    let words = line.split_inclusive(|it: char| !it.is_ascii_alphanumeric());
    let masked = words.map(|word| {
        let bare = word.trim_end_matches(|it: char| !it.is_ascii_alphanumeric());
        if is_volatile(bare) { word.replace(bare, "#") } else { word.to_owned() }
    });
    let masked: String = masked.collect();
    if masked.contains("expires_in") || masked.contains("#-") { digits_masked(&masked) } else { masked }
}

fn digits_masked(line: &str) -> String {
    line.chars().map(|it| if it.is_ascii_digit() { '#' } else { it }).collect()
}

/// A shell in a home of its own, on a terminal.
struct Shell<'a> {
    home: &'a Home,
    terminal: Terminal,
    bash: Child,
    port: String,
}

impl<'a> Shell<'a> {
    fn start(home: &'a Home) -> Self {
        let mut bash = home.command("bash");
        bash.args(["--norc", "--noprofile", "--noediting", "-i"]).env("PS1", PROMPT).env("LANG", "C.UTF-8");
        let ours = program("dph-agent").parent().unwrap().to_owned();
        let theirs = std::env::var_os("PATH").unwrap_or_default();
        let path = [ours].into_iter().chain(std::env::split_paths(&theirs));
        bash.env("PATH", std::env::join_paths(path).unwrap());
        let terminal = Terminal::new();
        let mut session = terminal.controlling(&bash);
        let bash = session.stdout(terminal.line()).stderr(terminal.line()).spawn().unwrap();
        terminal.shown_until(PROMPT);
        // Free a moment ago; the tour names its port before it is bound.
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        Self { home, terminal, bash, port: free.to_string() }
    }

    /// Types a step and what it asks for, and returns the lines that were shown.
    fn does(&mut self, step: &Step) -> Vec<String> {
        let home = self.home.path("").display().to_string();
        let home = home.trim_end_matches('/');
        let to_here = |text: &str| text.replace(ITS_HOME, home).replace(ITS_PORT, &self.port);
        let command = to_here(&step.command);
        let mut shown = String::new();
        self.terminal.type_keys(&format!("{command}\n"));
        for question in step.shown.iter().filter(|line| is_question(line)) {
            shown += &self.terminal.shown_until(question);
            self.terminal.type_keys("correct horse\n");
        }
        shown += &self.terminal.shown_until(PROMPT);
        if command.ends_with('&') {
            wait_until("the platform runs", || {
                fs::read_to_string(self.home.path("platform.log")).is_ok_and(|log| log.contains("key-file"))
            });
        }
        let from_here =
            uncoloured(&shown).replace(home, ITS_HOME).replace(&self.port, ITS_PORT).replace('\r', "");
        let lines = from_here.lines().skip(1).filter(|line| *line != PROMPT && !is_of_a_job(line));
        lines.map(|line| line.trim_end().to_owned()).collect()
    }
}

impl Drop for Shell<'_> {
    /// Nothing is left running, wherever the tour ended.
    fn drop(&mut self) {
        self.terminal.type_keys("\u{3}\ndph-agent-client stop; kill %1; exit\n");
        drop(self.bash.wait());
    }
}

/// Drops the colours that some tools show on a terminal.
fn uncoloured(shown: &str) -> String {
    let mut parts = shown.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect::<String>()
}

fn is_question(line: &str) -> bool {
    line.ends_with(':') && !line.starts_with("error")
}

/// Whether bash says what became of a background job: the README leaves that out.
fn is_of_a_job(line: &str) -> bool {
    line.starts_with("[1]")
}

fn is_there(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok()
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that proved nothing says so")]
fn the_tour_shows_what_the_readme_shows() {
    if let Some(missing) = ["bash", "curl", "jq"].into_iter().find(|program| !is_there(program)) {
        eprintln!("SKIPPED: the README's tour: there is no {missing}");
        return;
    }
    let home = Home::new();
    let mut shell = Shell::start(&home);
    let steps = steps(section("Five-minute tour"));
    // What comes before is done: the programs are built and found, and this home is the tour's.
    let first = steps.iter().position(|step| step.command == "cd").unwrap();
    for step in &steps[first..] {
        let shown = shell.does(step);
        let is_right = shown.len() == step.shown.len()
            && shown.iter().zip(&step.shown).all(|(shown, readme)| is_like(shown, readme));
        assert!(is_right, "after `{}`\nREADME: {:#?}\nhere: {shown:#?}", step.command, step.shown);
    }
    assert!(!Path::new(&home.socket()).exists(), "the agent has ended");
}

#[test]
fn what_must_be_equal_is_told_from_what_differs_each_time() {
    assert!(
        is_like("agent 17 started", "agent 17 started") && !is_like("agent 17 ended", "agent 17 started")
    );
    assert!(is_like("pid 17435, since 2026-11-24T16:45:17Z", "pid 99123, since 2027-01-01T03:00:00Z"));
    assert!(!is_like("12", "13") && is_like("eyJabc", "eyJx…") && !is_like("error", "eyJx…"));
}
