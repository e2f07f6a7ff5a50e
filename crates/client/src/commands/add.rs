//! `add`: hands a key to the agent, once everything that can be checked without it is.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use dph_agent_protocol::{
    Add, AddFor, Added, Certificate, ErrorCode, PlatformKind, Prepare, Prepared, RefreshMode, Reply, Request,
    Secret, Settings, Trust,
};

use crate::cli::{Args, Command, Opt};
use crate::exit::Error;
use crate::json::Json;
use crate::output;
use crate::prompt;
use crate::secret::{self, cannot_read_file};
use crate::session::{Session, unexpected_reply};
use crate::time::{rfc3339, spell_duration};
use crate::wiped::Wiped;

pub(crate) const ADD: Command = Command {
    name: "add",
    operand: None,
    summary: "Hands over an API key, and the profile that it belongs to.",
    options: &[
        Opt::Profile,
        Opt::Platform,
        Opt::Url,
        Opt::AuthUrl,
        Opt::Username,
        Opt::Scope,
        Opt::CaFile,
        Opt::TlsPin,
        Opt::Proxy,
        Opt::KeySource,
        Opt::Refresh,
        Opt::Replace,
        Opt::NoVerify,
        Opt::TrustServer,
        Opt::KeyStdin,
        Opt::KeyFile,
        Opt::Ttl,
    ],
    changes: true,
    run,
};

const PLATFORMS: &[(&str, PlatformKind)] = &[
    ("software-hub", PlatformKind::SOFTWARE_HUB),
    ("ibm-cloud", PlatformKind::IBM_CLOUD),
    ("mcsp", PlatformKind::MCSP),
];

const REFRESH_MODES: &[(&str, RefreshMode)] =
    &[("while-used", RefreshMode::WHILE_USED), ("always", RefreshMode::ALWAYS)];

fn run(args: &Args) -> Result<(), Error> {
    check_options(args)?;
    let prepared = prepare(args)?;
    output::tell_notes(args, &prepared.notes);
    if let Some(elsewhere) = elsewhere(&prepared) {
        output::tell(args, &format!("note: the key is sent to {elsewhere}, not to {}", prepared.url));
    }
    let pin = trusted_pin(args, prepared.certificate.as_ref())?;
    let key = key(args, &prepared)?;
    report(args, &hand_over(args, prepared.profile, pin, key)?)
}

fn check_options(args: &Args) -> Result<(), Error> {
    for (one, other, problem) in [
        (Opt::KeyStdin, Opt::KeyFile, "`--key-stdin` and `--key-file` exclude each other"),
        (
            Opt::TrustServer,
            Opt::NoVerify,
            "`--trust-server` must reach the server, which `--no-verify` does not",
        ),
        (Opt::TrustServer, Opt::TlsPin, "`--trust-server` finds out what `--tls-pin` tells"),
    ] {
        if args.has(one) && args.has(other) {
            return Err(Error::usage(problem, "give one of them"));
        }
    }
    Ok(())
}

fn settings(args: &Args) -> Result<Settings, Error> {
    let mut settings = Settings {
        platform: args.choice(Opt::Platform, PLATFORMS)?,
        refresh: args.choice(Opt::Refresh, REFRESH_MODES)?,
        ..Settings::default()
    };
    for (option, setting) in [
        (Opt::Url, &mut settings.url),
        (Opt::AuthUrl, &mut settings.auth_url),
        (Opt::Username, &mut settings.username),
        (Opt::Scope, &mut settings.scope),
        (Opt::CaFile, &mut settings.ca_file),
        (Opt::TlsPin, &mut settings.tls_pin),
        (Opt::Proxy, &mut settings.proxy),
        (Opt::KeySource, &mut settings.key_source),
    ] {
        *setting = args.text(option)?.map(|text| independent(option, text)).transpose()?;
    }
    Ok(settings)
}

/// Returns a setting in words that do not depend on our working folder, which is not the agent's.
pub(crate) fn independent(option: Opt, text: &str) -> Result<String, Error> {
    match text.strip_prefix("file:") {
        _ if option == Opt::CaFile => absolute_path(text),
        Some(path) if matches!(option, Opt::KeySource | Opt::To) => {
            Ok("file:".to_owned() + &absolute_path(path)?)
        }
        _ => Ok(text.to_owned()),
    }
}

fn absolute_path(path: &str) -> Result<String, Error> {
    let here = env::current_dir().ok().filter(|_| !path.is_empty());
    let absolute = here.and_then(|here| here.join(path).into_os_string().into_string().ok());
    absolute.ok_or_else(|| {
        Error::usage(&format!("`{path}` cannot be made absolute"), "give the path from the root")
    })
}

fn prepare(args: &Args) -> Result<Prepared, Error> {
    let (profile, settings) = (args.profile()?, settings(args)?);
    let mut session = Session::open(args)?;
    let request = Request::Prepare(Prepare {
        profile,
        settings,
        replace: args.has(Opt::Replace),
        trust_server: args.has(Opt::TrustServer),
        reach: !args.has(Opt::NoVerify),
        deadline_ms: session.deadline_ms(),
    });
    let Reply::Prepared(prepared) = session.ask(&request)? else { return Err(unexpected_reply()) };
    Ok(prepared)
}

/// Returns where the key is sent, if that is another server than the one whose API is called.
fn elsewhere(prepared: &Prepared) -> Option<&str> {
    (origin(&prepared.url) != origin(&prepared.auth_url)).then_some(&prepared.auth_url)
}

fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |end| end + "://".len());
    let path = url.get(host..).and_then(|rest| rest.find('/'));
    path.and_then(|path| url.get(..host + path)).unwrap_or(url)
}

/// Returns the pin of a certificate that only the user vouches for.
fn trusted_pin(args: &Args, certificate: Option<&Certificate>) -> Result<Option<String>, Error> {
    let Some(certificate) = certificate.filter(|_| args.has(Opt::TrustServer)) else { return Ok(None) };
    if certificate.trust != Trust::NOBODY {
        output::tell(args, "the server's certificate is trusted already: nothing is pinned");
        return Ok(None);
    }
    let no_terminal = Error::usage(
        "there is no terminal to show the server's certificate on",
        &format!("compare its fingerprint by another way, then give `--tls-pin {}`", certificate.sha256),
    );
    show(certificate);
    let answer =
        prompt::line("Is this your server, and shall it be trusted from now on? [y/N] ", no_terminal)?;
    if matches!(answer.as_str(), "y" | "Y" | "yes") {
        return Ok(Some(certificate.sha256.clone()));
    }
    Err(Error::new(
        ErrorCode::DENIED,
        "the server is not trusted",
        "nothing was changed; ask who runs the server",
    ))
}

fn show(certificate: &Certificate) {
    prompt::show("Nobody vouches for the server's certificate:");
    for (word, value) in [
        ("subject    ", certificate.subject.as_str()),
        ("issuer     ", &certificate.issuer),
        ("names      ", &certificate.names.join(", ")),
        ("valid until", &rfc3339(certificate.not_after)),
        ("fingerprint", &certificate.sha256),
    ] {
        prompt::show(&format!("  {word}  {value}"));
    }
}

/// Returns the key, where the agent wants one.
fn key(args: &Args, prepared: &Prepared) -> Result<Option<Secret>, Error> {
    let file = args.raw(Opt::KeyFile);
    if !prepared.wants_key {
        if args.has(Opt::KeyStdin) || file.is_some() {
            return Err(Error::usage(
                &format!("the key of `{}` comes from its {} source", prepared.profile, prepared.key_source),
                "drop `--key-stdin` and `--key-file`, or choose another `--key-source`",
            ));
        }
        return Ok(None);
    }
    match file {
        Some(path) => key_from_file(args, path),
        None if args.has(Opt::KeyStdin) => secret::key_from_stdin(),
        None => key_from_terminal(prepared),
    }
    .map(Some)
}

fn key_from_file(args: &Args, path: &OsStr) -> Result<Secret, Error> {
    let path = Path::new(path);
    let mut file = File::open(path).map_err(|error| cannot_read_file(path, &error))?;
    warn_if_exposed(args, path, &file);
    secret::key_from_file(&mut file, path)
}

#[cfg(unix)]
fn warn_if_exposed(args: &Args, path: &Path, file: &File) {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        let path = path.display();
        output::warn(args, &format!("others can read `{path}`: run `chmod 600 {path}`, or delete it now"));
    }
}

#[cfg(not(unix))]
fn warn_if_exposed(_: &Args, _: &Path, _: &File) {}

fn key_from_terminal(prepared: &Prepared) -> Result<Secret, Error> {
    let Prepared { profile, platform, url, username, .. } = prepared;
    let user = username.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
    let elsewhere = elsewhere(prepared).map(|place| format!(", to be sent to {place}")).unwrap_or_default();
    let question = format!("API key{user} at {url}{elsewhere} ({platform}, profile {profile}): ");
    let no_terminal = Error::usage(
        "there is no terminal to ask for the key on",
        "give it by `--key-stdin` or `--key-file FILE`",
    );
    prompt::key(&question, no_terminal)
}

/// Another session than for `prepare`, for the agent does not wait while the user looks for the key.
fn hand_over(args: &Args, profile: String, pin: Option<String>, key: Option<Secret>) -> Result<Added, Error> {
    let mut settings = settings(args)?;
    settings.tls_pin = pin.or(settings.tls_pin);
    let mut session = Session::open(args)?;
    let ttl_ms = args.duration(Opt::Ttl)?.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let add = Add {
        profile,
        settings,
        key,
        replace: args.has(Opt::Replace),
        verify: !args.has(Opt::NoVerify),
        deadline_ms: session.deadline_ms(),
    };
    let request = match ttl_ms {
        Some(ttl_ms) => Request::AddFor(AddFor { add, ttl_ms }),
        None => Request::Add(add),
    };
    let Reply::Added(added) = session.ask(&request)? else { return Err(unexpected_reply()) };
    Ok(added)
}

fn report(args: &Args, added: &Added) -> Result<(), Error> {
    if args.has(Opt::Json) {
        output::print(&render_json(added))?;
    } else {
        let proof = match (added.verified, added.token_life_ms) {
            (true, Some(ms)) => format!("verified; its tokens live {}", spell_duration(ms)),
            (true, None) => "verified".into(),
            (false, _) => "not verified".into(),
        };
        output::tell(args, &format!("added: {} ({proof})", added.profile));
    }
    output::tell_notes(args, &added.notes);
    Ok(())
}

fn render_json(added: &Added) -> Wiped {
    let mut json = Json::with_capacity(256);
    json.object("").text("profile", &added.profile).boolean("verified", added.verified);
    json.optional_number("token_life", added.token_life_ms.map(|ms| ms / 1000)).close("}");
    json.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_what_stands_before_the_path() {
        for (url, expected) in [
            ("https://cpd.example.com", "https://cpd.example.com"),
            ("https://cpd.example.com:8443/any/path", "https://cpd.example.com:8443"),
            ("https://cpd.example.com/", "https://cpd.example.com"),
            ("no-url", "no-url"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }

    #[test]
    fn paths_are_made_absolute_and_other_settings_left_alone() {
        let here = env::current_dir().unwrap().join("k").display().to_string();
        for (option, given, expected) in [
            (Opt::CaFile, "k", here.as_str()),
            (Opt::KeySource, "file:k", &format!("file:{here}")),
            (Opt::KeySource, "file:/etc/k", "file:/etc/k"),
            (Opt::KeySource, "credential:k", "credential:k"),
            (Opt::Username, "file:k", "file:k"),
        ] {
            assert_eq!(independent(option, given).unwrap(), expected, "{given}");
        }
        assert!(independent(Opt::CaFile, "").is_err());
    }
}
