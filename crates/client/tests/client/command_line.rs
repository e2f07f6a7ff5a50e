//! What is confirmed, explained and refused before anything is sent.

use dph_agent_protocol::{Reply, Request};

use crate::fake::{FakeAgent, Outcome, client, run};
use crate::ok;

#[test]
fn several_profiles_are_dropped_only_when_all_is_confirmed() {
    let agent = FakeAgent::answering(|_| Reply::Done(vec!["a".into(), "b".into()]));
    assert_eq!(run(&mut agent.client("forget --all --dry-run")), ok("a\nb\n"));
    assert_eq!(agent.requests().len(), 1);
    let outcome = run(&mut agent.client("remove --all --yes"));
    assert_eq!(outcome, Outcome { stderr: "removed: a, b\n".into(), ..ok("") });
    let Some(Request::Remove(kept)) = agent.requests().pop() else { panic!("remove") };
    assert!(kept.all && !kept.dry_run);
}

#[test]
fn what_was_shown_is_what_is_dropped() {
    let agent = FakeAgent::answering(|_| Reply::Done(vec!["prod".into()]));
    assert_eq!(run(&mut agent.client("forget --yes")).status, 0);
    let [Request::Forget(look), Request::Forget(act)] = &agent.requests()[..] else { panic!("forget twice") };
    assert!(look.dry_run && !act.dry_run);
    assert_eq!((look.selector.profile.as_deref(), act.selector.profile.as_deref()), (None, Some("prod")));
}

#[test]
fn every_command_explains_itself() {
    for name in [
        "token", "add", "list", "status", "default", "forget", "remove", "refresh", "ping", "stop", "version",
    ] {
        let outcome = run(&mut client(&format!("{name} --help")));
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
        assert!(
            outcome.stdout.starts_with(&format!("Usage: dph-agent-client {name} ")),
            "{}",
            outcome.stdout
        );
        assert!(run(&mut client("--help")).stdout.contains(&format!("  {name} ")));
    }
    assert_eq!(
        run(&mut client("version")),
        ok(concat!("dph-agent-client ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[test]
fn a_command_of_the_program_beside_names_that_program_where_it_is_missing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let alone = folder.path().join("dph-agent-client");
    // A copy could not be run while another thread that starts a program still has it open for writing.
    std::fs::hard_link(env!("CARGO_BIN_EXE_dph-agent-client"), &alone).unwrap();
    let outcome = run(std::process::Command::new(alone).args(["audit", "verify", "--head", "0"]));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (1, ""));
    assert!(outcome.stderr.contains("cannot run the `dph-agent` beside this program"), "{}", outcome.stderr);
}

#[test]
fn wrong_usage_is_told_from_everything_else() {
    for line in [
        "",
        "tokn",
        "token --min-ttl soon",
        "token extra",
        "list --profile p",
        "token --profile a/b",
        "token --server-uid root",
        "add --key-stdin --key-file f",
    ] {
        let outcome = run(&mut client(line));
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""), "{line}");
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    }
}
