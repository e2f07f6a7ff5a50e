//! Faults on demand: which endpoint misbehaves, how, and how often.

use std::time::{Duration, SystemTime};

use crate::answer::Answer;
use crate::endpoint::Endpoint;
use crate::mint::TokenForm;

/// How an endpoint misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The genuine answer, this much later.
    Slow(Duration),
    /// The request is carried out at once, and answered after this.
    Late(Duration),
    /// No answer, on a connection that stays open.
    Hang,
    /// The connection is closed without an answer, and nothing is done.
    DropConnection,
    /// What was asked for is done, and then the connection is closed without an answer.
    DropAnswer,
    /// The connection is closed after half the body that `Content-Length` announced.
    DropMidBody,
    /// 401, as the platform's JSON or as plain text.
    Unauthorized {
        /// Whether the body is JSON.
        json: bool,
    },
    /// 403 in the platform's own words.
    Forbidden,
    /// 400 in the platform's own words, with this error code where the platform has codes.
    BadRequest {
        /// Such as `BXNIM0462E`.
        code: &'static str,
    },
    /// 500 with code 602, as Software Hub says that a field is missing.
    Code602,
    /// 429.
    Throttled(RetryAfter),
    /// A status of the 5xx family, as a gateway sends it.
    ServerError(u16, Option<RetryAfter>),
    /// 404, as of a URL whose path is wrong.
    NotFound,
    /// 200 with the page of a web client.
    Html,
    /// 200 that calls itself JSON and is neither JSON nor text.
    Garbage,
    /// 200 with a token of 1 GiB, streamed until the peer hangs up.
    HugeBody,
    /// 307, which asks the peer to send the same body there.
    Redirect(String),
    /// The genuine answer, called `text/plain`.
    WrongContentType,
    /// The genuine status and headers with no body.
    EmptyBody,
    /// A token without `exp`, in a body without any expiry.
    TokenWithoutExp,
    /// A token that is no JWT.
    OpaqueToken,
    /// A token of this many bytes.
    LongToken(usize),
    /// A token that was issued this long ago.
    AgedToken(Duration),
    /// The token that this account got last.
    SameToken,
    /// The genuine body without its token or key.
    NoTokenField,
    /// The token in `accessToken`, as some pages of the documentation have it.
    AccessTokenField,
    /// `_messageCode_` and `message` say `success` instead of `200` and `Success`.
    MessageCodeVariant,
}

/// What `Retry-After` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// The date that is this far ahead on the server's clock.
    Date(Duration),
    /// There is no such header.
    Absent,
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// To the next request.
    Once,
    /// To this many requests.
    N(usize),
    /// Until the scripts are cleared.
    Forever,
}

/// The faults still to come, first scripted first.
#[derive(Debug, Default)]
pub(crate) struct Scripts(Vec<Script>);

#[derive(Debug)]
struct Script {
    endpoint: Endpoint,
    fault: Fault,
    times: Times,
}

impl Scripts {
    pub(crate) fn add(&mut self, endpoint: Endpoint, fault: Fault, times: Times) {
        self.0.push(Script { endpoint, fault, times });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the fault that is next for `endpoint`, using up one of its times.
    pub(crate) fn take(&mut self, endpoint: Endpoint) -> Option<Fault> {
        self.0.retain(|script| script.times != Times::N(0));
        let at = self.0.iter().position(|script| script.endpoint.covers(endpoint))?;
        let script = self.0.get_mut(at)?;
        let left = match script.times {
            Times::Once => Times::N(0),
            Times::N(n) => Times::N(n.saturating_sub(1)),
            Times::Forever => Times::Forever,
        };
        script.times = left;
        Some(script.fault.clone())
    }
}

impl Fault {
    /// Returns what the peer is sent: the `genuine` answer changed, or something in its place.
    pub(crate) fn apply(
        &self,
        endpoint: Endpoint,
        now: SystemTime,
        genuine: impl FnOnce(TokenForm) -> Answer,
    ) -> Answer {
        match self {
            // What these do is done before an answer is asked for.
            Self::Slow(_) | Self::Hang | Self::DropConnection => genuine(TokenForm::Usual),
            // The server sees to it that nobody gets this answer, or not yet.
            Self::DropAnswer | Self::Late(_) => genuine(TokenForm::Usual),
            Self::DropMidBody => genuine(TokenForm::Usual).cut(),
            Self::Unauthorized { json: true } => endpoint.unauthorized(now),
            Self::Unauthorized { json: false } => Answer::text(401, "Sorry you are not authorized"),
            Self::Forbidden => endpoint.error(403, "forbidden", "Access is denied.", now),
            Self::BadRequest { code } => endpoint.error(400, code, "The request is not accepted.", now),
            Self::Code602 => crate::software_hub::validation_error("properties.username in body is required"),
            Self::Throttled(retry_after) => {
                Answer::text(429, "Too Many Requests").with_retry_after(*retry_after, now)
            }
            Self::ServerError(status, retry_after) => Answer::text(*status, "upstream connect error")
                .with_retry_after(retry_after.unwrap_or(RetryAfter::Absent), now),
            Self::NotFound => Answer::text(404, "404 page not found"),
            Self::Html => Answer::html(),
            Self::Garbage => Answer::garbage(),
            Self::HugeBody => Answer::huge(),
            Self::Redirect(to) => Answer::text(307, "").with_header("location", to.clone()),
            Self::WrongContentType => genuine(TokenForm::Usual).with_content_type("text/plain"),
            Self::EmptyBody => genuine(TokenForm::Usual).emptied(),
            Self::TokenWithoutExp => genuine(TokenForm::WithoutExp),
            Self::OpaqueToken => genuine(TokenForm::Opaque),
            Self::LongToken(len) => genuine(TokenForm::Long(*len)),
            Self::AgedToken(age) => genuine(TokenForm::Aged(*age)),
            Self::SameToken => genuine(TokenForm::Same),
            Self::NoTokenField => genuine(TokenForm::Usual).edited(|body| {
                body.retain(|name, _| !["token", "access_token", "data", "apiKey"].contains(&name.as_str()));
            }),
            Self::AccessTokenField => genuine(TokenForm::Usual).edited(|body| {
                if let Some(token) = body.remove("token") {
                    body.insert("accessToken".into(), token);
                }
            }),
            Self::MessageCodeVariant => genuine(TokenForm::Usual).edited(|body| {
                body.insert("_messageCode_".into(), "success".into());
                body.insert("message".into(), "success".into());
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_of_scripting_and_as_often_as_asked() {
        let mut scripts = Scripts::default();
        scripts.add(Endpoint::Authorize, Fault::Html, Times::Once);
        scripts.add(Endpoint::Authorize, Fault::Garbage, Times::N(2));
        let taken: Vec<_> = (0..4).map(|_| scripts.take(Endpoint::Authorize)).collect();
        assert_eq!(taken, [Some(Fault::Html), Some(Fault::Garbage), Some(Fault::Garbage), None]);
    }

    #[test]
    fn a_fault_meets_its_own_endpoint_only_unless_it_is_for_any() {
        let mut scripts = Scripts::default();
        scripts.add(Endpoint::IamToken, Fault::Html, Times::Forever);
        assert_eq!(scripts.take(Endpoint::McspToken), None);
        scripts.add(Endpoint::Any, Fault::Hang, Times::Forever);
        assert_eq!(scripts.take(Endpoint::McspToken), Some(Fault::Hang));
        assert_eq!(scripts.take(Endpoint::IamToken), Some(Fault::Html));
    }
}
