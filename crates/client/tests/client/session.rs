//! One connection: greeting, versions, failures and time.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dph_agent_protocol::{ErrorCode, Hello, HelloReply, Pong, Reply, Request, Secret, version};

use crate::fake::{FakeAgent, Outcome, WELCOME, client, read_hello, read_request, run, run_with_input};
use crate::{failure, ok, token};

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
