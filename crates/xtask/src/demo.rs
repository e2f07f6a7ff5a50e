//! A story in one minute: a key is handed over once, and a script has good tokens ever after.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::process::Stdio;
use std::time::Duration;

use dph_agent_mock_platform::{MockPlatform, api_key, call as call_platform};

use crate::bed::{Bed, build, target};

/// Life of the demo's tokens: short, so that refreshes can be watched.
const TOKEN_LIFE: Duration = Duration::from_secs(4);
/// The user whom the platform knows.
const USER: &str = "alice";

/// What a user's script looks like. It never sees the key.
const SCRIPT: &str = r#"
calls=0 tokens=0 last=
while [ "$tokens" -lt 5 ]; do
  token=$(dph-agent-client token) || exit 1
  status=$(printf %s "$token" | "$CALL" call "$API/data_product_exchange/v1/data_products?limit=1" "$CA")
  [ "$status" = 200 ] || { echo "the platform answered $status"; exit 1; }
  calls=$((calls + 1))
  if [ "$token" != "$last" ]; then
    tokens=$((tokens + 1)) last=$token
    echo "    call $calls: status $status with a new token, number $tokens"
  fi
done
echo "    $calls calls, all answered 200, with $tokens tokens"
"#;

/// Shows it.
///
/// # Errors
///
/// When anything does not go as told.
pub(crate) fn demo() -> io::Result<()> {
    step("building dph-agent and dph-agent-client");
    build(&["--package", "dph-agent", "--package", "dph-agent-client"])?;
    let programs = target().join("debug");
    let bed = Bed::new(programs.join("dph-agent"), programs.join("dph-agent-client"))?;

    let platform = MockPlatform::start();
    platform.set_token_life(TOKEN_LIFE);
    // Made anew each time, so that finding it anywhere means something.
    let key = api_key();
    platform.add_user(USER, &key);
    platform.allow_key_generation();
    let ca = platform.write_ca(bed.path());
    step(&format!("a stand-in for IBM Software Hub listens on {}", platform.url()));
    tell(&format!(
        "its tokens live {} s, so that the agent has to refresh them all the time",
        TOKEN_LIFE.as_secs()
    ));

    step("an agent starts, with a home of its own");
    let agent = bed.start_agent()?;

    step(&format!("{USER} hands over her API key, once, on standard input"));
    let (url, ca) = (platform.url(), ca.display().to_string());
    let add = [
        "add",
        "--platform",
        "software-hub",
        "--url",
        &url,
        "--username",
        USER,
        "--ca-file",
        &ca,
        "--key-source",
        "session",
        "--key-stdin",
    ];
    tell(&format!("$ dph-agent-client {}", add.join(" ")));
    tell_all(&bed.client(&add, &key)?.stderr);

    step("a shell script calls the platform in a loop, with a token of the agent each time");
    run_script(&bed, &url, &ca)?;

    lock_and_unlock(&bed)?;

    step("what the agent says of itself");
    tell("$ dph-agent-client status");
    tell_all(&bed.client(&["status"], "")?.stdout);
    tell(&format!("the platform counted {} exchanges of the key for a token", platform.exchanges()));

    step("the key is in no file of that home");
    let found = files_with(bed.path(), &key)?;
    tell(if found == 0 { "searched: not found" } else { "FOUND" });

    rotate_and_revoke(&bed, &platform, &key)?;

    step("the agent stops");
    bed.client(&["stop"], "")?;
    drop(agent);
    if found == 0 { Ok(()) } else { Err(io::Error::other("the key was written to a file")) }
}

/// The script's HTTP client: a GET request with the token on standard input.
///
/// # Errors
///
/// When there is no answer.
pub(crate) fn call(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let (Some(Ok(url)), Some(ca)) = (arguments.next().map(OsString::into_string), arguments.next()) else {
        return Err(io::Error::other("usage: call URL CA"));
    };
    let mut token = String::new();
    io::stdin().read_to_string(&mut token)?;
    println!("{}", call_platform(&url, &fs::read_to_string(ca)?, &token)?);
    Ok(())
}

/// Seals the secrets behind a passphrase, shows that nobody gets a token, and opens them again.
fn lock_and_unlock(bed: &Bed) -> io::Result<()> {
    let passphrase = api_key();
    step("one command locks the agent: key and tokens are sealed behind a passphrase");
    tell("$ dph-agent-client lock --set-passphrase --passphrase-stdin");
    tell_all(&bed.client(&["lock", "--set-passphrase", "--passphrase-stdin"], &passphrase)?.stderr);
    tell("$ dph-agent-client token");
    match bed.client(&["token"], "") {
        Ok(_) => return Err(io::Error::other("a locked agent gave a token away")),
        Err(refused) => tell_all(refused.to_string().as_bytes()),
    }
    step("and another one opens it, without the key being entered again");
    tell("$ dph-agent-client unlock --passphrase-stdin");
    tell_all(&bed.client(&["unlock", "--passphrase-stdin"], &passphrase)?.stderr);
    bed.client(&["token"], "").map(|_| tell("tokens are handed out again"))
}

/// Moves the key to where it outlives the agent, replaces it, and makes the new one invalid.
fn rotate_and_revoke(bed: &Bed, platform: &MockPlatform, key: &str) -> io::Result<()> {
    step(
        "the key moves into a file that only the passphrase opens, and is replaced there and at the platform",
    );
    show(bed, &["migrate", "--to", "sealed"])?;
    show(bed, &["rotate", "--yes"])?;
    tell(if platform.is_valid_key(key) {
        "the old key still WORKS"
    } else {
        "the platform refuses the old key"
    });
    bed.client(&["token", "--new"], "").map(|_| tell("tokens are bought with the new one"))?;

    step("one command makes the key invalid for everybody");
    show(bed, &["revoke", "--yes"])?;
    tell("$ dph-agent-client token");
    match bed.client(&["token"], "") {
        Ok(_) => return Err(io::Error::other("a revoked key bought a token")),
        Err(refused) => tell_all(refused.to_string().as_bytes()),
    }

    step("every hand-out is accounted for");
    show(bed, &["audit", "verify"])
}

/// Runs the client, and shows what it says.
fn show(bed: &Bed, arguments: &[&str]) -> io::Result<()> {
    tell(&format!("$ dph-agent-client {}", arguments.join(" ")));
    let said = bed.client(arguments, "")?;
    tell_all(&said.stderr);
    tell_all(&said.stdout);
    Ok(())
}

fn run_script(bed: &Bed, url: &str, ca: &str) -> io::Result<()> {
    let usual = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths([target().join("debug")].into_iter().chain(std::env::split_paths(&usual)));
    let mut script = bed.command("sh");
    script.args(["-c", SCRIPT]).env("PATH", path.map_err(io::Error::other)?);
    script.env("API", url).env("CA", ca).env("CALL", std::env::current_exe()?);
    let output = script.stderr(Stdio::inherit()).stdout(Stdio::inherit()).status()?;
    if output.success() { Ok(()) } else { Err(io::Error::other("the script failed")) }
}

fn files_with(folder: &std::path::Path, needle: &str) -> io::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found += files_with(&entry.path(), needle)?;
        } else if kind.is_file() {
            let text = fs::read(entry.path())?;
            found += usize::from(text.windows(needle.len()).any(|part| part == needle.as_bytes()));
        }
    }
    Ok(found)
}

fn step(what: &str) {
    println!("\n==> {what}");
}

fn tell(what: &str) {
    println!("    {what}");
}

fn tell_all(text: &[u8]) {
    String::from_utf8_lossy(text).lines().for_each(tell);
}
