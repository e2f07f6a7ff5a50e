//! What a line of the log says.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use dph_agent_ipc::Uid;
use dph_agent_protocol::ErrorCode;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::chain::{Head, hex};
use super::time::rfc3339;
use crate::caller::Caller;

/// Longest text from elsewhere, such as a path, in characters.
const MAX_TEXT: usize = 1024;
/// Bytes of a token's hash that are kept.
const TOKEN_BYTES: usize = 8;

/// What the configuration says about the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is not written.
    Off,
    /// It is written; what cannot be is reported and stops nobody.
    #[default]
    On,
    /// A hand-out that cannot be recorded is refused.
    Required,
}

impl Mode {
    /// Every mode.
    pub const ALL: &[Self] = &[Self::On, Self::Required, Self::Off];

    /// Returns its word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Required => "required",
        }
    }
}

/// What happened. A new kind is a new variant: its name and its fields become those of the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "a profile is the one that the event is about")]
pub enum Event {
    /// A token was asked for; the token that was handed out.
    Token {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenDigest>,
    },
    /// The key itself was asked for, in a header of its own.
    Zen {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// The agent bought a token, or could not.
    Refresh {
        profile: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenDigest>,
    },
    /// The user had the agent try again.
    Retry {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key was handed over.
    Add {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A profile was made the default.
    Default {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key was to be made invalid at its platform; without a caller, how that ended.
    Revoke {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key was to be replaced at its platform; without a caller, how that ended.
    Rotate {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key was moved to another source.
    Migrate {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key was about to leave the agent for a place that whatever its user runs can read.
    KeyOut { profile: String },
    /// All keys and tokens were dropped by a signal.
    DropAll,
    /// A key was dropped.
    Forget {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A key and its profile were dropped.
    Remove {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A request that waited was let through.
    Approve {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// A request that waited was refused.
    Deny {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// The agent was locked; without a caller it locked by itself.
    Lock,
    /// The agent was opened.
    Unlock,
    /// The agent was told to end.
    Stop,
    /// Something that changes nothing was refused.
    Look { request: &'static str },
    /// Connections were turned away: one, or so many since the last such line.
    Connect {
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// The configuration protects less than before; without a profile, the agent as a whole.
    Config {
        #[serde(skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
        weaker: Vec<&'static str>,
    },
    /// The agent began to write.
    Started { version: &'static str },
    /// The agent ended.
    Stopped,
    /// The configuration says something else about this log from now on.
    Mode { mode: Mode },
    /// Lines that could not be written before this one.
    Lost { lines: u64 },
    /// The first line of a file.
    File,
    /// The bytes before this line are the rest of one that was never finished.
    Torn { bytes: u64, sha256: String },
    /// The log does not end any more in the line that the agent wrote last.
    Disturbed { expected: String },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As was asked.
    Granted,
    /// The agent would not.
    Refused(ErrorCode),
    /// The agent could not.
    Failed(ErrorCode),
}

impl Decision {
    /// Returns what a failure is: a decision of the agent, or bad luck.
    pub fn not(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BAD_REQUEST
            | ErrorCode::AMBIGUOUS_PROFILE
            | ErrorCode::LOCKED
            | ErrorCode::NO_SUCH_PROFILE
            | ErrorCode::NO_KEY
            | ErrorCode::DENIED
            | ErrorCode::ORIGIN_CHANGED
            | ErrorCode::EXISTS
            | ErrorCode::BUSY
            | ErrorCode::WRONG_PASSPHRASE => Self::Refused(code),
            _ => Self::Failed(code),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    fn code(self) -> Option<String> {
        match self {
            Self::Granted => None,
            Self::Refused(code) | Self::Failed(code) => Some(code.to_string()),
        }
    }
}

/// The first 16 hexadecimal digits of a token's SHA-256: enough to find it, nothing to use.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct TokenDigest(String);

impl TokenDigest {
    /// Hashes a token.
    pub fn of(token: &str) -> Self {
        let hash = digest(&SHA256, token.as_bytes());
        Self(hex(hash.as_ref().get(..TOKEN_BYTES).unwrap_or_default()))
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line, before it has its place in the chain.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it happened, in seconds since 1970.
    pub time: i64,
    /// What happened.
    pub event: Event,
    /// How it ended, where that is the question.
    pub decision: Option<Decision>,
    /// Who asked; absent where the agent did it by itself.
    pub caller: Option<Arc<Caller>>,
}

impl Entry {
    /// Returns what the agent tells of itself.
    pub fn own(time: i64, event: Event) -> Self {
        Self { time, event, decision: None, caller: None }
    }

    /// Returns the line behind `head` as JSON whose last brace is missing: the hash stands before it.
    ///
    /// # Errors
    ///
    /// None that is known of: there are only texts and numbers.
    pub fn body(&self, head: &Head) -> serde_json::Result<String> {
        let caller = self.caller.as_deref();
        let mut body = serde_json::to_string(&Line {
            prev: &head.hash,
            seq: head.seq.saturating_add(1),
            time: rfc3339(self.time),
            event: &self.event,
            decision: self.decision.map(Decision::word),
            code: self.decision.and_then(Decision::code),
            uid: caller.map(|caller| &caller.uid),
            pid: caller.and_then(|caller| caller.pid),
            exe: caller.and_then(|caller| caller.exe.as_deref()).map(Path::to_string_lossy).map(clip),
            unit: caller.and_then(|caller| caller.unit.as_deref()).map(clip),
        })?;
        body.pop();
        Ok(body)
    }
}

/// The order of the first two is part of the format.
#[derive(Serialize)]
struct Line<'a> {
    prev: &'a str,
    seq: u64,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a Uid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

fn clip(text: impl AsRef<str>) -> String {
    visible(&text.as_ref().chars().take(MAX_TEXT).collect::<String>())
}

/// Returns `text` with what would steer a terminal, or reorder what it shows, replaced.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || reorders(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_hand_out_says_who_got_which_token_and_not_the_token() {
        let caller = Caller {
            uid: 1000,
            pid: Some(42),
            exe: Some("/bin/a\u{1b}[2J\u{202e}b".into()),
            unit: Some("job.service".to_owned()),
            parent: None,
            file: Err(crate::caller::Doubt::NotAsked),
        };
        let token = Some(TokenDigest::of("eyJ.new.sig"));
        let entry = Entry {
            time: 951_782_400,
            event: Event::Token { profile: Some("prod".to_owned()), token },
            decision: Some(Decision::Granted),
            caller: Some(Arc::new(caller)),
        };
        let body = entry.body(&Head::genesis()).unwrap();
        let expected = format!(
            "{{\"prev\":\"{}\",\"seq\":1,\"time\":\"2000-02-29T00:00:00Z\",\"event\":\"token\",\
             \"profile\":\"prod\",\"token\":\"{}\",\"decision\":\"granted\",\"uid\":1000,\"pid\":42,\
             \"exe\":\"/bin/a\u{fffd}[2J\u{fffd}b\",\"unit\":\"job.service\"",
            "0".repeat(64),
            TokenDigest::of("eyJ.new.sig").as_str()
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn a_token_is_known_by_the_first_digits_of_its_hash() {
        // printf abc | sha256sum
        assert_eq!(TokenDigest::of("abc").as_str(), "ba7816bf8f01cfea");
    }

    #[test]
    fn a_refusal_has_its_code_and_no_caller_where_the_agent_acts_by_itself() {
        let decision = Some(Decision::not(ErrorCode::UNREACHABLE));
        let event = Event::Refresh { profile: "prod".to_owned(), token: None };
        let body = Entry { decision, ..Entry::own(0, event) }.body(&Head::genesis()).unwrap();
        assert!(body.ends_with("\"decision\":\"failed\",\"code\":\"unreachable\""), "{body}");
    }
}
