//! What can go wrong at a platform, typed by who must act.

use std::{
    fmt, io,
    time::{Duration, SystemTime},
};

use crate::{Fingerprint, UrlError};

/// Why there is no token.
///
/// No variant holds text of the server beyond codes of a fixed shape, host names and cleaned
/// names from its certificate, since a server can repeat what it was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// The key is not accepted: its owner must act.
    #[error("the key was refused")]
    Refused {
        /// How that was told.
        #[source]
        reason: Refusal,
    },
    /// Status 403, which stands for a refused key as well as for a passing trouble.
    #[error("the platform forbids it (status 403)")]
    Forbidden,
    /// Nothing or nothing useful answered: trying again later may help.
    #[error("the platform cannot be reached")]
    Unreachable {
        /// What happened instead.
        #[source]
        cause: Cause,
        /// When the platform asked to be tried again.
        retry_after: Option<RetryAfter>,
    },
    /// Status 429: the platform was asked too often.
    #[error("the platform is throttling (status 429)")]
    Throttled {
        /// When the platform asked to be tried again.
        retry_after: Option<RetryAfter>,
    },
    /// The profile, the network or the platform is set up so that this cannot work.
    #[error("the platform is set up wrongly")]
    Misconfigured(#[from] Misconfiguration),
}

/// How a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// By this HTTP status.
    #[error("the platform answered with status {0}")]
    Status(u16),
    /// By one of IAM's codes for keys.
    #[error("the platform answered with code {0}")]
    Code(IamCode),
    /// By us, before it was sent: it is empty or holds a control character.
    #[error("it is empty or holds a line break or other control character, and was not sent")]
    Malformed,
}

/// One of IAM's message codes, such as `BXNIM0415E`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IamCode([u8; Self::LEN]);

impl IamCode {
    const LEN: usize = 10;

    /// Reads a code: `BXNIM`, four digits and `E`; nothing else, so that no other text gets through.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("BXNIM")?.strip_suffix('E')?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        text.as_bytes().try_into().ok().map(Self)
    }
}

impl fmt::Display for IamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for IamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happened instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The name has no address, or no name server answered.
    #[error("its host name, or the proxy's, cannot be resolved")]
    Dns,
    /// It took too long to connect or to answer.
    #[error("it did not answer in time")]
    TimedOut,
    /// The connection could not be made, or broke.
    #[error("network error: {0}")]
    Network(io::ErrorKind),
    /// The connection ended, or what came over it was not HTTP.
    #[error("the connection ended without a whole answer")]
    Broken,
    /// The proxy could not or would not connect.
    #[error("the proxy gave no connection to it")]
    Proxy,
    /// The secure channel could not be set up for a reason that may pass.
    #[error("tls handshake failed: {0}")]
    Tls(String),
    /// It says itself that it cannot serve now.
    #[error("it answered with status {0}")]
    Status(u16),
}

/// What is set up wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misconfiguration {
    /// No authority that is trusted vouches for the server.
    #[error("the server's certificate is not trusted: {reason}")]
    Untrusted {
        /// In what way.
        reason: String,
    },
    /// The server shows another certificate than the pinned one.
    #[error("the server's certificate is not the pinned one: expected {expected}, found {found}")]
    ChangedCertificate {
        /// The pinned one's.
        expected: Fingerprint,
        /// The one's that the server showed.
        found: Fingerprint,
    },
    /// This machine has no roots, and the profile adds none.
    #[error("this system has no trusted root certificates")]
    NoRoots,
    /// Both ends speak, but not the same TLS.
    #[error("no secure channel is possible: {reason}")]
    Tls {
        /// Why not.
        reason: String,
    },
    /// The proxy asks for a user name and password.
    #[error("the proxy asks for a user name and password")]
    ProxyAuthentication,
    /// `https_proxy` of the environment is not the address of a proxy.
    #[error("https_proxy of the agent's environment is wrong")]
    ProxyVariable(#[source] UrlError),
    /// A scope is given, but the address already says what tokens are for.
    #[error("`{url}` takes no scope")]
    ScopeNotTaken {
        /// The address.
        url: String,
    },
    /// Status 404.
    #[error("there is no `{url}` (status 404)")]
    NotFound {
        /// What was called.
        url: String,
    },
    /// A page for people.
    #[error("`{url}` answered with a web page (status {status})")]
    WebPage {
        /// What was called.
        url: String,
        /// With which status.
        status: u16,
    },
    /// A redirect, which is never followed with a key.
    #[error("`{url}` redirects{}", ToOrigin(.to))]
    Redirected {
        /// What was called.
        url: String,
        /// The origin that it points to, where that can be told.
        to: Option<String>,
    },
    /// The platform finds the request invalid, most often for want of a valid user name.
    #[error("the platform finds the request invalid (code {code})")]
    Invalid {
        /// The platform's code.
        code: u16,
    },
    /// Any other status that trying again will not change.
    #[error("`{url}` answered with status {status}{}", InBrackets(.code))]
    Status {
        /// What was called.
        url: String,
        /// With which status.
        status: u16,
        /// IAM's code.
        code: Option<IamCode>,
    },
    /// More came than any answer with a token has.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer is not the JSON that it should be.
    #[error("the answer is not what this platform sends")]
    NotJson,
    /// The answer has no token.
    #[error("the answer holds no token")]
    NoToken,
    /// The answer has no API key.
    #[error("the answer holds no usable key")]
    NoKey,
    /// The answer's token cannot stand in a header.
    #[error("the answer's token is not a bearer token")]
    BadToken,
}

/// When a platform asked to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// So long after its answer.
    In(Duration),
    /// At a time of day, told by a server that did not tell its own.
    At(SystemTime),
}

impl RetryAfter {
    /// Returns how long that is, counted from `now` where the server told no time of its own.
    pub fn wait(self, now: SystemTime) -> Duration {
        match self {
            Self::In(wait) => wait,
            Self::At(time) => time.duration_since(now).unwrap_or_default(),
        }
    }

    /// Reads the header's value, a count of seconds or a date, which is held against the server's own
    /// `Date` so that this machine's clock does not matter.
    pub(crate) fn parse(value: &str, date: Option<SystemTime>) -> Option<Self> {
        let value = value.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Self::In(Duration::from_secs(seconds)));
        }
        let time = httpdate::parse_http_date(value).ok()?;
        Some(date.map_or(Self::At(time), |date| Self::In(Self::At(time).wait(date))))
    }
}

struct ToOrigin<'a>(&'a Option<String>);

impl fmt::Display for ToOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|origin| write!(f, " to `{origin}`"))
    }
}

struct InBrackets<'a>(&'a Option<IamCode>);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|code| write!(f, " ({code})"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:50:07 GMT";

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").ok();
        let wait = |value, date| RetryAfter::parse(value, date).map(|after| after.wait(UNIX_EPOCH));
        assert_eq!(wait("120", None), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(wait(DATE, now), Some(Duration::from_secs(30)));
        for bad in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(wait(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn a_date_without_the_servers_own_is_held_against_our_clock() {
        let after = RetryAfter::parse(DATE, None).unwrap();
        let time = httpdate::parse_http_date(DATE).unwrap();
        assert_eq!(after.wait(time - Duration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(after.wait(time + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn nothing_but_a_code_is_read_as_a_code() {
        assert_eq!(IamCode::parse("BXNIM0415E").unwrap().to_string(), "BXNIM0415E");
        for bad in ["", "BXNIM415E", "BXNIM04155E", "BXNIM0415", "bxnim0415e", "BXNIM04x5E", "BXNIM٤E"] {
            assert_eq!(IamCode::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_name_what_was_called() {
        let url = "https://cpd.example.com/x".to_owned();
        let redirected = Misconfiguration::Redirected { url: url.clone(), to: Some("https://b".into()) };
        assert_eq!(redirected.to_string(), "`https://cpd.example.com/x` redirects to `https://b`");
        let status = Misconfiguration::Status { url, status: 400, code: IamCode::parse("BXNIM0106E") };
        assert_eq!(status.to_string(), "`https://cpd.example.com/x` answered with status 400 (BXNIM0106E)");
    }
}
