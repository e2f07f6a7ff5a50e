//! Error codes: numbers that never change their meaning.

use crate::open_set::open_set;

open_set! {
    /// Why a request failed; the client derives its exit status from it.
    ErrorCode {
        /// Failed for a reason that has no number of its own.
        FAILED = 1 "failed",
        /// The request cannot be carried out as it was put, for example a profile name that is not one.
        BAD_REQUEST = 2 "bad-request",
        /// Several profiles, no default, none named.
        AMBIGUOUS_PROFILE = 3 "ambiguous-profile",
        /// The agent is locked.
        LOCKED = 4 "locked",
        /// There is no profile of that name, or none for that URL.
        NO_SUCH_PROFILE = 5 "no-such-profile",
        /// The profile holds no key.
        NO_KEY = 6 "no-key",
        /// The platform refused the key.
        KEY_REFUSED = 7 "key-refused",
        /// The platform returned the very token that the caller had rejected.
        STILL_REJECTED = 8 "still-rejected",
        /// The platform cannot be reached, or failed.
        UNREACHABLE = 9 "unreachable",
        /// The platform asked for fewer requests.
        THROTTLED = 10 "throttled",
        /// Refused by policy.
        DENIED = 11 "denied",
        /// The work was still running at the deadline.
        DEADLINE = 12 "deadline",
        /// The platform has no interface for what was asked.
        UNSUPPORTED = 13 "unsupported",
        /// URL, certificate or configuration is wrong, or the platform's answer makes no sense.
        MISCONFIGURED = 14 "misconfigured",
        /// The configuration says something else than when the key was given.
        ORIGIN_CHANGED = 15 "origin-changed",
        /// The key source cannot be read now.
        SOURCE_UNAVAILABLE = 16 "source-unavailable",
        /// The platform's tokens do not live as long as was asked.
        LIFE_TOO_SHORT = 17 "life-too-short",
        /// Too much is waiting already.
        BUSY = 18 "busy",
        /// This agent does not know that request kind.
        UNKNOWN_REQUEST = 19 "unknown-request",
        /// The token does not fit into a reply.
        TOKEN_TOO_LARGE = 20 "token-too-large",
        /// Something of that name exists and would be changed; say so explicitly.
        EXISTS = 21 "exists",
        /// The agent is shutting down.
        STOPPING = 22 "stopping",
        /// The configuration file cannot be read or written.
        CONFIG = 23 "config",
        /// The passphrase does not open the lock.
        WRONG_PASSPHRASE = 24 "wrong-passphrase",
    }
}
