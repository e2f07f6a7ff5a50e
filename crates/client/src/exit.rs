//! What a failure is, and the exit status that scripts rely on for each.

use std::ops::Deref;

use dph_agent_protocol::{ErrorCode, Failure};

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// One that the agent reports, or that has its number.
    Agent(ErrorCode),
    /// The command line is wrong, or there is no terminal to ask on.
    Usage,
    /// No agent answers.
    NoAgent,
    /// The user pressed Ctrl-C at a prompt.
    Interrupted,
}

/// A failure in words for people; a pointer wide, so that success does not pay for it.
#[derive(Debug)]
pub(crate) struct Error(Box<Report>);

/// What a failure says.
#[derive(Debug)]
pub(crate) struct Report {
    /// Decides the exit status.
    pub(crate) code: Code,
    /// What failed.
    pub(crate) message: String,
    /// The next step.
    pub(crate) hint: String,
    /// When trying again may help, in milliseconds from now.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Code {
    /// Returns the exit status.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Agent(code) => agent_status(code),
            Self::Usage => 2,
            Self::NoAgent => 3,
            Self::Interrupted => 130,
        }
    }

    /// Returns the word for it in JSON.
    pub(crate) fn word(self) -> String {
        match self {
            Self::Agent(code) => code.to_string(),
            Self::Usage => "usage".into(),
            Self::NoAgent => "no-agent".into(),
            Self::Interrupted => "interrupted".into(),
        }
    }
}

fn agent_status(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::BAD_REQUEST | ErrorCode::AMBIGUOUS_PROFILE | ErrorCode::EXISTS => 2,
        ErrorCode::LOCKED | ErrorCode::WRONG_PASSPHRASE => 4,
        ErrorCode::NO_SUCH_PROFILE | ErrorCode::NO_KEY => 5,
        ErrorCode::KEY_REFUSED | ErrorCode::STILL_REJECTED => 6,
        ErrorCode::UNREACHABLE | ErrorCode::THROTTLED => 7,
        ErrorCode::DENIED => 8,
        ErrorCode::DEADLINE | ErrorCode::BUSY => 9,
        ErrorCode::UNSUPPORTED => 10,
        ErrorCode::MISCONFIGURED
        | ErrorCode::ORIGIN_CHANGED
        | ErrorCode::TOKEN_TOO_LARGE
        | ErrorCode::CONFIG => 11,
        ErrorCode::SOURCE_UNAVAILABLE => 12,
        ErrorCode::LIFE_TOO_SHORT => 13,
        _ => 1,
    }
}

impl Error {
    /// Returns a failure that has a number of the agent's.
    pub(crate) fn new(code: ErrorCode, message: &str, hint: &str) -> Self {
        Self::with(Code::Agent(code), message, hint)
    }

    /// Returns a failure of the command line.
    pub(crate) fn usage(message: &str, hint: &str) -> Self {
        Self::with(Code::Usage, message, hint)
    }

    /// Returns a failure of any kind.
    pub(crate) fn with(code: Code, message: &str, hint: &str) -> Self {
        let (message, hint) = (message.to_owned(), hint.to_owned());
        Self(Box::new(Report { code, message, hint, retry_after_ms: None }))
    }
}

impl Deref for Error {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, hint, retry_after_ms } = failure;
        Self(Box::new(Report { code: Code::Agent(code), message, hint, retry_after_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_that_scripts_rely_on() {
        // In the order of the numbers on the wire.
        let documented = [1, 2, 2, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 11, 12, 13, 9, 1, 11, 2, 1, 11, 4];
        let statuses: Vec<_> = ErrorCode::ALL.iter().map(|code| Code::Agent(*code).status()).collect();
        assert_eq!(statuses, documented);
    }

    #[test]
    fn code_of_a_newer_agent_is_an_ordinary_failure_with_its_number() {
        let code = Code::Agent(ErrorCode(999));
        assert_eq!((code.status(), code.word().as_str()), (1, "999"));
    }
}
