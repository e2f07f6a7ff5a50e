//! What Software Hub can do with keys: make a new one, which ends the old one.

use reqwest::{
    Method,
    header::{CACHE_CONTROL, HeaderValue},
};
use serde_json::Value;

use super::{front_door, wire};
use crate::{
    ApiKey, CallError, Misconfiguration, PlatformError, Target, TokenText,
    answer::{Answer, Request},
    http, life, time,
};

/// Later than any date in seconds, and earlier than any in milliseconds: from this on it is those.
const MILLISECONDS_FROM: f64 = 1e11;

/// Makes keys at a Software Hub, where each user has exactly one.
///
/// IBM documents no call that only ends a key. What it calls "Get API key" generates one, and the
/// former ceases to work at once ("Generating API keys for authentication"; IBM's cloud-pak-deployer).
#[derive(Clone, Copy, Debug)]
pub struct HubKeys<'a> {
    target: &'a Target,
}

/// A new key.
#[derive(Debug, PartialEq)]
pub struct Generated {
    /// The key, which is told this once.
    pub key: ApiKey,
    /// When it ends, in seconds since 1970; `None` for never, and for what cannot be understood: how
    /// `expire_at` is written where it is not null is documented nowhere.
    pub expires_at: Option<i64>,
}

impl<'a> HubKeys<'a> {
    pub(crate) fn new(target: &'a Target) -> Self {
        Self { target }
    }

    /// Makes a new key for the owner of `bearer`. The old one is dead from then on.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. Where it is [`Unclear`](CallError::Unclear), both keys may be dead to us.
    ///
    /// # Cancel safety
    ///
    /// None: dropped, it may have made a key that nobody knows.
    pub async fn generate(&self, bearer: &TokenText) -> Result<Generated, CallError> {
        let request = self.request(bearer).map_err(|fault| CallError::NotSent(fault.into()))?;
        let answer = Box::pin(http::send(self.target, request, http::TIMEOUTS)).await?;
        read(&answer)
    }

    /// Makes a new key for the owner of `bearer` and throws it away unread, so that the old one is dead
    /// and no other known to anybody.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate); what counts is the status alone.
    ///
    /// # Cancel safety
    ///
    /// As [`generate`](Self::generate).
    pub async fn generate_and_discard(&self, bearer: &TokenText) -> Result<(), CallError> {
        let request = self.request(bearer).map_err(|fault| CallError::NotSent(fault.into()))?;
        let answer = Box::pin(http::send_unheard(self.target, request, http::TIMEOUTS)).await?;
        done(&answer)
    }

    fn request(&self, bearer: &TokenText) -> Result<Request, Misconfiguration> {
        let auth_url = &self.target.auth_url;
        let path = format!("{}/usermgmt/v1/user/apiKey", front_door(auth_url.path()));
        let mut request = Request::new(Method::GET, auth_url.with_path(&path)).with_bearer(bearer)?;
        // It is a GET, and a cache on the way must neither answer it nor keep the answer.
        request.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(request)
    }
}

/// A page for people may come with the status of a success, from what stands before the platform.
fn done(answer: &Answer) -> Result<(), CallError> {
    match answer.is_success() {
        true if answer.is_html => Err(CallError::Unclear(answer.nonsense().into())),
        true => Ok(()),
        false => Err(CallError::answered(answer.failure(None))),
    }
}

fn read(answer: &Answer) -> Result<Generated, CallError> {
    done(answer)?;
    let generated: wire::Generated = answer.json().map_err(CallError::Unclear)?;
    match generated.api_key.filter(ApiKey::is_sendable) {
        Some(key) => Ok(Generated { key, expires_at: end(&generated.expire_at) }),
        None => Err(CallError::Unclear(PlatformError::from(Misconfiguration::NoKey))),
    }
}

/// Reads a date in any of the ways that are likely: seconds, milliseconds, RFC 3339.
fn end(expire_at: &Value) -> Option<i64> {
    match life::seconds(expire_at) {
        Some(told) if told >= MILLISECONDS_FROM => time::whole_seconds(told / 1000.0),
        Some(told) => time::whole_seconds(told),
        None => time::parse(expire_at.as_str()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{BaseUrl, CaBundle, Cause, Kind, Proxy, Refusal, Trust, answer::tests::answer};

    fn outcome(status: u16, body: &str) -> Result<Generated, CallError> {
        read(&answer(status, &[], body))
    }

    #[test]
    fn the_request_is_the_documented_one() {
        let target = Target {
            kind: Kind::SoftwareHub { username: "alice".into(), instance: None },
            auth_url: BaseUrl::parse("https://cpd.example.com/icp4d-api").unwrap(),
            trust: Trust::Roots { extra: CaBundle::default() },
            proxy: Proxy::None,
        };
        let request = HubKeys::new(&target).request(&TokenText::new("the-token".into())).unwrap();
        assert_eq!(request.method, Method::GET);
        assert_eq!(request.url.as_str(), "https://cpd.example.com/usermgmt/v1/user/apiKey");
        assert_eq!(request.headers["authorization"], "Bearer the-token");
        assert_eq!(request.headers["cache-control"], "no-store");
        assert!(request.body.is_empty());
    }

    #[test]
    fn the_answer_that_was_seen_live_is_read() {
        let body = r#"{"apiKey":"0123456789012345678901234567890123456789","expire_at":null,
            "message":"success","_messageCode_":"success"}"#;
        let generated = outcome(200, body).unwrap();
        assert_eq!(generated.key.expose().len(), 40);
        assert_eq!(generated.expires_at, None);
        assert_eq!(outcome(200, r#"{"apiKey":"k"}"#).unwrap().expires_at, None);
    }

    #[test]
    fn an_end_is_read_in_each_of_the_likely_forms() {
        for told in [
            json!(1_798_761_600),
            json!("1798761600"),
            json!(1_798_761_600_000_i64),
            json!("2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(end(&told), Some(1_798_761_600), "{told}");
        }
        for other in [json!(null), json!("never"), json!(""), json!({}), json!(1e300)] {
            assert_eq!(end(&other), None, "{other}");
        }
    }

    #[test]
    fn a_success_without_a_usable_key_leaves_it_open_what_was_done() {
        for (body, fault) in [
            ("{}", Misconfiguration::NoKey),
            (r#"{"apiKey":""}"#, Misconfiguration::NoKey),
            (r#"{"apiKey":"a\nb"}"#, Misconfiguration::NoKey),
            (r#"{"apiKey":7}"#, Misconfiguration::NotJson),
            ("", Misconfiguration::NotJson),
        ] {
            assert_eq!(outcome(200, body), Err(CallError::Unclear(fault.into())), "{body}");
        }
        assert!(matches!(outcome(200, "<html>"), Err(CallError::Unclear(_))));
        let page = answer(200, &[("content-type", "text/html")], "");
        assert!(matches!(done(&page), Err(CallError::Unclear(_))));
    }

    #[test]
    fn a_bearer_that_is_not_accepted_generates_nothing() {
        let refused = PlatformError::Refused { reason: Refusal::Status(401) };
        assert_eq!(outcome(401, "no"), Err(CallError::Refused(refused)));
        let down = PlatformError::Unreachable { cause: Cause::Status(502), retry_after: None };
        assert_eq!(outcome(502, ""), Err(CallError::Unclear(down)));
    }
}
