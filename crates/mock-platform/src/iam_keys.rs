//! The keys of a user at IBM Cloud IAM: described, listed, made and deleted.
//!
//! Paths, fields and statuses are those of IBM's platform SDKs. The envelope of a failure, and that a
//! key that cannot be deleted gives a 409 with `BXNIM0105E`, was seen in public
//! (IBM-Cloud/terraform-provider-ibm issue 3529). Guesses are: that a lock is told in this way, the
//! `code` of every other failure, and the 404 for a key that is described and does not exist.

use std::collections::HashMap;

use serde_json::{Value, json};
use url::form_urlencoded;

use crate::accounts::{ACCOUNT_ID, IAM_ID, IamKey};
use crate::answer::Answer;
use crate::mint::Owner;
use crate::random;
use crate::recorded::Recorded;
use crate::state::State;

pub(crate) const MAX_PAGE_LEN: usize = 100;
const USUAL_PAGE_LEN: usize = 20;

/// What IAM wants of a value that it did not make itself.
const MIN_VALUE_LEN: usize = 32;

/// Answers `GET /v1/apikeys/details`.
pub(crate) fn details(state: &State, request: &Recorded) -> Answer {
    if !is_user(state, request) {
        return unauthorized();
    }
    let given = request.header("iam-apikey").unwrap_or_default();
    match state.accounts.iam_key(given) {
        Some(key) => Answer::json(200, described(key, "")),
        None => error(404, "not_found", Some("BXNIM0415E"), "Provided API key could not be found."),
    }
}

/// Answers `GET /v1/apikeys`.
pub(crate) fn list(state: &State, request: &Recorded) -> Answer {
    if !is_user(state, request) {
        return unauthorized();
    }
    let query: HashMap<_, _> = form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
    let Some((start, len)) = page(&query, state.iam_page_len) else {
        return invalid("pagesize or pagetoken");
    };
    let is_asked_for = |name, own| query.get(name).is_none_or(|asked| asked == own);
    let keys = if is_asked_for("account_id", ACCOUNT_ID) && is_asked_for("iam_id", IAM_ID) {
        state.accounts.iam_keys.as_slice()
    } else {
        &[]
    };
    let shown: Vec<_> = keys.iter().skip(start).take(len).map(|key| described(key, "")).collect();
    let mut body = json!({ "limit": len, "first": address(0, len), "apikeys": shown });
    if let (Some(body), true) = (body.as_object_mut(), start + len < keys.len()) {
        body.insert("next".into(), address(start + len, len).into());
    }
    Answer::json(200, body)
}

/// Answers `POST /v1/apikeys`.
pub(crate) fn create(state: &mut State, request: &Recorded) -> Answer {
    if !is_user(state, request) {
        return unauthorized();
    }
    let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let field = |name| body.get(name).and_then(Value::as_str);
    let (Some(name), Some(iam_id)) = (field("name"), field("iam_id")) else {
        return invalid("name or iam_id");
    };
    if iam_id != IAM_ID || field("account_id").is_some_and(|id| id != ACCOUNT_ID) {
        return error(403, "insufficient_permissions", None, "You are not authorized to create this key.");
    }
    let value = field("apikey").map_or_else(random::api_key, str::to_owned);
    if value.len() < MIN_VALUE_LEN {
        return invalid("apikey");
    }
    let key = IamKey {
        description: field("description").unwrap_or_default().to_owned(),
        expires_at: field("expires_at").map(str::to_owned),
        ..IamKey::new(name, &value)
    };
    let answer = Answer::json(201, described(&key, &value));
    state.accounts.add_iam_key(key);
    answer
}

/// Answers `DELETE /v1/apikeys/{id}`. Tokens that the key bought live on.
pub(crate) fn delete(state: &mut State, request: &Recorded) -> Answer {
    if !is_user(state, request) {
        return unauthorized();
    }
    let keys = &mut state.accounts.iam_keys;
    match keys.iter().position(|key| request.path.ends_with(&format!("/{}", key.id))) {
        None => error(404, "not_found", None, "The requested API key was not found."),
        Some(at) if keys.get(at).is_some_and(|key| key.locked) => {
            error(409, "delete_not_possible", Some("BXNIM0105E"), "Unable to delete object")
        }
        Some(at) => {
            keys.remove(at);
            Answer::text(204, "")
        }
    }
}

/// Returns an error in the envelope of the calls about keys.
pub(crate) fn error(status: u16, code: &str, message_code: Option<&str>, message: &str) -> Answer {
    let mut fault = json!({ "code": code, "message": message });
    if let (Some(fault), Some(code)) = (fault.as_object_mut(), message_code) {
        fault.insert("message_code".into(), code.into());
    }
    Answer::json(status, json!({ "errors": [fault], "trace": random::id(), "status_code": status }))
}

/// Returns the 401 that a bearer gets who is not known, or not any more.
pub(crate) fn unauthorized() -> Answer {
    error(401, "not_authorized", Some("BXNIM0407E"), "Provided token is invalid.")
}

fn invalid(field: &str) -> Answer {
    let message = format!("Property validation failed: {field}");
    error(400, "invalid_request", Some("BXNIM0106E"), &message)
}

fn is_user(state: &State, request: &Recorded) -> bool {
    matches!(state.bearer(request), Ok(Owner::IbmCloud { .. }))
}

/// Returns where the page that is asked for begins, and how long it is.
fn page(query: &HashMap<String, String>, longest: usize) -> Option<(usize, usize)> {
    let number = |name| query.get(name).map(|text| text.parse::<usize>()).transpose().ok();
    let len = number("pagesize")?.unwrap_or(USUAL_PAGE_LEN);
    let start = number("pagetoken")?.unwrap_or(0);
    (1..=MAX_PAGE_LEN).contains(&len).then_some((start, len.min(longest)))
}

fn address(start: usize, len: usize) -> String {
    format!("https://iam.cloud.ibm.com/v1/apikeys?pagesize={len}&pagetoken={start}")
}

fn described(key: &IamKey, value: &str) -> Value {
    let mut described = json!({
        "context": { "transaction_id": random::id(), "operation": "mock" },
        "id": key.id,
        "entity_tag": "1-00000000000000000000000000000000",
        "crn": format!("crn:v1:bluemix:public:iam-identity::a/{ACCOUNT_ID}::apikey:{}", key.id),
        "locked": key.locked,
        "disabled": key.disabled,
        "created_at": "2026-01-01T00:00+0000",
        "created_by": IAM_ID,
        "modified_at": "2026-01-01T00:00+0000",
        "name": key.name,
        "description": key.description,
        "iam_id": IAM_ID,
        "account_id": ACCOUNT_ID,
        "apikey": value,
    });
    if let (Some(described), Some(end)) = (described.as_object_mut(), &key.expires_at) {
        described.insert("expires_at".into(), end.as_str().into());
    }
    described
}
