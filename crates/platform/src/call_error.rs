//! What can go wrong with a call that changes something at a platform.

use crate::{Misconfiguration, PlatformError};

/// Why a call that makes or deletes a key did not succeed, typed by what may have become of it there.
///
/// Nobody below repeats a call, so it was carried out at most once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Surely not carried out: not one byte of it was written to the platform.
    #[error("the call did not reach the platform")]
    NotSent(#[source] PlatformError),
    /// Surely not carried out: the platform's answer says no.
    #[error("the platform refused the call")]
    Refused(#[source] PlatformError),
    /// Perhaps carried out: what came after the request was written tells nothing about that.
    #[error("nobody knows whether the platform carried the call out")]
    Unclear(#[source] PlatformError),
}

impl CallError {
    /// Sorts what an answer other than a success means.
    pub(crate) fn answered(error: PlatformError) -> Self {
        if is_refusal(&error) { Self::Refused(error) } else { Self::Unclear(error) }
    }

    /// Returns what happened, whatever became of the call.
    pub fn platform_error(&self) -> &PlatformError {
        match self {
            Self::NotSent(error) | Self::Refused(error) | Self::Unclear(error) => error,
        }
    }
}

impl From<CallError> for PlatformError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(error) | CallError::Refused(error) | CallError::Unclear(error) => error,
        }
    }
}

/// Whether a server that answers so has done nothing. A redirect is not such an answer: some lead away
/// from what was just done. Nor is 408, which a gateway may send while the service behind it goes on.
fn is_refusal(error: &PlatformError) -> bool {
    match error {
        PlatformError::Refused { .. } | PlatformError::Forbidden | PlatformError::Throttled { .. } => true,
        PlatformError::Misconfigured(fault) => matches!(
            fault,
            Misconfiguration::NotFound { .. }
                | Misconfiguration::WebPage { status: 400..=499, .. }
                | Misconfiguration::Status { status: 400..=499, .. }
        ),
        PlatformError::Unreachable { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::answer;

    fn of(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> CallError {
        CallError::answered(answer(status, headers, body).failure(None))
    }

    #[test]
    fn a_no_is_told_from_what_may_have_been_done() {
        for no in [400, 401, 403, 404, 405, 409, 423, 429] {
            assert!(matches!(of(no, &[], "{}"), CallError::Refused(_)), "{no}");
            assert!(matches!(of(no, &[], "<html>"), CallError::Refused(_)), "{no}");
        }
        for perhaps in [301, 302, 303, 307, 408, 500, 502, 503, 504, 600] {
            assert!(matches!(of(perhaps, &[("location", "/")], "{}"), CallError::Unclear(_)), "{perhaps}");
        }
    }

    #[test]
    fn the_chain_says_what_became_of_the_call_and_why() {
        let error = of(503, &[], "");
        assert_eq!(error.to_string(), "nobody knows whether the platform carried the call out");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the platform cannot be reached");
    }
}
