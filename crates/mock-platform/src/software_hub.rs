//! IBM Software Hub, once Cloud Pak for Data.
//!
//! The envelope of its 401 is not public: only the text of the message in it is known.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::answer::Answer;
use crate::mint::{Owner, TokenForm};
use crate::recorded::Recorded;
use crate::state::State;

/// What tokens in the wild have: twelve hours less 36 seconds.
const TOKEN_LIFE: Duration = Duration::from_secs(43_164);

/// Answers `POST /icp4d-api/v1/authorize`.
pub(crate) fn authorize(state: &mut State, request: &Recorded, form: TokenForm) -> Answer {
    if !request.is_of_type("application/json") {
        let message = "unsupported media type, only [application/json] are allowed";
        return Answer::json(415, json!({ "code": 415, "message": message }));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return Answer::json(400, json!({ "code": 400, "message": "parsing body from \"\" failed" }));
    };
    let field = |name| body.get(name).and_then(Value::as_str);
    let Some(username) = field("username") else {
        return validation_error("properties.username in body is required");
    };
    match field("api_key") {
        Some(api_key) if state.accounts.is_hub_key(username, api_key) => {
            let token = issue(state, username, form);
            Answer::json(200, json!({ "_messageCode_": "200", "message": "Success", "token": token }))
        }
        _ => unauthorized(),
    }
}

/// Answers `GET /icp4d-api/v1/me`.
pub(crate) fn me(state: &State, request: &Recorded) -> Answer {
    let Some(username) = bearer(state, request) else {
        return unauthorized();
    };
    Answer::json(
        200,
        json!({
            "UserInfo": {
                "displayName": username,
                "email": format!("{username}@example.com"),
                "permissions": ["sign_in_only"],
                "role": "User",
                "uid": "1000331003",
                "username": username,
            },
            "_messageCode_": "200",
            "message": "User details fetched successfully.",
        }),
    )
}

/// Answers `GET /usermgmt/v1/user/apiKey`: the user has a new key, and the old one is dead.
pub(crate) fn generate_key(state: &mut State, request: &Recorded) -> Answer {
    if !state.key_generation_allowed {
        return error(500, "an API key was to be generated unasked");
    }
    let Some(username) = bearer(state, request) else {
        return unauthorized();
    };
    generated(state, &username)
}

/// Answers `POST /mock/web-client/generate?user=NAME`, which stands for a button in the web client.
pub(crate) fn web_client(state: &mut State, request: &Recorded) -> Answer {
    let named = form_urlencoded::parse(request.query.as_bytes()).find(|(name, _)| name == "user");
    match named {
        Some((_, username)) if state.accounts.is_hub_user(&username) => generated(state, &username),
        _ => error(404, "There is no such user."),
    }
}

fn generated(state: &mut State, username: &str) -> Answer {
    let api_key = state.generate_key(username);
    let body = json!({
        "apiKey": api_key,
        "expire_at": state.expire_at,
        "message": "success",
        "_messageCode_": "success",
    });
    Answer::json(200, body)
}

/// Answers `GET /zen-data/v3/service_instances/{id}/token`.
pub(crate) fn instance_token(state: &mut State, request: &Recorded, form: TokenForm) -> Answer {
    let with_key = request.authorization("Basic").and_then(|pair| key_holder(state, pair));
    let Some(username) = with_key.or_else(|| bearer(state, request)) else {
        return unauthorized();
    };
    let token = issue(state, &username, form);
    Answer::json(
        200,
        json!({
            "_messageCode_": "success",
            "data": { "token": token },
            "message": "Success in getting instance token",
        }),
    )
}

/// Returns the user whose name and API key are in `pair`, encoded as for `Basic` and `ZenApiKey`.
pub(crate) fn key_holder(state: &State, pair: &str) -> Option<String> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(pair).ok()?).ok()?;
    // The documented command line encodes the newline that echo adds.
    let (username, api_key) = pair.trim_end_matches('\n').split_once(':')?;
    state.accounts.is_hub_key(username, api_key).then(|| username.to_owned())
}

/// Returns the 401, whatever was wrong with the credential.
pub(crate) fn unauthorized() -> Answer {
    error(401, "User unauthorized to invoke this endpoint")
}

/// Returns an error with a message.
pub(crate) fn error(status: u16, message: &str) -> Answer {
    Answer::json(status, json!({ "_messageCode_": status.to_string(), "message": message }))
}

/// Returns what a request gets that lacks a field.
pub(crate) fn validation_error(message: &str) -> Answer {
    Answer::json(500, json!({ "code": 602, "message": message }))
}

fn bearer(state: &State, request: &Recorded) -> Option<String> {
    match state.bearer(request) {
        Ok(Owner::SoftwareHub { username }) => Some(username.clone()),
        Ok(Owner::IbmCloud { .. } | Owner::Mcsp { .. }) | Err(_) => None,
    }
}

fn issue(state: &mut State, username: &str, form: TokenForm) -> String {
    let claims = json!({
        "username": username,
        "role": "User",
        "permissions": ["sign_in_only"],
        "groups": [10000],
        "sub": username,
        "iss": "KNOXSSO",
        "aud": "DSX",
        "uid": "1000331003",
        "authenticator": "default",
    });
    let owner = Owner::SoftwareHub { username: username.to_owned() };
    state.issue(&owner, claims, TOKEN_LIFE, form).token
}
