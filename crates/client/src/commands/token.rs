//! `token`: a bearer token in the shape that the caller needs.

use std::mem::ManuallyDrop;

use dph_agent_protocol::{ErrorCode, Reply, Request, Token, TokenRequest, Warning, Zen};

use crate::cli::{Args, Command, Opt};
use crate::exit::Error;
use crate::json::Json;
use crate::output;
use crate::secret;
use crate::session::{Session, unexpected_reply};
use crate::wiped::Wiped;

pub(crate) const TOKEN: Command = Command {
    name: "token",
    operand: None,
    summary: "Prints a bearer token.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::MinTtl, Opt::New, Opt::Reject, Opt::Format],
    changes: false,
    run,
};

/// How a header begins that contains the key.
const ZEN: &str = "ZenApiKey ";

#[derive(Clone, Copy)]
enum Format {
    Raw,
    Json,
    Header,
    Curl,
}

/// What is in none of them is no token.
const FORMATS: &[(&str, Option<Format>)] = &[
    ("raw", Some(Format::Raw)),
    ("json", Some(Format::Json)),
    ("header", Some(Format::Header)),
    ("curl", Some(Format::Curl)),
    ("zen", None),
];

fn run(args: &Args) -> Result<(), Error> {
    let default = if args.has(Opt::Json) { Format::Json } else { Format::Raw };
    let Some(format) = args.choice(Opt::Format, FORMATS)?.unwrap_or(Some(default)) else {
        return zen(args);
    };
    let mut request = request(args)?;
    // What ends now gives its memory back to the kernel, which clears it: wiping would take as long again.
    let mut session = ManuallyDrop::new(Session::open(args)?);
    request.deadline_ms = session.deadline_ms();
    let Reply::Token(token) = session.ask(&Request::Token(request))? else { return Err(unexpected_reply()) };
    let token = ManuallyDrop::new(token);
    if matches!(format, Format::Header | Format::Curl) {
        check(token.token.expose())?;
    }
    if let Some(warning) = token.warning {
        output::warn(args, &describe(warning, &token.profile));
    }
    format.print(&token)
}

/// Prints a header that contains the key.
fn zen(args: &Args) -> Result<(), Error> {
    if [Opt::MinTtl, Opt::New, Opt::Reject].iter().any(|option| args.has(*option)) {
        return Err(Error::usage(
            "a ZenApiKey header is no token",
            "leave `--min-ttl`, `--new` and `--reject` out",
        ));
    }
    let selector = args.selector()?;
    let mut session = ManuallyDrop::new(Session::open(args)?);
    let request = Zen { selector, deadline_ms: session.deadline_ms() };
    let Reply::Zen(reply) = session.ask(&Request::Zen(request))? else { return Err(unexpected_reply()) };
    let reply = ManuallyDrop::new(reply);
    let pair = reply.header.expose().strip_prefix(ZEN).ok_or_else(unexpected_reply)?;
    check(pair)?;
    output::print(&render_header(ZEN, pair))
}

fn request(args: &Args) -> Result<TokenRequest, Error> {
    let min_ttl = args.duration(Opt::MinTtl)?;
    Ok(TokenRequest {
        selector: args.selector()?,
        min_ttl_ms: min_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        new: args.has(Opt::New),
        rejected: args.has(Opt::Reject).then(secret::token_from_stdin).transpose()?,
        deadline_ms: 0,
    })
}

/// Refuses a token that would add a header of its own, or a line to curl's configuration.
fn check(text: &str) -> Result<(), Error> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::MISCONFIGURED,
        "what the platform sold is no bearer token",
        "check `url` and `auth-url` of the profile",
    ))
}

fn describe(warning: Warning, profile: &str) -> String {
    match warning {
        Warning::KEY_REFUSED => format!(
            "the platform refuses the key of `{profile}` now, and this token is the last one: run `dph-agent-client add --profile {profile}`"
        ),
        Warning::ORIGIN_CHANGED => format!(
            "the configuration of `{profile}` was changed, and this token is the last one: run `dph-agent-client add --profile {profile}`"
        ),
        _ => {
            format!("the agent warns about `{profile}` with number {warning}: see `dph-agent-client status`")
        }
    }
}

impl Format {
    fn print(self, token: &Token) -> Result<(), Error> {
        let text = token.token.expose();
        match self {
            Self::Raw => output::print_both(text.as_bytes(), b"\n"),
            Self::Header => output::print(&render_header("Bearer ", text)),
            Self::Curl => output::print(&render_curl(text, token.ca_file.as_deref())),
            Self::Json => output::print(&render_json(token)),
        }
    }
}

fn render_header(scheme: &str, secret: &str) -> Wiped {
    // Room for all of it: growing would leave a copy behind.
    let mut header = Wiped(Vec::with_capacity(32 + secret.len()));
    for part in ["Authorization: ", scheme, secret, "\n"] {
        header.extend_from_slice(part.as_bytes());
    }
    header
}

/// Returns lines for `curl --config`.
fn render_curl(token: &str, ca_file: Option<&str>) -> Wiped {
    // Escaping doubles a text at worst.
    let room = 64 + 2 * (token.len() + ca_file.map_or(0, str::len));
    let mut config = Wiped(Vec::with_capacity(room));
    push_curl_line(&mut config, "header = \"Authorization: Bearer ", token);
    if let Some(ca_file) = ca_file {
        push_curl_line(&mut config, "cacert = \"", ca_file);
    }
    config
}

fn push_curl_line(config: &mut Wiped, start: &str, text: &str) {
    config.extend_from_slice(start.as_bytes());
    for byte in text.bytes() {
        match byte {
            b'\n' => config.extend_from_slice(b"\\n"),
            b'"' | b'\\' => config.extend_from_slice(&[b'\\', byte]),
            _ => config.push(byte),
        }
    }
    config.extend_from_slice(b"\"\n");
}

fn render_json(token: &Token) -> Wiped {
    let mut json = Json::with_capacity(room_for(token));
    json.object("").text("token", token.token.expose()).text("type", "Bearer");
    json.text("profile", &token.profile).text("url", &token.url);
    json.optional_text("username", token.username.as_deref());
    json.time("expires_at", token.expires_at);
    json.optional_number("expires_in", token.expires_in_ms.map(|ms| ms / 1000)).close("}");
    json.finish()
}

/// Returns how long the JSON of `token` is at most. Escaping makes two bytes of one in a token, six elsewhere.
fn room_for(token: &Token) -> usize {
    let username = token.username.as_ref().map_or(0, String::len);
    256 + 2 * token.token.expose().len() + 6 * (token.profile.len() + token.url.len() + username)
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::Secret;

    use super::*;

    fn token(text: &str) -> Token {
        Token {
            token: Secret::new(text.into()),
            profile: "prod".into(),
            url: "https://cpd.example.com".into(),
            username: None,
            expires_at: Some(0),
            expires_in_ms: Some(1999),
            ca_file: None,
            warning: None,
        }
    }

    fn text(bytes: &Wiped) -> &str {
        str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn header_is_one_line() {
        assert_eq!(text(&render_header(ZEN, "YWw=")), "Authorization: ZenApiKey YWw=\n");
        assert_eq!(text(&render_header("Bearer ", "ey.J")), "Authorization: Bearer ey.J\n");
    }

    #[test]
    fn curl_takes_back_what_is_quoted() {
        assert_eq!(
            text(&render_curl("ey\"J", Some("/etc/a\"b\\c\nd.pem"))),
            "header = \"Authorization: Bearer ey\\\"J\"\ncacert = \"/etc/a\\\"b\\\\c\\nd.pem\"\n"
        );
    }

    #[test]
    fn json_has_every_member_and_does_not_outgrow_its_room() {
        let mut full = token(&"\"\\".repeat(1000));
        full.url = "\u{1}".repeat(100);
        full.username = Some("\u{1}".repeat(100));
        let rendered = render_json(&full);
        assert_eq!(rendered.capacity(), room_for(&full));
        assert_eq!(
            text(&render_json(&token("ey\"J"))),
            concat!(
                r#"{"token":"ey\"J","type":"Bearer","profile":"prod","url":"https://cpd.example.com","username":null,"#,
                r#""expires_at":"1970-01-01T00:00:00Z","expires_in":1}"#,
                "\n"
            )
        );
    }

    #[test]
    fn token_that_would_break_out_of_its_header_is_refused() {
        for text in ["", "a b", "a\nb", "a\r\nX-Evil: 1", "a\u{1b}[2J", "é"] {
            assert!(check(text).is_err(), "{text:?}");
        }
    }
}
