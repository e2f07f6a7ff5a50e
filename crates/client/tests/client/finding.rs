//! How the agent is found.

use dph_agent_protocol::Reply;

use crate::fake::{FakeAgent, client, run};
use crate::{ok, token};

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn no_agent_is_reported_with_every_place_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(client("token")
        .env("DPH_AGENT_SOCK", folder.path().join("none"))
        .env("XDG_RUNTIME_DIR", folder.path()));
    if outcome.status == 0 || outcome.status == 5 {
        eprintln!("skipped: an agent of this user is running");
        return;
    }
    assert_eq!(outcome.status, 3);
    for place in [folder.path().join("none"), folder.path().join("dph-agent/agent.sock")] {
        let why = format!("`{}`: nothing is there", place.display());
        assert!(outcome.stderr.contains(&why), "{}", outcome.stderr);
    }
    assert!(outcome.stderr.contains("/tmp/dph-agent-"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 2);
}

#[test]
fn socket_option_looks_nowhere_else() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let none = agent.folder().join("none");
    let outcome = run(client("token --socket")
        .arg(&none)
        .env("XDG_RUNTIME_DIR", agent.folder())
        .env("SUDO_UID", "1000"));
    assert_eq!(outcome.status, 3);
    assert!(outcome.stderr.contains(&none.display().to_string()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sudo"), "{}", outcome.stderr);
}

#[test]
fn dead_variable_is_passed_over_only_by_what_changes_nothing() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let none = agent.folder().join("none");
    let around = |line: &str| {
        let mut command = client(line);
        command.env("DPH_AGENT_SOCK", &none).env("XDG_RUNTIME_DIR", agent.folder());
        run(&mut command)
    };
    let outcome = around("token");
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "eyJ.abc.def\n"));
    assert!(
        outcome.stderr.starts_with("warning: ") && outcome.stderr.lines().count() == 1,
        "{}",
        outcome.stderr
    );
    assert_eq!(around("token --quiet"), ok("eyJ.abc.def\n"));
    for line in ["stop", "refresh", "forget --yes", "remove --yes", "default prod", "add"] {
        assert_eq!(around(line).status, 3, "{line}");
    }
}

#[test]
fn variable_that_names_no_socket_is_not_passed_over() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let long = "x".repeat(300);
    let outcome = run(client("token").env("DPH_AGENT_SOCK", long).env("XDG_RUNTIME_DIR", agent.folder()));
    assert_eq!(outcome.status, 3);
}
