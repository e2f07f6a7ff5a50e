//! A request before it is sent and an answer after it came, and what answers mean on every platform.

use std::time::SystemTime;

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use zeroize::Zeroizing;

use crate::{Cause, IamCode, Misconfiguration, PlatformError, Refusal, RetryAfter, Token, TokenText, life};

/// A `POST` that carries a key, in memory that is wiped.
pub(crate) struct Request {
    pub(crate) url: Url,
    pub(crate) content_type: &'static str,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Request {
    /// Makes a request with a JSON body, of which `texts_len` bytes are texts from outside.
    #[expect(clippy::expect_used, reason = "structs of strings always serialize")]
    pub(crate) fn json(url: Url, body: &impl Serialize, texts_len: usize) -> Self {
        // Room for the longest escape of each byte and for the names around them, so that the
        // buffer does not move and leave a copy of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(6 * texts_len + 128));
        serde_json::to_writer(&mut *bytes, body).expect("a struct of strings");
        Self { url, content_type: "application/json", body: bytes }
    }
}

/// What a server answered, as far as anybody here looks at it.
pub(crate) struct Answer {
    url: Url,
    pub(crate) status: u16,
    date: Option<SystemTime>,
    retry_after: Option<RetryAfter>,
    redirect: Option<String>,
    /// Whether it looks like a page for people, which no platform sends.
    pub(crate) is_html: bool,
    body: Body,
}

/// The body of an answer.
pub(crate) enum Body {
    /// All of it.
    Whole(Zeroizing<Vec<u8>>),
    /// More than fits.
    TooLarge,
    /// The connection broke; known only where the status alone already tells what to do.
    Broken,
}

impl Answer {
    /// Takes from the headers what will be looked at.
    pub(crate) fn new(url: Url, status: u16, headers: &HeaderMap, body: Body) -> Self {
        let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let date = header(DATE).and_then(|value| httpdate::parse_http_date(value).ok());
        Self {
            status,
            date,
            retry_after: header(RETRY_AFTER).and_then(|value| RetryAfter::parse(value, date)),
            redirect: header(LOCATION).and_then(|value| origin(&url, value)),
            is_html: header(CONTENT_TYPE).is_some_and(|value| value.trim_start().starts_with("text/html"))
                || body.bytes().trim_ascii_start().starts_with(b"<"),
            body,
            url,
        }
    }

    /// Whether there should be a token in it.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads the body of a success.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, PlatformError> {
        if matches!(self.body, Body::TooLarge) {
            return Err(Misconfiguration::TooLarge.into());
        }
        self.parse().ok_or_else(|| self.nonsense().into())
    }

    /// Reads the body of a failure, which may be anything.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(self.body.bytes()).ok()
    }

    /// Puts a token together with the life that it has left.
    pub(crate) fn token(&self, value: Option<TokenText>, told: life::Told) -> Result<Token, PlatformError> {
        let value = value.ok_or(Misconfiguration::NoToken)?;
        if !value.is_header_safe() {
            return Err(Misconfiguration::BadToken.into());
        }
        let life = life::remaining(&value, told, self.date);
        Ok(Token { value, life })
    }

    /// Says that this status means a refused key.
    pub(crate) fn refused(&self) -> PlatformError {
        PlatformError::Refused { reason: Refusal::Status(self.status) }
    }

    /// Says what any answer but a success means where the platform has no other meaning for it.
    pub(crate) fn failure(&self, code: Option<IamCode>) -> PlatformError {
        let retry_after = self.retry_after;
        match self.status {
            401 => self.refused(),
            403 => PlatformError::Forbidden,
            429 => PlatformError::Throttled { retry_after },
            status @ (408 | 500..=599) => {
                PlatformError::Unreachable { cause: Cause::Status(status), retry_after }
            }
            status => self.misfit(status, code).into(),
        }
    }

    fn misfit(&self, status: u16, code: Option<IamCode>) -> Misconfiguration {
        let url = self.url.to_string();
        match status {
            300..=399 => Misconfiguration::Redirected { url, to: self.redirect.clone() },
            404 => Misconfiguration::NotFound { url },
            _ if self.is_html => Misconfiguration::WebPage { url, status },
            _ => Misconfiguration::Status { url, status, code },
        }
    }

    fn nonsense(&self) -> Misconfiguration {
        if self.is_html {
            return Misconfiguration::WebPage { url: self.url.to_string(), status: self.status };
        }
        Misconfiguration::NotJson
    }
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::TooLarge | Self::Broken => &[],
        }
    }
}

/// The rest of a redirect's address may hold anything, so it is left out.
fn origin(from: &Url, location: &str) -> Option<String> {
    let to = from.join(location).ok().filter(Url::has_host)?;
    Some(to.origin().ascii_serialization())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderValue;

    use super::*;

    /// Makes an answer for the tests of each platform.
    pub(crate) fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let url = Url::parse("https://cpd.example.com/called").unwrap();
        Answer::new(url, status, &headers, Body::Whole(Zeroizing::new(body.as_bytes().to_vec())))
    }

    const URL: &str = "https://cpd.example.com/called";

    #[test]
    fn statuses_are_typed_by_who_must_act() {
        let failure = |status| answer(status, &[], "").failure(None);
        assert_eq!(failure(401), PlatformError::Refused { reason: Refusal::Status(401) });
        assert_eq!(failure(403), PlatformError::Forbidden);
        for status in [408, 500, 502, 503, 504, 599] {
            let cause = Cause::Status(status);
            assert_eq!(failure(status), PlatformError::Unreachable { cause, retry_after: None });
        }
        for status in [400, 402, 405, 410, 422, 600, 999] {
            let wrong = Misconfiguration::Status { url: URL.into(), status, code: None };
            assert_eq!(failure(status), wrong.into());
        }
        assert_eq!(failure(404), Misconfiguration::NotFound { url: URL.into() }.into());
    }

    #[test]
    fn retry_after_comes_with_throttling_and_outages() {
        let headers = [("retry-after", "7")];
        let retry_after = Some(RetryAfter::In(Duration::from_secs(7)));
        assert_eq!(answer(429, &headers, "").failure(None), PlatformError::Throttled { retry_after });
        let cause = Cause::Status(503);
        assert_eq!(
            answer(503, &headers, "").failure(None),
            PlatformError::Unreachable { cause, retry_after }
        );
    }

    #[test]
    fn a_redirect_tells_where_to_but_not_what_else_its_address_holds() {
        let to = |location| {
            let PlatformError::Misconfigured(Misconfiguration::Redirected { to, .. }) =
                answer(302, &[("location", location)], "").failure(None)
            else {
                panic!("a redirect is a misconfiguration");
            };
            to
        };
        assert_eq!(
            to("https://sso.example.com/login?key=s3cret").as_deref(),
            Some("https://sso.example.com")
        );
        assert_eq!(to("/zen").as_deref(), Some("https://cpd.example.com"));
        assert_eq!(to("mailto:x"), None);
    }

    #[test]
    fn web_pages_are_recognised_by_type_or_by_look() {
        let page = |status| Misconfiguration::WebPage { url: URL.into(), status }.into();
        assert_eq!(
            answer(400, &[("content-type", "text/html; charset=utf-8")], "x").failure(None),
            page(400)
        );
        assert_eq!(answer(200, &[], "\n<!doctype html>").json::<()>(), Err(page(200)));
    }

    #[test]
    fn a_json_body_keeps_its_place_in_memory() {
        let url = Url::parse(URL).unwrap();
        let worst = "\u{1}".repeat(100);
        let request = Request::json(url, &[&worst], worst.len());
        assert_eq!(request.body.capacity(), 6 * 100 + 128);
        assert_eq!(request.body.len(), 6 * 100 + 4);
    }
}
