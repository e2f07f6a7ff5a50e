//! The errors that cross module borders, each with the [`ErrorCode`] that a client gets.

use std::fmt;
use std::time::{Duration, SystemTime};

use dph_agent_platform::{Misconfiguration, PlatformError, RetryAfter};
use dph_agent_protocol::{ErrorCode, Failure};

/// What went wrong with a profile or a request, in words for the user and without any secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What the client gets.
    pub code: ErrorCode,
    /// What failed.
    pub message: String,
    /// The next step.
    pub hint: String,
    /// The platform refused without saying that it is the key's fault (403).
    pub doubtful: bool,
    /// The platform said when to come back.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// Creates a problem with no word of the platform on when to come back.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into(), doubtful: false, retry_after: None }
    }

    /// Returns what the platform's answer to an exchange means for `profile`; `wall` is seconds since 1970.
    pub fn from_platform(error: &PlatformError, profile: &str, wall: i64) -> Self {
        let message = Chain(error).to_string();
        let problem = |code, hint: String| Self::new(code, message.clone(), hint);
        let after = |wait: Option<RetryAfter>| wait.map(|wait| wait.wait(system_time(wall)));
        match error {
            PlatformError::Refused { .. } => problem(ErrorCode::KEY_REFUSED, refused_hint(profile)),
            // Counts as a refusal only when it goes on: `refresh::FORBIDDEN_TRIES`.
            PlatformError::Forbidden => {
                Self { doubtful: true, ..problem(ErrorCode::UNREACHABLE, refused_hint(profile)) }
            }
            PlatformError::Unreachable { retry_after, .. } => Self {
                retry_after: after(*retry_after),
                ..problem(
                    ErrorCode::UNREACHABLE,
                    "is the network or the VPN up? the agent tries again when asked".into(),
                )
            },
            PlatformError::Throttled { retry_after } => Self {
                retry_after: after(*retry_after),
                ..problem(ErrorCode::THROTTLED, "the agent waits for as long as the platform asks".into())
            },
            PlatformError::Misconfigured(fault) => {
                problem(ErrorCode::MISCONFIGURED, misconfigured_hint(fault, profile))
            }
        }
    }

    /// Returns what a client is told, with the time until trying again may help.
    pub fn to_failure(&self, retry_after: Option<Duration>) -> Failure {
        Failure {
            code: self.code,
            message: self.message.clone(),
            hint: self.hint.clone(),
            retry_after_ms: retry_after.map(millis),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        problem.to_failure(problem.retry_after)
    }
}

/// What a 401 usually means, since platforms do not say.
fn refused_hint(profile: &str) -> String {
    format!(
        "a newer key may have been made elsewhere, the key may have expired, the user may lack access, or the user \
         name needs the prefix `IAM#`; then: dph-agent-client add --profile {profile}"
    )
}

fn misconfigured_hint(fault: &Misconfiguration, profile: &str) -> String {
    match fault {
        Misconfiguration::Untrusted { .. } | Misconfiguration::NoRoots => format!(
            "give the authority's certificate with --ca-file, or look at the server's: \
             dph-agent-client add --profile {profile} --trust-server"
        ),
        Misconfiguration::ChangedCertificate { .. } => format!(
            "ask who changed it; if it is right: dph-agent-client add --profile {profile} --trust-server"
        ),
        Misconfiguration::ProxyAuthentication => {
            "put user and password into https_proxy of the agent".to_owned()
        }
        Misconfiguration::ProxyVariable(_) => {
            "start the agent with https_proxy such as http://proxy:3128, or without it".to_owned()
        }
        Misconfiguration::Tls { .. }
        | Misconfiguration::ScopeNotTaken { .. }
        | Misconfiguration::NotFound { .. }
        | Misconfiguration::WebPage { .. }
        | Misconfiguration::Redirected { .. }
        | Misconfiguration::Invalid { .. }
        | Misconfiguration::Status { .. }
        | Misconfiguration::TooLarge
        | Misconfiguration::NotJson
        | Misconfiguration::NoToken
        | Misconfiguration::NoKey
        | Misconfiguration::BadToken => {
            format!("mend the profile's settings, then: dph-agent-client refresh --profile {profile}")
        }
    }
}

fn system_time(wall: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(wall.unsigned_abs())
}

/// Returns whole milliseconds, at most what fits.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Shows an error and all its sources on one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
