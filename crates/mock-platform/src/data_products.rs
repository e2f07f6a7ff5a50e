//! The API of Data Product Hub that tokens are bought for.

use serde_json::{Value, json};
use url::form_urlencoded;

use crate::answer::Answer;
use crate::mint::BadToken;
use crate::random;
use crate::recorded::Recorded;
use crate::software_hub;
use crate::state::State;

const MAX_LIMIT: u16 = 200;

/// Answers `GET /data_product_exchange/v1/data_products`.
pub(crate) fn list(state: &State, request: &Recorded) -> Answer {
    match state.bearer(request) {
        Ok(_) => page(request),
        Err(_) if zen_key_accepted(state, request) => page(request),
        Err(BadToken::Expired) => token_expired(),
        Err(BadToken::Unknown) => {
            error(401, "authentication_token_not_valid", "Failed to authenticate the request.")
        }
    }
}

/// Returns the 401 that says that a token has expired.
pub(crate) fn token_expired() -> Answer {
    error(401, "authentication_token_expired", "Failed to authenticate the request due to an expired token.")
}

/// Returns an error in the service's error model.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    let error = json!({ "code": code, "message": message, "more_info": "https://cloud.ibm.com/apidocs" });
    Answer::json(status, json!({ "errors": [error], "trace": random::id(), "status_code": status }))
}

fn zen_key_accepted(state: &State, request: &Recorded) -> bool {
    let pair = request.authorization("ZenApiKey").filter(|_| state.zen_api_key_accepted);
    pair.is_some_and(|pair| software_hub::key_holder(state, pair).is_some())
}

fn page(request: &Recorded) -> Answer {
    let Some(limit) = limit(&request.query) else {
        return error(400, "invalid_parameter", "The limit is a number from 1 to 200.");
    };
    let href = format!("https://api.example.com{}?limit={limit}", request.path);
    Answer::json(
        200,
        json!({ "limit": limit, "first": { "href": href }, "total_results": 1, "data_products": [product()] }),
    )
}

fn limit(query: &str) -> Option<u16> {
    let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "limit");
    let limit = given.map_or(Ok(MAX_LIMIT), |(_, value)| value.parse()).ok()?;
    (1..=MAX_LIMIT).contains(&limit).then_some(limit)
}

fn product() -> Value {
    json!({
        "id": "b38df608-d34b-4d58-8136-ed25e6c6684e",
        "name": "Sales forecast",
        "container": { "id": "2be8f727-c5d2-4cb0-9216-f9888f428048", "type": "catalog" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_from_1_to_200_and_200_by_default() {
        assert_eq!(limit("limit=1"), Some(1));
        assert_eq!(limit("start=x"), Some(200));
        for bad in ["limit=0", "limit=201", "limit=one"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }
}
