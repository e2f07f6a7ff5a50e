//! The real command against an agent that says what the test wants.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the agent of a test knows what it is asked")]

mod fake;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dph_agent_protocol::{
    Added, AgentStatus, AuditMode, AuditState, ErrorCode, Failure, Hello, HelloReply, KeySourceKind,
    KeyState, Listing, Page, PlatformKind, Pong, Prepared, ProfileEntry, ProfileStatus, Reply, Request,
    Secret, SecretMemory, Statuses, Token, TokenState, Warning, version,
};
use fake::{FakeAgent, Outcome, WELCOME, client, read_hello, read_request, run, run_with_input};

fn token() -> Token {
    Token {
        token: Secret::new("eyJ.abc.def".into()),
        profile: "prod".into(),
        url: "https://cpd.example.com".into(),
        username: Some("alice".into()),
        expires_at: Some(1_800_000_000),
        expires_in_ms: Some(3_599_900),
        ca_file: Some("/etc/ca.pem".into()),
        warning: None,
    }
}

fn failure(code: ErrorCode) -> Reply {
    Reply::Failure(Failure {
        code,
        message: "it \u{1b}[31mfailed".into(),
        hint: "mend it".into(),
        retry_after_ms: Some(1500),
    })
}

fn entry(name: &str) -> ProfileEntry {
    ProfileEntry {
        name: name.into(),
        platform: PlatformKind::SOFTWARE_HUB,
        url: "https://cpd.example.com".into(),
        username: Some("alice".into()),
        key_source: KeySourceKind::SESSION,
    }
}

fn ok(stdout: &str) -> Outcome {
    Outcome { status: 0, stdout: stdout.into(), stderr: String::new() }
}

#[test]
fn token_costs_one_round_trip() {
    let agent = FakeAgent::handling(|mut stream| {
        assert_eq!(read_hello(&mut stream), Some(Hello::OURS));
        // Nothing is answered before the request is there.
        assert!(matches!(read_request(&mut stream), Some(Request::Token(_))));
        let reply = Reply::Token(token()).to_frame().unwrap();
        stream.write_all(&[&WELCOME.to_frame(), reply.as_slice()].concat()).unwrap();
    });
    assert_eq!(run(&mut agent.client("token")), ok("eyJ.abc.def\n"));
}

#[test]
fn request_with_a_secret_is_sent_only_to_an_agent_that_has_answered() {
    let (sender, received) = mpsc::channel();
    let agent = FakeAgent::handling(move |mut stream| {
        read_hello(&mut stream);
        let mismatch = HelloReply::Mismatch { min: version::CURRENT + 1, max: version::CURRENT + 1 };
        stream.write_all(&mismatch.to_frame()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        sender.send(rest).unwrap();
    });
    let outcome = run_with_input(&mut agent.client("token --reject"), "Bearer eyJ.old\n");
    assert_eq!(outcome.status, 1);
    assert_eq!(received.recv().unwrap(), b"");

    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    let outcome = run_with_input(&mut agent.client("token --reject"), "Bearer eyJ.old\n");
    assert_eq!(outcome, ok("eyJ.abc.def\n"));
    let [Request::Token(request)] = &agent.requests()[..] else { panic!("one token request") };
    assert_eq!(request.rejected, Some(Secret::new("eyJ.old".into())));
}

#[test]
fn agent_of_another_version_is_asked_once_more_in_one_that_both_speak() {
    let agent = FakeAgent::handling(|mut stream| {
        let mismatch = HelloReply::Mismatch { min: 0, max: version::CURRENT };
        let pong = Reply::Pong(Pong { version: "9.9.9".into(), pid: 7 }).to_frame().unwrap();
        for answer in [&mismatch.to_frame()[..], &[&WELCOME.to_frame(), pong.as_slice()].concat()] {
            assert_eq!(read_hello(&mut stream).unwrap().encoded, version::CURRENT);
            assert_eq!(read_request(&mut stream), Some(Request::Ping));
            stream.write_all(answer).unwrap();
        }
    });
    assert_eq!(run(&mut agent.client("ping")), ok("dph-agent 9.9.9, pid 7\n"));
}

#[test]
fn agent_that_never_agrees_on_a_version_is_given_up() {
    let agent = FakeAgent::handling(|mut stream| {
        let mismatch = HelloReply::Mismatch { min: 0, max: version::CURRENT };
        for _ in 0..2 {
            assert!(read_hello(&mut stream).is_some() && read_request(&mut stream).is_some());
            stream.write_all(&mismatch.to_frame()).unwrap();
        }
    });
    let outcome = run(&mut agent.client("ping"));
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.starts_with("error: the agent speaks versions 0 to 1,"), "{}", outcome.stderr);
}

#[test]
fn each_failure_has_its_status_and_two_lines() {
    let documented = [1, 2, 2, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 11, 12, 13, 9, 1, 11, 2, 1, 11, 4];
    assert_eq!(documented.len(), ErrorCode::ALL.len());
    for (code, status) in ErrorCode::ALL.iter().zip(documented) {
        let agent = FakeAgent::answering(|_| failure(*code));
        let stderr = "error: it [31mfailed\nhint: mend it\n".into();
        assert_eq!(
            run(&mut agent.client("token")),
            Outcome { status, stdout: String::new(), stderr },
            "{code}"
        );
    }
}

#[test]
fn failure_is_one_object_where_json_is_asked_for() {
    let agent = FakeAgent::answering(|_| failure(ErrorCode::THROTTLED));
    let stderr = concat!(
        r#"{"code":"throttled","message":"it \u001b[31mfailed","hint":"mend it","retry_after":2}"#,
        "\n"
    );
    let outcome = run(&mut agent.client("token --json"));
    assert_eq!(outcome, Outcome { status: 7, stdout: String::new(), stderr: stderr.into() });
    assert!(run(&mut client("tokn --json")).stderr.starts_with(r#"{"code":"usage","#));
}

#[test]
fn refusal_before_hello_is_reported_as_what_it_is() {
    let agent = FakeAgent::handling(|mut stream| {
        stream.write_all(&failure(ErrorCode::BUSY).to_frame().unwrap()).unwrap()
    });
    assert_eq!(run(&mut agent.client("ping")).status, 9);

    let agent = FakeAgent::handling(|stream| stream.shutdown(Shutdown::Both).unwrap());
    let outcome = run(agent.client("ping").env("SUDO_UID", "1000"));
    assert_eq!(outcome.status, 8);
    assert!(outcome.stderr.contains("sudo"), "{}", outcome.stderr);
}

#[test]
fn agent_that_is_silent_is_waited_for_as_long_as_the_timeout() {
    let mut open = Vec::new();
    let agent = FakeAgent::handling(move |stream| open.push(stream));
    let start = Instant::now();
    let outcome = run(&mut agent.client("token --timeout 1s"));
    assert_eq!(outcome.status, 9);
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&start.elapsed()));
}

#[test]
fn agent_is_given_less_time_than_the_client_has() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    run(&mut agent.client("token --timeout 5m --min-ttl 1h30m --new --for-url https://cpd.example.com/x"));
    let [Request::Token(request)] = &agent.requests()[..] else { panic!("one token request") };
    assert!((290_000..=299_800).contains(&request.deadline_ms), "{}", request.deadline_ms);
    assert_eq!((request.min_ttl_ms, request.new), (Some(5_400_000), true));
    assert_eq!(request.selector.for_url.as_deref(), Some("https://cpd.example.com/x"));
}

#[test]
fn profile_is_taken_from_the_environment_where_no_option_names_one() {
    let agent = FakeAgent::answering(|_| Reply::Token(token()));
    run(agent.client("token").env("DPH_AGENT_PROFILE", "dev"));
    run(agent.client("token --profile prod").env("DPH_AGENT_PROFILE", "dev"));
    run(agent.client("token --for-url https://a").env("DPH_AGENT_PROFILE", "dev"));
    run(agent.client("token").env("DPH_AGENT_PROFILE", ""));
    let profiles: Vec<_> =
        agent
            .requests()
            .into_iter()
            .map(|request| {
                if let Request::Token(request) = request { request.selector.profile } else { panic!("token") }
            })
            .collect();
    assert_eq!(profiles, [Some("dev".into()), Some("prod".into()), None, None]);
}

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

fn prepared() -> Reply {
    Reply::Prepared(Prepared {
        profile: "prod".into(),
        exists: false,
        platform: PlatformKind::SOFTWARE_HUB,
        url: "https://cpd.example.com".into(),
        auth_url: "https://cpd.example.com".into(),
        username: Some("alice".into()),
        key_source: KeySourceKind::SESSION,
        wants_key: true,
        certificate: None,
        notes: vec!["the URL was shortened".into()],
    })
}

fn keeper() -> FakeAgent {
    keeper_after(prepared())
}

fn keeper_after(prepared: Reply) -> FakeAgent {
    FakeAgent::answering(move |request| match request {
        Request::Prepare(_) => prepared.clone(),
        _ => Reply::Added(Added {
            profile: "prod".into(),
            verified: true,
            token_life_ms: Some(43_164_000),
            notes: vec!["kept in memory only".into()],
        }),
    })
}

#[test]
fn key_from_standard_input_is_handed_over_after_the_settings_were_checked() {
    let agent = keeper();
    let mut command = agent
        .client("add --url https://cpd.example.com --platform software-hub --username alice --key-stdin");
    let outcome = run_with_input(&mut command, "the-api-key\n");
    let stderr = "note: the URL was shortened\nadded: prod (verified; its tokens live 11h59m24s)\nnote: kept in memory only\n";
    assert_eq!(outcome, Outcome { status: 0, stdout: String::new(), stderr: stderr.into() });
    let [Request::Prepare(prepare), Request::Add(add)] = &agent.requests()[..] else {
        panic!("prepare, add")
    };
    assert!(prepare.reach && add.verify);
    assert_eq!(prepare.settings, add.settings);
    assert_eq!(add.settings.platform, Some(PlatformKind::SOFTWARE_HUB));
    assert_eq!(add.key, Some(Secret::new("the-api-key".into())));
}

#[test]
#[cfg(target_os = "linux")]
fn key_stands_in_no_argument_and_no_variable() {
    let (sender, seen) = mpsc::channel();
    let agent = FakeAgent::handling(move |mut stream| {
        read_hello(&mut stream);
        stream.write_all(&WELCOME.to_frame()).unwrap();
        let reply = match read_request(&mut stream) {
            Some(Request::Prepare(_)) => prepared(),
            _ => failure(ErrorCode::KEY_REFUSED),
        };
        let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid.as_raw_nonzero();
        let public =
            ["cmdline", "environ", "comm"].map(|name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap());
        sender.send(String::from_utf8(public.concat()).unwrap()).unwrap();
        stream.write_all(&reply.to_frame().unwrap()).unwrap();
    });
    assert_eq!(run_with_input(&mut agent.client("add --key-stdin"), "the-api-key\n").status, 6);
    let public: Vec<_> = seen.try_iter().collect();
    assert_eq!(public.len(), 2);
    assert!(
        public.iter().all(|text| text.contains("--key-stdin") && !text.contains("the-api-key")),
        "{public:?}"
    );
}

#[test]
fn key_file_may_be_what_ibm_cloud_gives_and_should_be_private() {
    use std::os::unix::fs::PermissionsExt;

    let agent = keeper();
    let file = agent.folder().join("apikey.json");
    std::fs::write(&file, r#"{"name":"n","apikey":"the-api-key"}"#).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o644, 1)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let outcome = run(agent.client("add --key-file").arg(&file));
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("warning: ").count(), warnings, "{}", outcome.stderr);
        let Some(Request::Add(add)) = agent.requests().pop() else { panic!("add") };
        assert_eq!(add.key, Some(Secret::new("the-api-key".into())));
    }
}

#[test]
fn key_that_goes_to_another_server_is_announced_with_its_name() {
    let Reply::Prepared(prepared) = prepared() else { panic!("prepared") };
    for (auth_url, announced) in [
        ("https://cpd.example.com/icp4d-api", false),
        ("https://cpd.example.com:8443", true),
        ("https://cpd.example.com.evil.example", true),
    ] {
        let prepared = Prepared { auth_url: auth_url.into(), ..prepared.clone() };
        let agent = keeper_after(Reply::Prepared(prepared));
        let outcome = run_with_input(&mut agent.client("add --key-stdin"), "the-api-key\n");
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let note = format!("note: the key is sent to {auth_url}, not to https://cpd.example.com\n");
        assert_eq!(outcome.stderr.contains(&note), announced, "{}", outcome.stderr);
    }
}

#[test]
fn key_is_not_asked_for_where_its_destination_has_changed() {
    let agent = keeper_after(Reply::Failure(Failure {
        code: ErrorCode::EXISTS,
        message:
            "the key of profile `prod` was given for https://a, but the configuration now says https://b"
                .into(),
        hint: "if that is right: dph-agent-client add --profile prod --replace".into(),
        retry_after_ms: None,
    }));
    let outcome = run_with_input(&mut agent.client("add --key-stdin"), "the-api-key\n");
    let stderr = concat!(
        "error: the key of profile `prod` was given for https://a, but the configuration now says https://b\n",
        "hint: if that is right: dph-agent-client add --profile prod --replace\n"
    );
    assert_eq!(outcome, Outcome { status: 2, stdout: String::new(), stderr: stderr.into() });
    assert!(matches!(agent.requests()[..], [Request::Prepare(_)]));
}

#[test]
fn empty_key_is_never_sent() {
    let agent = keeper();
    assert_eq!(run_with_input(&mut agent.client("add --key-stdin"), "\n").status, 2);
    assert!(matches!(agent.requests()[..], [Request::Prepare(_)]));
}

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
