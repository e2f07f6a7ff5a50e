//! A request before it is sent and an answer after it came, and what answers mean on every platform.

use std::time::SystemTime;

use bytes::Bytes;
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;
use zeroize::Zeroizing;

use crate::{Cause, IamCode, Misconfiguration, PlatformError, Refusal, RetryAfter, Token, TokenText, life};

/// A request that carries a secret, in memory that is wiped.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Empty where the method has none.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Request {
    /// Makes a request without a body.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Zeroizing::default() }
    }

    /// Makes a `POST` with a body of this type.
    pub(crate) fn post(url: Url, content_type: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { method: Method::POST, url, headers, body }
    }

    /// Makes a `POST` with a JSON body, of which `texts_len` bytes are texts from outside.
    #[expect(clippy::expect_used, reason = "structs of strings always serialize")]
    pub(crate) fn json(url: Url, body: &impl Serialize, texts_len: usize) -> Self {
        // Room for the longest escape of each byte and for the names around them, so that the
        // buffer does not move and leave a copy of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(6 * texts_len + 128));
        serde_json::to_writer(&mut *bytes, body).expect("a struct of strings");
        Self::post(url, "application/json", bytes)
    }

    /// Adds a header that holds a secret; `None` if that cannot stand in a header.
    ///
    /// The value stays in the memory that it is given in, which is wiped when the request is dropped.
    pub(crate) fn with_secret(mut self, name: HeaderName, value: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).ok()?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Some(self)
    }

    /// Adds the header that a bearer token travels in.
    pub(crate) fn with_bearer(self, bearer: &TokenText) -> Result<Self, Misconfiguration> {
        if !bearer.is_header_safe() {
            return Err(Misconfiguration::BadToken);
        }
        let value = joined(&["Bearer ", bearer.expose()]);
        self.with_secret(AUTHORIZATION, value).ok_or(Misconfiguration::BadToken)
    }
}

/// Puts a secret together at once in its last place, so that no part of it stays behind elsewhere.
pub(crate) fn joined(parts: &[&str]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    bytes
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
    /// It was thrown away as it came.
    Unread,
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

    /// Whether there should be in it what was asked for.
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

    pub(crate) fn nonsense(&self) -> Misconfiguration {
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
            Self::TooLarge | Self::Broken | Self::Unread => &[],
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

    #[test]
    fn a_secret_in_a_header_keeps_its_place_in_memory_and_is_not_printed() {
        let secret = joined(&["Basic ", "s3cret"]);
        let place = secret.as_ptr();
        let request = Request::new(Method::GET, Url::parse(URL).unwrap());
        let request = request.with_secret(AUTHORIZATION, secret).unwrap();
        let value = &request.headers[AUTHORIZATION];
        assert_eq!((value.as_bytes(), value.as_bytes().as_ptr()), (&b"Basic s3cret"[..], place));
        assert!(!format!("{value:?}").contains("s3cret"));
    }

    #[test]
    fn what_would_end_a_header_does_not_get_into_one() {
        for bad in ["", "a b", "a\r\nx: y", "ä"] {
            let request = Request::new(Method::GET, Url::parse(URL).unwrap());
            let refused = request.with_bearer(&TokenText::new(bad.into())).err();
            assert_eq!(refused, Some(Misconfiguration::BadToken), "{bad}");
        }
    }
}
