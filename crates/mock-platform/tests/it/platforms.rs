//! Every endpoint answers as the IBM service does.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use dph_agent_mock_platform::{MockPlatform, Options};
use serde_json::{Value, json};

use crate::client::{FORM, JSON, Response, authorize, get, post};

const DATA_PRODUCTS: &str = "/data_product_exchange/v1/data_products?limit=1";

pub(crate) fn with_alice() -> MockPlatform {
    let platform = MockPlatform::start();
    platform.add_user("alice", "alices-key");
    platform
}

pub(crate) fn alices_token(platform: &MockPlatform) -> String {
    let body = authorize(platform, "alice", "alices-key").unwrap().json();
    body["token"].as_str().unwrap().to_owned()
}

pub(crate) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn list_data_products(platform: &MockPlatform, token: &str) -> Response {
    get(platform, DATA_PRODUCTS, &format!("Bearer {token}")).unwrap()
}

#[test]
fn software_hub_sells_a_token_whose_life_is_in_its_claims_only() {
    let platform = with_alice();
    let response = authorize(&platform, "alice", "alices-key").unwrap();
    let body = response.json();
    assert_eq!(
        (response.status, &body["_messageCode_"], &body["message"]),
        (200, &json!("200"), &json!("Success"))
    );
    assert_eq!(body.as_object().unwrap().len(), 3);
    let claims = claims(body["token"].as_str().unwrap());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 43_164);
    assert_eq!((&claims["username"], &claims["iss"]), (&json!("alice"), &json!("KNOXSSO")));
}

#[test]
fn software_hub_refuses_a_key_that_is_not_the_users() {
    let platform = with_alice();
    platform.add_user("bob", "bobs-key");
    for (username, api_key) in [("alice", "wrong"), ("alice", "bobs-key"), ("carol", "alices-key")] {
        let response = authorize(&platform, username, api_key).unwrap();
        assert_eq!(response.status, 401, "{username}");
        assert_eq!(response.json()["message"], "User unauthorized to invoke this endpoint");
    }
}

#[test]
fn software_hub_answers_602_where_the_user_name_is_missing() {
    let platform = with_alice();
    let response =
        post(&platform, "/icp4d-api/v1/authorize", JSON, r#"{"username":null,"api_key":"k"}"#).unwrap();
    assert_eq!(response.status, 500);
    assert_eq!(response.json(), json!({ "code": 602, "message": "properties.username in body is required" }));
}

#[test]
fn software_hub_refuses_what_is_not_json() {
    let platform = with_alice();
    let answer =
        |media_type, body| post(&platform, "/icp4d-api/v1/authorize", media_type, body).unwrap().status;
    assert_eq!(answer(FORM, "username=alice"), 415);
    assert_eq!(answer(JSON, "username=alice"), 400);
}

#[test]
fn me_tells_who_the_bearer_is() {
    let platform = with_alice();
    let token = alices_token(&platform);
    let response = get(&platform, "/icp4d-api/v1/me", &format!("Bearer {token}")).unwrap();
    assert_eq!((response.status, &response.json()["UserInfo"]["username"]), (200, &json!("alice")));
    assert_eq!(get(&platform, "/icp4d-api/v1/me", "Bearer forged").unwrap().status, 401);
}

#[test]
fn generating_a_key_kills_the_old_one() {
    let platform = with_alice();
    platform.allow_key_generation();
    let token = alices_token(&platform);
    let response = get(&platform, "/usermgmt/v1/user/apiKey", &format!("Bearer {token}")).unwrap();
    let body = response.json();
    let new = body["apiKey"].as_str().unwrap();
    assert_eq!((response.status, new.len(), &body["expire_at"]), (200, 40, &Value::Null));
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 401);
    assert_eq!(authorize(&platform, "alice", new).unwrap().status, 200);
}

#[test]
fn generating_a_key_unasked_changes_nothing_and_is_a_violation() {
    let platform = with_alice();
    let token = alices_token(&platform);
    let response = get(&platform, "/usermgmt/v1/user/apiKey", &format!("Bearer {token}")).unwrap();
    assert_eq!(response.status, 500);
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 200);
    assert_eq!(platform.violations().len(), 1);
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(platform)));
    assert!(dropped.is_err());
}

#[test]
fn a_service_instance_sells_its_token_to_the_key_and_to_the_bearer() {
    let platform = with_alice();
    let path = "/zen-data/v3/service_instances/1234/token";
    let pair = BASE64_STANDARD.encode("alice:alices-key");
    let bearer = alices_token(&platform);
    for authorization in [format!("Basic {pair}"), format!("Bearer {bearer}")] {
        let body = get(&platform, path, &authorization).unwrap().json();
        assert_eq!(body["message"], "Success in getting instance token");
        let token = body["data"]["token"].as_str().unwrap();
        assert_eq!(list_data_products(&platform, token).status, 200);
    }
    let wrong = BASE64_STANDARD.encode("alice:wrong");
    assert_eq!(get(&platform, path, &format!("Basic {wrong}")).unwrap().status, 401);
}

fn iam(platform: &MockPlatform, body: &str) -> Response {
    post(platform, "/identity/token", FORM, body).unwrap()
}

#[test]
fn iam_sells_a_token_for_a_form() {
    let platform = MockPlatform::start();
    platform.add_iam_key("key+with/odd=signs");
    let response = iam(
        &platform,
        "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=key%2Bwith%2Fodd%3Dsigns",
    );
    let body = response.json();
    assert_eq!(response.status, 200);
    assert_eq!((&body["refresh_token"], &body["token_type"]), (&json!("not_supported"), &json!("Bearer")));
    assert_eq!(body["expires_in"], 3600);
    let claims = claims(body["access_token"].as_str().unwrap());
    assert_eq!((&claims["exp"], &claims["client_id"]), (&body["expiration"], &json!("default")));
}

#[test]
fn iam_answers_400_in_its_envelope_to_an_unknown_or_revoked_key() {
    let platform = MockPlatform::start();
    platform.add_iam_key("revoked");
    platform.revoke_key("revoked");
    for api_key in ["unknown", "revoked"] {
        let form = format!("grant_type=urn:ibm:params:oauth:grant-type:apikey&apikey={api_key}");
        let response = iam(&platform, &form);
        let body = response.json();
        assert_eq!((response.status, &body["errorCode"]), (400, &json!("BXNIM0415E")));
        assert_eq!(body["errorMessage"], "Provided API key could not be found.");
        assert_eq!(body["context"]["requestType"], "incoming.Identity_Token");
    }
}

#[test]
fn iam_misses_the_fields_of_a_body_that_is_no_form() {
    let platform = MockPlatform::start();
    let response = post(&platform, "/identity/token", JSON, r#"{"apikey":"k"}"#).unwrap();
    assert_eq!((response.status, &response.json()["errorCode"]), (400, &json!("BXNIM0106E")));
}

#[test]
fn mcsp_sells_a_token_at_each_of_its_paths() {
    let platform = MockPlatform::start();
    platform.add_mcsp_key("mcsp-key");
    let scoped = ["accounts", "subscriptions", "services"]
        .map(|kind| format!("/api/2.0/{kind}/1234/apikeys/token?includeRoles=true"));
    let version_2 = scoped.into_iter().chain(["/api/2.0/apikeys/token".to_owned()]).map(|path| (path, true));
    let version_1 = ("/siusermgr/api/1.0/apikeys/token".to_owned(), false);
    for (path, has_expiration) in version_2.chain([version_1]) {
        let response = post(&platform, &path, JSON, r#"{"apikey":"mcsp-key"}"#).unwrap();
        let body = response.json();
        assert_eq!((response.status, &body["expires_in"]), (200, &json!(7200)), "{path}");
        assert_eq!(body.get("expiration").is_some(), has_expiration, "{path}");
        assert_eq!(list_data_products(&platform, body["token"].as_str().unwrap()).status, 200, "{path}");
    }
    let response = post(&platform, "/api/2.0/apikeys/token", JSON, r#"{"apikey":"unknown"}"#).unwrap();
    assert_eq!((response.status, &response.json()["errorCode"]), (400, &json!("BXNIM0415E")));
}

#[test]
fn data_products_are_listed_for_a_bearer_until_it_expires() {
    let platform = with_alice();
    let token = alices_token(&platform);
    assert_eq!(list_data_products(&platform, &token).json()["limit"], 1);
    platform.set_clock_skew(43_200);
    let response = list_data_products(&platform, &token);
    assert_eq!(response.status, 401);
    assert_eq!(response.json()["errors"][0]["code"], "authentication_token_expired");
}

#[test]
fn a_revoked_key_buys_nothing_while_its_tokens_live_on() {
    let platform = with_alice();
    let token = alices_token(&platform);
    platform.revoke_key("alices-key");
    assert_eq!(authorize(&platform, "alice", "alices-key").unwrap().status, 401);
    assert_eq!(list_data_products(&platform, &token).status, 200);
}

#[test]
fn zen_api_keys_list_data_products_only_where_that_is_switched_on() {
    let pair = BASE64_STANDARD.encode("alice:alices-key\n");
    for (accept_zen_api_key, status) in [(false, 401), (true, 200)] {
        let platform = MockPlatform::start_with(Options { accept_zen_api_key, ..Options::default() });
        platform.add_user("alice", "alices-key");
        assert_eq!(get(&platform, DATA_PRODUCTS, &format!("ZenApiKey {pair}")).unwrap().status, status);
    }
}

#[test]
fn tokens_live_as_long_as_was_set_and_differ() {
    let platform = with_alice();
    platform.set_token_life(Duration::from_secs(3));
    let (first, second) = (alices_token(&platform), alices_token(&platform));
    assert_ne!(first, second);
    let claims = claims(&first);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3);
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405() {
    let platform = MockPlatform::start();
    assert_eq!(get(&platform, "/icp4d-api/v1/authorise", "none").unwrap().status, 404);
    assert_eq!(get(&platform, "/icp4d-api/v1/authorize", "none").unwrap().status, 405);
}
