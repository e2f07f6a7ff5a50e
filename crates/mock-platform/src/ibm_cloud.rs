//! IBM Cloud IAM.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use url::form_urlencoded;

use crate::accounts::{ACCOUNT_ID, IAM_ID};
use crate::answer::Answer;
use crate::mint::{Owner, TokenForm, epoch_seconds};
use crate::random;
use crate::recorded::Recorded;
use crate::state::State;

const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const GRANT_TYPE: &str = "urn:ibm:params:oauth:grant-type:apikey";

/// Answers `POST /identity/token`.
pub(crate) fn token(state: &mut State, request: &Recorded, form: TokenForm) -> Answer {
    let now = state.now();
    let fields = form_fields(request);
    if fields.get("grant_type").is_none_or(|grant_type| grant_type != GRANT_TYPE) {
        return error(400, "BXNIM0106E", "Property validation failed: grant_type", now);
    }
    match fields.get("apikey") {
        None => error(400, "BXNIM0106E", "Property validation failed: apikey", now),
        Some(api_key) => match state.accounts.iam_key(api_key).map(|key| key.disabled) {
            Some(false) => success(state, api_key, form),
            Some(true) => error(400, "BXNIM0462E", "Provided API key is disabled.", now),
            None => error(400, "BXNIM0415E", "Provided API key could not be found.", now),
        },
    }
}

/// Returns an error in the envelope of the token service.
pub(crate) fn error(status: u16, code: &str, message: &str, now: SystemTime) -> Answer {
    Answer::json(status, json!({ "errorCode": code, "errorMessage": message, "context": context(now) }))
}

/// A body of another type has no fields for IAM, which then misses the first that it needs.
fn form_fields(request: &Recorded) -> HashMap<String, String> {
    if !request.is_of_type("application/x-www-form-urlencoded") {
        return HashMap::new();
    }
    form_urlencoded::parse(&request.body).into_owned().collect()
}

fn success(state: &mut State, api_key: &str, form: TokenForm) -> Answer {
    let owner = Owner::IbmCloud { api_key: api_key.to_owned() };
    let minted = state.issue(&owner, claims(), TOKEN_LIFE, form);
    let mut body = json!({
        "access_token": minted.token,
        "refresh_token": "not_supported",
        "token_type": "Bearer",
        "scope": "ibm openid",
    });
    if let (Some(body), Some(expiry)) = (body.as_object_mut(), minted.expiry) {
        body.insert("expires_in".into(), expiry.expires_in.into());
        body.insert("expiration".into(), expiry.expiration.into());
    }
    Answer::json(200, body)
}

fn claims() -> Value {
    json!({
        "iam_id": IAM_ID,
        "id": IAM_ID,
        "realmid": "IBMid",
        "identifier": "5500000000",
        "given_name": "Mock",
        "family_name": "User",
        "name": "Mock User",
        "email": "mock@example.com",
        "sub": "mock@example.com",
        "authn": { "sub": "mock@example.com", "iam_id": IAM_ID, "name": "Mock User" },
        "account": { "valid": true, "bss": ACCOUNT_ID, "frozen": true },
        "iss": "https://iam.cloud.ibm.com/identity",
        "grant_type": GRANT_TYPE,
        "scope": "ibm openid",
        "client_id": "default",
        "acr": 1,
        "amr": ["pwd"],
    })
}

fn context(now: SystemTime) -> Value {
    let time = timestamp(now);
    json!({
        "requestId": random::id(),
        "requestType": "incoming.Identity_Token",
        "userAgent": "unknown",
        "url": "https://iam.cloud.ibm.com",
        "instanceId": "iamid-mock",
        "threadId": "1",
        "host": "iamid-mock",
        "startTime": time,
        "endTime": time,
        "elapsedTime": "0",
        "locale": "en_US",
        "clusterName": "iam-id-mock",
    })
}

/// Returns `time` as IAM writes it: `30.05.2025 15:46:38:151 UTC`.
fn timestamp(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(epoch_seconds(time)));
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    let parts: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, clock, _] = parts.as_slice() else {
        return date;
    };
    let month = MONTHS.find(month).map_or(0, |at| at / 3 + 1);
    format!("{day}.{month:02}.{year} {clock}:{millis:03} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_iam_writes_it() {
        let time = UNIX_EPOCH + Duration::from_millis(1_748_619_998_151);
        assert_eq!(timestamp(time), "30.05.2025 15:46:38:151 UTC");
    }
}
