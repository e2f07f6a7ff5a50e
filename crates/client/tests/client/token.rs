//! How tokens are printed.

use dph_agent_protocol::{Reply, Secret, Token, Warning};

use crate::fake::{FakeAgent, run};
use crate::{ok, token};

#[test]
fn token_comes_in_the_asked_format() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let json = concat!(
        r#"{"token":"eyJ.abc.def","type":"Bearer","profile":"prod","url":"https://cpd.example.com","#,
        r#""username":"alice","expires_at":"2027-01-15T08:00:00Z","expires_in":3599}"#,
        "\n"
    );
    for (line, expected) in [
        ("token --format raw", "eyJ.abc.def\n"),
        ("token --format header", "Authorization: Bearer eyJ.abc.def\n"),
        ("token --format curl", "header = \"Authorization: Bearer eyJ.abc.def\"\ncacert = \"/etc/ca.pem\"\n"),
        ("token --format json", json),
        ("token --json", json),
    ] {
        assert_eq!(run(&mut agent.client(line)), ok(expected), "{line}");
    }
    let outcome = run(&mut agent.client("token --format yaml"));
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("raw, json, header, curl"), "{}", outcome.stderr);
}

#[test]
fn large_token_is_printed_whole() {
    let text = "x".repeat(dph_agent_protocol::MAX_TOKEN_LEN);
    let expected = format!("{text}\n");
    let agent =
        FakeAgent::answering(move |_| Reply::Token(Token { token: Secret::new(text.clone()), ..token() }));
    assert_eq!(run(&mut agent.client("token")), ok(&expected));
}

#[test]
fn token_that_would_break_out_of_a_header_is_not_printed() {
    let text = "a\r\nX-Evil: 1";
    let agent =
        FakeAgent::answering(move |_| Reply::Token(Token { token: Secret::new(text.into()), ..token() }));
    let outcome = run(&mut agent.client("token --format header"));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (11, ""));
}

#[test]
fn warning_is_one_line_that_quiet_silences() {
    let agent =
        FakeAgent::answering(|_| Reply::Token(Token { warning: Some(Warning::KEY_REFUSED), ..token() }));
    let outcome = run(&mut agent.client("token"));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "eyJ.abc.def\n"));
    assert!(
        outcome.stderr.starts_with("warning: ") && outcome.stderr.lines().count() == 1,
        "{}",
        outcome.stderr
    );
    assert_eq!(run(&mut agent.client("token --quiet")), ok("eyJ.abc.def\n"));
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(agent.client("token").stdout(writer)), ok(""));
}
