//! How much a program costs: time, instructions, memory.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs two commands in turn, so that what disturbs one disturbs the other, and returns the median of each.
///
/// # Errors
///
/// When one fails.
pub(crate) fn medians(
    runs: usize,
    mut first: impl FnMut() -> Command,
    mut second: impl FnMut() -> Command,
) -> io::Result<(Duration, Duration)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _run in 0..runs {
        a.push(time(&mut first())?);
        b.push(time(&mut second())?);
    }
    Ok((median(a), median(b)))
}

fn time(command: &mut Command) -> io::Result<Duration> {
    let began = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?} ended with {status}")));
    }
    Ok(began.elapsed())
}

/// Returns the one in the middle.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Returns how many instructions a command runs in user mode, by valgrind's count, which does not depend on
/// what else the machine does.
///
/// # Errors
///
/// When there is no valgrind, or the command fails.
pub(crate) fn instructions(command: &Command) -> io::Result<u64> {
    let mut counted = Command::new("valgrind");
    // As small an environment as the command's own: looking up a variable costs by their number.
    counted.env_clear();
    counted
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => counted.env(name, value),
            None => counted.env_remove(name),
        };
    }
    let output = counted.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count
        .filter(|_| output.status.success())
        .ok_or_else(|| io::Error::other(format!("valgrind said: {said}")))
}

/// Returns the memory that a process has written and shares with none, in bytes.
///
/// # Errors
///
/// When the system does not say: of a process that cannot be dumped it tells root only.
pub(crate) fn private_dirty(pid: u32) -> io::Result<u64> {
    Ok(1024 * field(&format!("/proc/{pid}/smaps_rollup"), "Private_Dirty:")?)
}

/// Returns how often a process has gone to sleep by itself.
///
/// # Errors
///
/// When the system does not say.
pub(crate) fn naps(pid: u32) -> io::Result<u64> {
    let mut naps = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        naps += field(&task?.path().join("status").display().to_string(), "voluntary_ctxt_switches:")?;
    }
    Ok(naps)
}

fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("{path} does not tell {name}")))
}
