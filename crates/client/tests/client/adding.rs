//! `add`: what is handed over, and when.

use std::io::Write as _;
use std::sync::mpsc;

use dph_agent_protocol::{
    Added, ErrorCode, Failure, KeySourceKind, PlatformKind, Prepared, Reply, Request, Secret,
};

use crate::failure;
use crate::fake::{FakeAgent, Outcome, WELCOME, read_hello, read_request, run, run_with_input};

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
