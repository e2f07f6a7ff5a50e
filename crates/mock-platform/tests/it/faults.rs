//! Every fault does to the peer what its name says.

use std::io;
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Options, RetryAfter, Times};

use crate::client::{self, FORM, JSON, LONG, Response, authorize, get, post};
use crate::platforms::{alices_token, claims, with_alice};

const MOMENT: Duration = Duration::from_millis(200);

/// Returns the answer to a valid exchange that `fault` spoils.
fn spoilt(fault: Fault) -> io::Result<Response> {
    let platform = with_alice();
    platform.script(Endpoint::Authorize, fault, Times::Once);
    let response = authorize(&platform, "alice", "alices-key");
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 200, "once means once");
    assert_eq!(platform.exchanges(), 2);
    response
}

#[test]
fn slow_answers_are_genuine_and_late() {
    let started = Instant::now();
    assert_eq!(spoilt(Fault::Slow(MOMENT)).unwrap().status, 200);
    assert!(started.elapsed() >= MOMENT);
}

#[test]
fn late_answers_are_about_what_was_when_the_request_came() {
    let platform = with_alice();
    platform.script(Endpoint::Authorize, Fault::Late(MOMENT), Times::Once);
    thread::scope(|scope| {
        let caller = scope.spawn(|| authorize(&platform, "alice", "alices-key"));
        assert!(platform.wait_for_exchanges(1, LONG));
        platform.revoke_key("alices-key");
        assert_eq!(caller.join().unwrap().unwrap().status, 200);
    });
}

#[test]
fn a_hanging_request_is_recorded_and_never_answered() {
    let platform = with_alice();
    platform.script(Endpoint::Authorize, Fault::Hang, Times::Once);
    let stream = client::connect(&platform).unwrap();
    stream.sock.set_read_timeout(Some(MOMENT)).unwrap();
    let head = "POST /icp4d-api/v1/authorize HTTP/1.1\r\nContent-Length: 0\r\n";
    let error = client::exchange(stream, head, "").err().unwrap();
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    assert_eq!(platform.requests()[0].status, None);
}

#[test]
fn dropped_connections_end_before_an_answer_and_half_way_through_a_body() {
    for fault in [Fault::DropConnection, Fault::DropMidBody] {
        let error = spoilt(fault.clone()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{fault:?}");
    }
}

#[test]
fn half_a_body_arrives_before_the_connection_ends() {
    let platform = MockPlatform::start_with(Options { plain_http: true, ..Options::default() });
    platform.script(Endpoint::DataProducts, Fault::DropMidBody, Times::Once);
    let mut stream = client::tcp(&platform).unwrap();
    let head = "GET /data_product_exchange/v1/data_products HTTP/1.1\r\n";
    let (received, announced) = client::exchange_unchecked(&mut stream, head);
    assert!(announced > 1);
    assert_eq!(received, announced / 2);
}

#[test]
fn error_faults_have_their_status_and_form() {
    let cases = [
        (Fault::Unauthorized { json: true }, 401, "application/json"),
        (Fault::Unauthorized { json: false }, 401, "text/plain; charset=utf-8"),
        (Fault::Forbidden, 403, "application/json"),
        (Fault::BadRequest { code: "any" }, 400, "application/json"),
        (Fault::Code602, 500, "application/json"),
        (Fault::NotFound, 404, "text/plain; charset=utf-8"),
        (Fault::ServerError(503, None), 503, "text/plain; charset=utf-8"),
        (Fault::Html, 200, "text/html"),
        (Fault::Garbage, 200, "application/json"),
        (Fault::WrongContentType, 200, "text/plain"),
        (Fault::EmptyBody, 200, "application/json"),
    ];
    for (fault, status, media_type) in cases {
        let response = spoilt(fault.clone()).unwrap();
        assert_eq!(
            (response.status, response.header("content-type")),
            (status, Some(media_type)),
            "{fault:?}"
        );
    }
}

#[test]
fn each_service_words_an_error_in_its_own_way() {
    let platform = MockPlatform::start();
    platform.script(Endpoint::Any, Fault::BadRequest { code: "BXNIM0462E" }, Times::Forever);
    let iam = post(&platform, "/identity/token", FORM, "").unwrap().json();
    let mcsp = post(&platform, "/api/2.0/apikeys/token", JSON, "").unwrap().json();
    let dph = get(&platform, "/data_product_exchange/v1/data_products", "none").unwrap().json();
    assert_eq!((&iam["errorCode"], iam["context"].is_object()), (&"BXNIM0462E".into(), true));
    assert_eq!((&mcsp["errorCode"], mcsp["context"].is_null()), (&"BXNIM0462E".into(), true));
    assert_eq!((&dph["errors"][0]["code"], &dph["status_code"]), (&"BXNIM0462E".into(), &400.into()));
}

#[test]
fn retry_after_comes_in_seconds_as_a_date_and_not_at_all() {
    let throttled = |retry_after| spoilt(Fault::Throttled(retry_after)).unwrap();
    let seconds = throttled(RetryAfter::Seconds(7));
    assert_eq!((seconds.status, seconds.header("retry-after")), (429, Some("7")));
    assert_eq!(throttled(RetryAfter::Absent).header("retry-after"), None);
    let response = throttled(RetryAfter::Date(Duration::from_secs(90)));
    let date = |name| httpdate::parse_http_date(response.header(name).unwrap()).unwrap();
    assert_eq!(date("retry-after").duration_since(date("date")).unwrap(), Duration::from_secs(90));
}

#[test]
fn a_redirect_would_have_the_key_sent_on() {
    let response = spoilt(Fault::Redirect("https://elsewhere.example.com/".into())).unwrap();
    assert_eq!((response.status, response.header("location")), (307, Some("https://elsewhere.example.com/")));
}

#[test]
fn a_huge_body_goes_on_until_the_peer_hangs_up() {
    let platform = with_alice();
    platform.script(Endpoint::Authorize, Fault::HugeBody, Times::Once);
    let mut stream = client::connect(&platform).unwrap();
    let head = "POST /icp4d-api/v1/authorize HTTP/1.1\r\nContent-Length: 0\r\n";
    assert_eq!(client::read_at_least(&mut stream, head, 10 << 20), 10 << 20);
    drop(stream);
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 200);
}

#[test]
fn faulty_tokens_are_faulty_in_one_way_only() {
    let without_exp = spoilt(Fault::TokenWithoutExp).unwrap().json();
    assert!(claims(without_exp["token"].as_str().unwrap()).get("exp").is_none());
    assert!(spoilt(Fault::NoTokenField).unwrap().json().get("token").is_none());
    assert!(spoilt(Fault::AccessTokenField).unwrap().json()["accessToken"].is_string());
    let variant = spoilt(Fault::MessageCodeVariant).unwrap().json();
    assert_eq!((&variant["_messageCode_"], &variant["message"]), (&"success".into(), &"success".into()));
    assert!(!spoilt(Fault::OpaqueToken).unwrap().json()["token"].as_str().unwrap().contains('.'));
    assert!(spoilt(Fault::LongToken(60_000)).unwrap().json()["token"].as_str().unwrap().len() >= 60_000);
}

#[test]
fn a_token_without_exp_has_no_expiry_beside_it_either() {
    let platform = MockPlatform::start();
    platform.add_mcsp_key("mcsp-key");
    platform.script(Endpoint::McspToken, Fault::TokenWithoutExp, Times::Once);
    let body = post(&platform, "/api/2.0/apikeys/token", JSON, r#"{"apikey":"mcsp-key"}"#).unwrap().json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["token", "token_type"]);
}

#[test]
fn the_same_token_is_sold_twice_when_told_so() {
    let platform = with_alice();
    let first = alices_token(&platform);
    platform.script(Endpoint::Authorize, Fault::SameToken, Times::Once);
    assert_eq!(alices_token(&platform), first);
    assert_ne!(alices_token(&platform), first);
}

#[test]
fn a_skewed_clock_shows_in_the_date_and_in_the_claims() {
    let platform = with_alice();
    for skew in [-86_400, 86_400] {
        platform.set_clock_skew(skew);
        let response = authorize(&platform, "alice", "alices-key").unwrap();
        let date = httpdate::parse_http_date(response.header("date").unwrap()).unwrap();
        let ahead = seconds(date) - seconds(now());
        assert!((ahead - skew).abs() < 30, "{ahead}");
        let issued_at = claims(response.json()["token"].as_str().unwrap())["iat"].as_i64().unwrap();
        assert!((issued_at - seconds(date)).abs() <= 1);
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with the clock that the mock departs from")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[test]
fn a_paused_platform_holds_requests_and_answers_them_when_resumed() {
    let platform = with_alice();
    platform.pause();
    let (answered, answer) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| answered.send(authorize(&platform, "alice", "alices-key").unwrap().status));
        assert!(platform.wait_for_exchanges(1, LONG));
        assert_eq!(answer.recv_timeout(MOMENT), Err(mpsc::RecvTimeoutError::Timeout));
        platform.resume();
        assert_eq!(answer.recv_timeout(LONG), Ok(200));
    });
    assert_eq!(platform.requests()[0].status, Some(200));
}

#[test]
fn an_asynchronous_test_can_have_a_platform_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { drop(MockPlatform::start()) });
}

#[test]
fn waiting_for_an_exchange_that_does_not_come_ends() {
    assert!(!MockPlatform::start().wait_for_exchanges(1, MOMENT));
}

#[test]
fn a_platform_that_is_down_refuses_connections_and_comes_back_on_its_port() {
    let platform = with_alice();
    for _ in 0..3 {
        assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 200);
        platform.stop_listening();
        let error = client::tcp(&platform).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        platform.listen_again();
    }
}

/// A program that is being started has, for a moment, a copy of every descriptor: the listening one, too.
#[test]
fn the_port_is_kept_while_programs_start_elsewhere_in_the_process() {
    let platform = with_alice();
    let start_programs = || {
        for _ in 0..200 {
            assert!(Command::new(env!("CARGO_BIN_EXE_dph-mock-platform")).arg("--version").output().is_ok());
        }
    };
    thread::scope(|scope| {
        let starters = [0; 4].map(|_| scope.spawn(start_programs));
        while !starters.iter().all(ScopedJoinHandle::is_finished) {
            platform.stop_listening();
            assert_eq!(client::tcp(&platform).err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
            platform.listen_again();
        }
    });
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 200);
}

#[test]
fn going_down_cuts_open_connections() {
    let platform = with_alice();
    platform.pause();
    thread::scope(|scope| {
        let caller = scope.spawn(|| authorize(&platform, "alice", "alices-key"));
        assert!(platform.wait_for_exchanges(1, LONG));
        platform.stop_listening();
        assert!(caller.join().unwrap().is_err());
    });
}

#[test]
fn a_self_signed_certificate_is_its_own_authority_and_has_another_fingerprint_each_time() {
    let platforms =
        [0, 1].map(|_| MockPlatform::start_with(Options { self_signed: true, ..Options::default() }));
    let [first, second] = platforms.each_ref().map(MockPlatform::fingerprint);
    assert_ne!(first, second);
    assert!(first.starts_with("sha256:") && first.len() == 7 + 64, "{first}");
}

#[test]
fn requests_are_recorded_whole_and_shown_without_secrets() {
    let platform = with_alice();
    authorize(&platform, "alice", "alices-key").unwrap();
    let request = platform.requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/icp4d-api/v1/authorize"));
    assert_eq!((request.endpoint, request.status), (Endpoint::Authorize, Some(200)));
    assert_eq!(request.header("content-type"), Some(JSON));
    assert!(request.body_text().contains("alices-key"));
    assert!(!format!("{request:?} {request}").contains("alices-key"));
}
