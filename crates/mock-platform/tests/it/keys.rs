//! Keys are made, found and deleted as at the IBM services, and faults come before or after that.

use std::io;
use std::sync::mpsc;
use std::thread;

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Options, Times};
use serde_json::{Value, json};

use crate::client::{self, FORM, JSON, LONG, Response, authorize, get, post};
use crate::platforms::{alices_token, with_alice};

const GENERATE: &str = "/usermgmt/v1/user/apiKey";
const IAM_ID: &str = "IBMid-5500000000";
const OWN_VALUE: &str = "0123456789-0123456789-0123456789";

fn generate(platform: &MockPlatform, token: &str) -> io::Result<Response> {
    get(platform, GENERATE, &format!("Bearer {token}"))
}

/// Starts a platform with a key called `mock` at IBM Cloud; returns a token that it bought, too.
fn with_iam_key(options: Options) -> (MockPlatform, String) {
    let platform = MockPlatform::start_with(options);
    platform.add_iam_key("first-key");
    let token = iam(&platform, "first-key").json()["access_token"].as_str().unwrap().to_owned();
    (platform, token)
}

fn iam(platform: &MockPlatform, api_key: &str) -> Response {
    let form = format!("grant_type=urn:ibm:params:oauth:grant-type:apikey&apikey={api_key}");
    post(platform, "/identity/token", FORM, &form).unwrap()
}

fn ask(platform: &MockPlatform, token: &str, line: &str, more: &str) -> io::Result<Response> {
    client::request(platform, line, &format!("Authorization: Bearer {token}\r\n{more}"), "")
}

fn create(platform: &MockPlatform, token: &str, body: &Value) -> io::Result<Response> {
    let headers = format!("Authorization: Bearer {token}\r\nContent-Type: {JSON}\r\n");
    client::request(platform, "POST /v1/apikeys", &headers, &body.to_string())
}

fn delete(platform: &MockPlatform, token: &str, id: &str) -> io::Result<Response> {
    ask(platform, token, &format!("DELETE /v1/apikeys/{id}"), "")
}

fn details(platform: &MockPlatform, token: &str, api_key: &str) -> Response {
    ask(platform, token, "GET /v1/apikeys/details", &format!("IAM-ApiKey: {api_key}\r\n")).unwrap()
}

#[test]
fn software_hub_bearers_outlive_their_key_unless_they_are_to_die_with_it() {
    for bearers_die_with_key in [false, true] {
        let platform = MockPlatform::start_with(Options { bearers_die_with_key, ..Options::default() });
        platform.add_user("alice", "alices-key");
        platform.allow_key_generation();
        let token = alices_token(&platform);
        assert_eq!(generate(&platform, &token).unwrap().status, 200);
        assert!(!platform.is_valid_key("alices-key"));
        let again = generate(&platform, &token).unwrap().status;
        assert_eq!(again, if bearers_die_with_key { 401 } else { 200 });
    }
}

#[test]
fn software_hub_says_when_a_key_ends_as_it_is_told_to() {
    let platform = with_alice();
    platform.allow_key_generation();
    let token = alices_token(&platform);
    for told in [json!(null), json!(1_798_761_600), json!("2027-01-01T00:00:00Z")] {
        platform.set_expire_at(told.clone());
        assert_eq!(generate(&platform, &token).unwrap().json()["expire_at"], told);
    }
}

#[test]
fn a_key_that_was_generated_elsewhere_ends_the_one_before() {
    let platform = with_alice();
    let new = platform.generate_key_elsewhere("alice");
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 401);
    assert_eq!(authorize(&platform, "alice", &new).unwrap().status, 200);
    assert!(platform.violations().is_empty());
}

#[test]
fn a_connection_is_dropped_before_or_after_a_key_is_generated() {
    for (fault, survives) in [(Fault::DropConnection, true), (Fault::DropAnswer, false)] {
        let platform = with_alice();
        platform.allow_key_generation();
        let token = alices_token(&platform);
        platform.script(Endpoint::GenerateKey, fault.clone(), Times::Once);
        let error = generate(&platform, &token).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{fault:?}");
        assert_eq!(platform.is_valid_key("alices-key"), survives, "{fault:?}");
        let request = platform.requests().pop().unwrap();
        assert_eq!((request.path.as_str(), request.status), (GENERATE, None));
    }
}

#[test]
fn something_can_be_done_before_one_endpoint_answers() {
    let platform = with_alice();
    platform.pause_at(Endpoint::GenerateKey);
    platform.allow_key_generation();
    let token = alices_token(&platform);
    let (answered, answer) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| answered.send(generate(&platform, &token).unwrap().json()));
        assert!(platform.wait_for_requests(Endpoint::GenerateKey, 1, LONG));
        let meanwhile = platform.generate_key_elsewhere("alice");
        assert!(platform.is_valid_key(&meanwhile));
        platform.resume();
        let last = answer.recv_timeout(LONG).unwrap()["apiKey"].as_str().unwrap().to_owned();
        assert_eq!((platform.is_valid_key(&meanwhile), platform.is_valid_key(&last)), (false, true));
    });
}

#[test]
fn iam_describes_a_key_to_its_owner() {
    let (platform, token) = with_iam_key(Options::default());
    let id = platform.add_named_iam_key("laptop", "second-key");
    let response = details(&platform, &token, "second-key");
    let body = response.json();
    assert_eq!((response.status, &body["id"], &body["name"]), (200, &json!(id), &json!("laptop")));
    assert_eq!(
        (&body["iam_id"], &body["locked"], &body["apikey"]),
        (&json!(IAM_ID), &json!(false), &json!(""))
    );
    assert!(id.starts_with("ApiKey-") && id.len() == 7 + 36, "{id}");
    assert_eq!(details(&platform, &token, "unknown").status, 404);
    assert_eq!(details(&platform, "forged", "second-key").status, 401);
}

#[test]
fn iam_lists_keys_page_by_page() {
    let (platform, token) = with_iam_key(Options { iam_page_len: Some(2), ..Options::default() });
    for name in ["b", "c", "d", "e"] {
        platform.add_named_iam_key(name, name);
    }
    let mut line = format!("GET /v1/apikeys?iam_id={IAM_ID}&pagesize=100");
    let mut pages = Vec::new();
    loop {
        let page = ask(&platform, &token, &line, "").unwrap().json();
        let keys = page["apikeys"].as_array().unwrap();
        pages.push(keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        let Some(next) = page["next"].as_str() else { break };
        line = format!("GET {}", next.strip_prefix("https://iam.cloud.ibm.com").unwrap());
    }
    assert_eq!(pages, [vec!["mock", "b"], vec!["c", "d"], vec!["e"]]);
    assert_eq!(pages.concat(), platform.iam_key_names());
}

#[test]
fn iam_lists_nothing_of_others_and_refuses_senseless_pages() {
    let (platform, token) = with_iam_key(Options::default());
    for other in ["iam_id=IBMid-1", "account_id=1"] {
        let page = ask(&platform, &token, &format!("GET /v1/apikeys?{other}"), "").unwrap().json();
        assert_eq!((&page["apikeys"], &page["next"]), (&json!([]), &Value::Null), "{other}");
    }
    for senseless in ["pagesize=0", "pagesize=101", "pagetoken=x"] {
        let status = ask(&platform, &token, &format!("GET /v1/apikeys?{senseless}"), "").unwrap().status;
        assert_eq!(status, 400, "{senseless}");
    }
}

#[test]
fn iam_makes_a_key_with_the_value_that_it_is_given() {
    let (platform, token) = with_iam_key(Options::default());
    let body = json!({
        "name": "laptop", "iam_id": IAM_ID, "account_id": "0".repeat(32), "apikey": OWN_VALUE,
        "description": "d", "expires_at": "2027-01-01T00:00+0000",
    });
    let response = create(&platform, &token, &body).unwrap();
    let made = response.json();
    assert_eq!(
        (response.status, &made["apikey"], &made["expires_at"]),
        (201, &body["apikey"], &body["expires_at"])
    );
    assert_eq!(iam(&platform, OWN_VALUE).status, 200);
    assert_eq!(platform.iam_key_names(), ["mock", "laptop"]);
}

#[test]
fn iam_makes_no_key_of_a_short_value_or_for_somebody_else() {
    let (platform, token) = with_iam_key(Options::default());
    for (body, status) in [
        (json!({ "name": "n", "iam_id": IAM_ID, "apikey": "short" }), 400),
        (json!({ "iam_id": IAM_ID, "apikey": OWN_VALUE }), 400),
        (json!({ "name": "n", "iam_id": "IBMid-1", "apikey": OWN_VALUE }), 403),
    ] {
        assert_eq!(create(&platform, &token, &body).unwrap().status, status, "{body}");
    }
    assert_eq!(platform.iam_key_names(), ["mock"]);
}

#[test]
fn iam_deletes_a_key_and_its_tokens_live_on() {
    let (platform, token) = with_iam_key(Options::default());
    let id = details(&platform, &token, "first-key").json()["id"].as_str().unwrap().to_owned();
    let deleted = delete(&platform, &token, &id).unwrap();
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(iam(&platform, "first-key").json()["errorCode"], "BXNIM0415E");
    let again = delete(&platform, &token, &id).unwrap();
    assert_eq!((again.status, &again.json()["status_code"]), (404, &json!(404)));
}

#[test]
fn iam_deletes_no_locked_key() {
    let (platform, token) = with_iam_key(Options::default());
    let id = platform.add_named_iam_key("laptop", "second-key");
    platform.set_iam_key_locked("second-key", true);
    assert_eq!(details(&platform, &token, "second-key").json()["locked"], true);
    let refused = delete(&platform, &token, &id).unwrap();
    assert_eq!((refused.status, &refused.json()["errors"][0]["message_code"]), (409, &json!("BXNIM0105E")));
    platform.set_iam_key_locked("second-key", false);
    assert_eq!(delete(&platform, &token, &id).unwrap().status, 204);
}

#[test]
fn a_disabled_key_buys_nothing_until_it_is_enabled() {
    let (platform, token) = with_iam_key(Options::default());
    platform.set_iam_key_disabled("first-key", true);
    assert_eq!(iam(&platform, "first-key").json()["errorCode"], "BXNIM0462E");
    assert!(!platform.is_valid_key("first-key"));
    assert_eq!(details(&platform, &token, "first-key").json()["disabled"], true);
    platform.set_iam_key_disabled("first-key", false);
    assert_eq!(iam(&platform, "first-key").status, 200);
}

#[test]
fn a_connection_is_dropped_before_or_after_iam_makes_or_deletes_a_key() {
    for (fault, is_done) in [(Fault::DropConnection, false), (Fault::DropAnswer, true)] {
        let (platform, token) = with_iam_key(Options::default());
        let id = platform.add_named_iam_key("laptop", "second-key");
        platform.script(Endpoint::CreateIamKey, fault.clone(), Times::Once);
        platform.script(Endpoint::DeleteIamKey, fault.clone(), Times::Once);
        let body = json!({ "name": "new", "iam_id": IAM_ID, "apikey": OWN_VALUE });
        assert!(create(&platform, &token, &body).is_err());
        assert!(delete(&platform, &token, &id).is_err());
        let valid = ["second-key", OWN_VALUE].map(|key| platform.is_valid_key(key));
        assert_eq!(valid, [!is_done, is_done], "{fault:?}");
    }
}

#[test]
fn every_fault_that_can_meet_a_call_about_keys_does() {
    let (platform, token) = with_iam_key(Options::default());
    for line in ["GET /v1/apikeys/details", "GET /v1/apikeys", "POST /v1/apikeys", "DELETE /v1/apikeys/x"] {
        for (fault, status) in [
            (Fault::Unauthorized { json: true }, 401),
            (Fault::Forbidden, 403),
            (Fault::ServerError(503, None), 503),
            (Fault::Html, 200),
        ] {
            platform.script(Endpoint::Any, fault, Times::Once);
            assert_eq!(ask(&platform, &token, line, "").unwrap().status, status, "{line}");
        }
        platform.script(Endpoint::Any, Fault::BadRequest { code: "BXNIM0106E" }, Times::Once);
        let worded = ask(&platform, &token, line, "").unwrap().json();
        assert_eq!(worded["errors"][0]["message_code"], "BXNIM0106E", "{line}");
    }
    assert_eq!(ask(&platform, &token, "PUT /v1/apikeys/x", "").unwrap().status, 405);
}
