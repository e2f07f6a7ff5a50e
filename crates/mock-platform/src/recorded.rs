//! Requests as they arrived.

use std::fmt;
use std::time::Instant;

use hyper::http::request::Parts;

use crate::Endpoint;

/// A request that arrived, secrets included. `Debug` and `Display` show none of them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Recorded {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query without its question mark; empty where there is none.
    pub query: String,
    /// Names in lower case, with their values, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// What it was for; [`Endpoint::Any`] where nobody serves the path.
    pub endpoint: Endpoint,
    /// When it had arrived completely.
    pub at: Instant,
    /// The status that was answered; `None` where there was no answer, or none yet.
    pub status: Option<u16>,
}

impl Recorded {
    pub(crate) fn new(head: &Parts, body: Vec<u8>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            body,
            endpoint: Endpoint::at(head.method.as_str(), head.uri.path()),
            at: Instant::now(),
            status: None,
        }
    }

    /// Returns the first value of the header `name`, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    #[must_use]
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns whether the body is said to be of the media type `wanted`.
    pub(crate) fn is_of_type(&self, wanted: &str) -> bool {
        let media_type = self.header("content-type").and_then(|value| value.split(';').next());
        media_type.is_some_and(|given| given.trim().eq_ignore_ascii_case(wanted))
    }

    /// Returns what follows `scheme` in the authorization header.
    pub(crate) fn authorization(&self, scheme: &str) -> Option<&str> {
        let (given, credentials) = self.header("authorization")?.split_once(' ')?;
        given.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.method, self.path)?;
        match self.status {
            Some(status) => write!(f, "{status}"),
            None => f.write_str("no answer"),
        }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorded({self})")
    }
}
