//! The multi-cloud SaaS platform (MCSP), version 1, version 2 scoped and scope-less.

use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::mint::{Owner, TokenForm};
use crate::recorded::Recorded;
use crate::state::State;

/// What a refused key is told.
pub(crate) const KEY_NOT_FOUND: &str = "Provided API key could not be found";

const TOKEN_LIFE: Duration = Duration::from_secs(7200);

/// Answers `POST …/apikeys/token`.
pub(crate) fn token(state: &mut State, request: &Recorded, form: TokenForm) -> Answer {
    if !request.is_of_type("application/json") {
        return error(415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type must be application/json");
    }
    let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    match body.get("apikey").and_then(Value::as_str) {
        None => error(400, "BAD_REQUEST", "apikey is required"),
        Some(api_key) if state.accounts.is_mcsp_key(api_key) => success(state, request, api_key, form),
        Some(_) => error(400, "BXNIM0415E", KEY_NOT_FOUND),
    }
}

/// Returns an error with its code.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, json!({ "errorCode": code, "errorMessage": message }))
}

fn success(state: &mut State, request: &Recorded, api_key: &str, form: TokenForm) -> Answer {
    let owner = Owner::Mcsp { api_key: api_key.to_owned() };
    let minted = state.issue(&owner, claims(), TOKEN_LIFE, form);
    let mut body = json!({ "token": minted.token, "token_type": "Bearer" });
    if let (Some(body), Some(expiry)) = (body.as_object_mut(), minted.expiry) {
        body.insert("expires_in".into(), expiry.expires_in.into());
        // Version 1 leaves it to the JWT.
        if !request.path.starts_with("/siusermgr/") {
            body.insert("expiration".into(), expiry.expiration.into());
        }
    }
    Answer::json(200, body)
}

fn claims() -> Value {
    json!({
        "iss": "https://account-iam.platform.saas.ibm.com",
        "aud": "crn:v1:aws:public:data-product-hub:us-east-1:sub/mock:mock::",
        "tenantId": "mock-tenant",
        "subscriptionId": "mock-subscription",
        "sub": "mock-user",
        "entityType": "USER",
        "email": "mock@example.com",
        "name": "Mock User",
        "displayname": "Mock User",
        "idp": { "realmName": "mock", "iss": "https://account-iam.platform.saas.ibm.com" },
        "groups": [],
        "roles": [],
    })
}
