//! What the programs cost, beside a client in C that does the same round trip.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use dph_agent_mock_platform::{MockPlatform, api_key};
use dph_agent_protocol::{Request, TokenRequest};

use crate::bed::{Bed, Running, build, succeed, target};
use crate::caller;
use crate::client_in_c;
use crate::guesses;
use crate::measure::{instructions, median, medians, naps, private_dirty};

/// The client is released for this target where it can be built: linkage decides its start-up.
const CLIENT_TARGET: &str = "x86_64-unknown-linux-musl";
/// Calls of each client.
const RUNS: usize = 300;
/// Hand-outs with and without the audit log are timed in turn, so often, so many at once.
const ROUNDS: usize = 25;
const HAND_OUTS: u32 = 800;
/// Hand-outs that each wait for the disk.
const SYNCED_HAND_OUTS: u32 = 200;
/// How long the agent is watched doing nothing.
const IDLE: Duration = Duration::from_secs(60);

/// The bars that the project sets itself.
const CLIENT_BYTES: u64 = 450_000;
const CLIENT_INSTRUCTIONS: u64 = 30_000;
const AGENT_BYTES: u64 = 3 * 1024 * 1024;
const PING_MICROS: u64 = 5_000;

/// Measures and prints.
///
/// # Errors
///
/// When something cannot be built or run.
pub(crate) fn bench(quick: bool) -> io::Result<()> {
    println!("building the release (some minutes at first)");
    // Installs the target where rustup is there; where it is not, the build says what is missing.
    drop(succeed(Command::new("rustup").args(["--quiet", "target", "add", CLIENT_TARGET])));
    build(&["--release", "--package", "dph-agent"])?;
    build(&["--release", "--package", "dph-agent-client", "--target", CLIENT_TARGET])?;
    let client = target().join(CLIENT_TARGET).join("release/dph-agent-client");
    let bed = Bed::new(target().join("release/dph-agent"), client.clone())?;
    // Pages of a program that was just built count as changed memory until they are on the disk.
    fs::File::open(bed.agent())?.sync_all()?;

    let platform = MockPlatform::start();
    let agent = ready_agent(&bed, &platform)?;
    sizes(&client, &bed)?;
    round_trips(&client, &bed)?;
    memory(&agent);
    audit(&client, &platform)?;
    if !quick {
        idle(&agent)?;
    }
    // The last, for it locks the agent.
    guessed_at(&bed)?;
    Ok(())
}

/// Starts an agent that holds a key and a token of twelve hours.
fn ready_agent(bed: &Bed, platform: &MockPlatform) -> io::Result<Running> {
    let key = api_key();
    platform.add_user("alice", &key);
    let ca = platform.write_ca(bed.path()).display().to_string();
    let agent = bed.start_agent()?;
    let url = platform.url();
    let add = [
        "add",
        "--platform",
        "software-hub",
        "--url",
        &url,
        "--username",
        "alice",
        "--ca-file",
        &ca,
        "--key-source",
        "session",
        "--key-stdin",
    ];
    bed.client(&add, &key)?;
    bed.client(&["token"], "")?;
    Ok(agent)
}

fn sizes(client: &Path, bed: &Bed) -> io::Result<()> {
    let agent = fs::metadata(bed.agent())?.len();
    bar("client, static musl, stripped", fs::metadata(client)?.len(), CLIENT_BYTES, "bytes");
    println!("{:<44} {agent:>10} bytes", "agent, stripped");
    Ok(())
}

fn round_trips(client: &Path, bed: &Bed) -> io::Result<()> {
    let (in_c, compiler) = client_in_c::build(bed)?;
    let ours = || {
        let mut command = bed.command(client);
        command.arg("token").arg("--socket").arg(bed.socket());
        command
    };
    let searching = || {
        let mut command = bed.command(client);
        command.arg("token");
        command
    };
    let floor = || {
        let mut command = bed.command(&in_c);
        command.arg(bed.socket());
        command
    };
    match (instructions(&ours()), instructions(&floor())) {
        (Ok(ours), Ok(floor)) => {
            bar("client, instructions of `token`", ours, CLIENT_INSTRUCTIONS, "instructions");
            ratio(&format!("  to the client in C ({compiler})"), ours, floor);
            let searching = instructions(&searching())?;
            println!("{:<44} {searching:>10} instructions", "  the same, looking for the agent");
        }
        (Err(error), _) | (_, Err(error)) => println!("SKIPPED: instructions were not counted: {error}"),
    }
    let (ours, floor) = medians(RUNS, ours, floor)?;
    println!("{:<44} {:>10} us, median of {RUNS}", "client, `token` from start to end", ours.as_micros());
    ratio(&format!("  to the client in C ({compiler})"), micros(ours), micros(floor));
    Ok(())
}

/// What the audit log costs a caller who gets a held token.
fn audit(client: &Path, platform: &MockPlatform) -> io::Result<()> {
    let ready = |mode: &str| {
        let bed = Bed::new(target().join("release/dph-agent"), client.to_owned())?;
        bed.configure(&format!("audit = \"{mode}\"\n"))?;
        let agent = ready_agent(&bed, platform)?;
        let request = Request::Token(TokenRequest { deadline_ms: 10_000, ..TokenRequest::default() });
        Ok::<_, io::Error>((caller::connect(&bed.socket(), &request)?, agent, bed))
    };
    let (mut on, _agent_with, _bed_with) = ready("on")?;
    let (mut off, _agent_without, _bed_without) = ready("off")?;
    let (mut required, _agent_synced, _bed_synced) = ready("required")?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        with.push(on.time_of_one(HAND_OUTS)?);
        without.push(off.time_of_one(HAND_OUTS)?);
    }
    let (with, without, synced) = (median(with), median(without), required.time_of_one(SYNCED_HAND_OUTS)?);
    let (with, without, synced) = (nanos(with), nanos(without), nanos(synced));
    let a_second = |nanos: u64| 1_000_000_000 / nanos.max(1);
    println!("{:<44} {:>10} a second, one caller", "agent, hand-outs with the audit log", a_second(with));
    ratio("  time of one, to that without, in ns", with, without);
    println!("{:<44} {:>10} a second", "  where each must be on the disk first", a_second(synced));
    Ok(())
}

fn guessed_at(bed: &Bed) -> io::Result<()> {
    bed.client(&["lock", "--set-passphrase", "--passphrase-stdin"], &api_key())?;
    let (alone, beside) = guesses::pings(&bed.socket())?;
    bar("agent, `ping` beside 40 wrong passphrases", micros(beside), PING_MICROS, "us, median");
    ratio("  to one alone, in ns", nanos(beside), nanos(alone));
    Ok(())
}

fn memory(agent: &Running) {
    match private_dirty(agent.0.id()) {
        Ok(bytes) => bar("agent, private dirty memory", bytes, AGENT_BYTES, "bytes"),
        Err(error) => println!("SKIPPED: the agent's memory is told to root only: {error}"),
    }
}

fn idle(agent: &Running) -> io::Result<()> {
    // Threads that read files go after ten idle seconds.
    sleep(Duration::from_secs(12));
    let before = naps(agent.0.id())?;
    sleep(IDLE);
    let woken = naps(agent.0.id())? - before;
    println!("{:<44} {woken:>10} in {} s", "agent, wake-ups between refreshes", IDLE.as_secs());
    Ok(())
}

fn bar(what: &str, measured: u64, allowed: u64, unit: &str) {
    let verdict = if measured <= allowed { "within" } else { "OVER" };
    println!("{what:<44} {measured:>10} {unit}, {verdict} {allowed}");
}

fn ratio(what: &str, ours: u64, floor: u64) {
    let hundredths = ours.saturating_mul(100) / floor.max(1);
    println!("{what:<44} {:>7}.{:02} times ({floor})", hundredths / 100, hundredths % 100);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
