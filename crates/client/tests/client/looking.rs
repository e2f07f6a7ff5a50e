//! `list` and `status`.

use dph_agent_protocol::{
    AgentStatus, AuditMode, AuditState, ErrorCode, KeyState, Listing, Page, ProfileStatus, Reply, Request,
    SecretMemory, Statuses, TokenState,
};

use crate::fake::{FakeAgent, run};
use crate::{entry, failure, ok};

#[test]
fn list_is_read_page_by_page() {
    let pages = |request: &Request| {
        let Request::List(Page { after }) = request else { panic!("list") };
        let (name, more) = if after.is_empty() { ("a", true) } else { ("b", false) };
        Reply::Listing(Listing { profiles: vec![entry(name)], default: Some("b".into()), more })
    };
    let agent = FakeAgent::answering(pages);
    assert_eq!(
        run(&mut agent.client("list")),
        ok(concat!(
            "  a  software-hub  https://cpd.example.com  session     alice\n",
            "* b  software-hub  https://cpd.example.com  session     alice\n"
        ))
    );
    assert_eq!(agent.requests().len(), 2);
    let json = run(&mut agent.client("list --json")).stdout;
    assert!(json.starts_with(r#"[{"name":"a","#) && json.ends_with("\"default\":true}]\n"), "{json}");
    assert_eq!(run(&mut agent.client("default")), ok("b\n"));
}

fn statuses(profiles: Vec<ProfileStatus>, more: bool) -> Reply {
    let agent = AgentStatus {
        version: "0.1.0".into(),
        pid: 7,
        socket: "/run/agent.sock".into(),
        locked: false,
        started_at: 0,
        secret_memory: SecretMemory::MEMFD,
        profile_count: 2,
        config_error: None,
    };
    Reply::Statuses(Statuses { agent, profiles, more })
}

fn profile_status(name: &str, key_state: KeyState) -> ProfileStatus {
    ProfileStatus {
        entry: entry(name),
        key_state,
        key_added_at: Some(0),
        key_expires_at: None,
        token_state: TokenState::FRESH,
        usable_until: Some(60),
        next_refresh_at: None,
        served: 3,
        exchanges: 1,
        last_error: None,
    }
}

#[test]
fn status_is_read_page_by_page_and_checked() {
    let agent = FakeAgent::answering(|request| {
        let Request::Status(request) = request else { return failure(ErrorCode::UNKNOWN_REQUEST) };
        match request.page.after.as_str() {
            "" => statuses(vec![profile_status("a", KeyState::HELD)], true),
            _ => statuses(vec![profile_status("b", KeyState::REJECTED)], false),
        }
    });
    let json = concat!(
        r#"{"agent":{"version":"0.1.0","pid":7,"socket":"/run/agent.sock","locked":false,"#,
        r#""started_at":"1970-01-01T00:00:00Z","secret_memory":"memfd","profile_count":2,"config_error":null},"#,
        r#""profiles":[{"name":"a","platform":"software-hub","url":"https://cpd.example.com","username":"alice","#,
        r#""key_source":"session","key_state":"held","key_added_at":"1970-01-01T00:00:00Z","key_expires_at":null,"#,
        r#""token_state":"fresh","usable_until":"1970-01-01T00:01:00Z","next_refresh_at":null,"served":3,"#,
        r#""exchanges":1,"last_error":null},"#
    );
    let outcome = run(&mut agent.client("status --json"));
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    assert!(outcome.stdout.starts_with(json), "{}", outcome.stdout);
    let checked = run(&mut agent.client("status --check --quiet"));
    assert_eq!((checked.status, checked.stdout.as_str()), (6, ""));
    assert!(checked.stderr.contains("add --profile b"), "{}", checked.stderr);
    let lines = run(&mut agent.client("status")).stdout;
    assert!(lines.contains("\nb: software-hub at") && !lines.contains("audit"), "{lines}");
}

#[test]
fn status_tells_how_the_audit_log_stands_where_the_agent_does() {
    let agent = FakeAgent::answering(|request| match request {
        Request::AuditState => Reply::AuditState(AuditState {
            mode: AuditMode::ON,
            file: "/state/audit.jsonl".into(),
            head: Some("5e".repeat(32)),
            lines: 12,
            lost: 3,
            error: Some("disk\u{1b}[2J".into()),
        }),
        _ => statuses(Vec::new(), false),
    });
    let json = run(&mut agent.client("status --json")).stdout;
    let expected = format!(
        r#""audit":{{"mode":"on","file":"/state/audit.jsonl","head":"{}","lines":12,"lost":3,"error":"disk\u001b[2J"}}"#,
        "5e".repeat(32)
    );
    assert!(json.contains(&expected), "{json}");
    let lines = run(&mut agent.client("status")).stdout;
    assert!(lines.contains(&format!("  audit     on, 12 lines, head {}\n", "5e".repeat(32))), "{lines}");
    assert!(
        lines.contains("3 lines were lost\n") && lines.contains("cannot be written: disk[2J\n"),
        "{lines}"
    );
}
