//! Tokens: made in the shape of a JWT, and known again when they come back.
//!
//! The signature is random bytes of the length that RS256 gives: nobody who talks to the mock
//! checks it, and the mock knows its tokens by heart.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::random;

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    SoftwareHub { username: String },
    IbmCloud { api_key: String },
    Mcsp { api_key: String },
}

/// How a token departs from the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenForm {
    Usual,
    WithoutExp,
    Opaque,
    Long(usize),
    Aged(Duration),
    Same,
}

/// A token and what its issuer says about it.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    pub(crate) token: String,
    pub(crate) expiry: Option<Expiry>,
}

/// When a token ends, in whole seconds as the services count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    /// Seconds of life left when the token was sent.
    pub(crate) expires_in: u64,
    /// Seconds since 1970.
    pub(crate) expiration: u64,
}

/// Why a bearer token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    Unknown,
    Expired,
}

/// Makes tokens and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Mint {
    /// Life of every token; `None` for what is usual on each platform.
    pub(crate) life: Option<Duration>,
    issued: HashMap<String, Issued>,
    last: HashMap<Owner, Minted>,
}

#[derive(Debug)]
struct Issued {
    owner: Owner,
    expiration: Option<u64>,
}

impl Mint {
    pub(crate) fn new(life: Option<Duration>) -> Self {
        Self { life, ..Self::default() }
    }

    /// Returns a token for `owner` with `claims`, to which the times and a `jti` are added.
    pub(crate) fn issue(
        &mut self,
        owner: &Owner,
        claims: Value,
        usual_life: Duration,
        now: SystemTime,
        form: TokenForm,
    ) -> Minted {
        if let (TokenForm::Same, Some(last)) = (form, self.last.get(owner)) {
            return last.clone();
        }
        let minted = make(claims, self.life.unwrap_or(usual_life), now, form);
        let expiration = minted.expiry.map(|expiry| expiry.expiration);
        self.issued.insert(minted.token.clone(), Issued { owner: owner.clone(), expiration });
        self.last.insert(owner.clone(), minted.clone());
        minted
    }

    /// Makes every token of `owner` worthless.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.issued.retain(|_, issued| issued.owner != *owner);
    }

    /// Returns whose `token` it is, while it lives.
    pub(crate) fn owner(&self, token: &str, now: SystemTime) -> Result<&Owner, BadToken> {
        let issued = self.issued.get(token).ok_or(BadToken::Unknown)?;
        match issued.expiration {
            Some(expiration) if epoch_seconds(now) >= expiration => Err(BadToken::Expired),
            _ => Ok(&issued.owner),
        }
    }
}

fn make(mut claims: Value, life: Duration, now: SystemTime, form: TokenForm) -> Minted {
    let age = if let TokenForm::Aged(age) = form { age } else { Duration::ZERO };
    let issued_at = epoch_seconds(now.checked_sub(age).unwrap_or(now));
    let expiration = issued_at + life.as_secs();
    let expiry = Expiry { expires_in: expiration.saturating_sub(epoch_seconds(now)), expiration };
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("iat".into(), issued_at.into());
        claims.insert("jti".into(), random::id().into());
        if form != TokenForm::WithoutExp {
            claims.insert("exp".into(), expiration.into());
        }
    }
    let token = match form {
        TokenForm::Opaque => random::id(),
        TokenForm::Long(len) => padded(claims, len),
        TokenForm::Usual | TokenForm::WithoutExp | TokenForm::Aged(_) | TokenForm::Same => jwt(&claims),
    };
    Minted { token, expiry: (form != TokenForm::WithoutExp).then_some(expiry) }
}

/// Returns `claims` as a JWT of at least `len` bytes, exact to four.
fn padded(mut claims: Value, len: usize) -> String {
    let missing = len.saturating_sub(jwt(&claims).len());
    if let Some(claims) = claims.as_object_mut() {
        // Base64 makes four bytes of three.
        claims.insert("padding".into(), "x".repeat(missing * 3 / 4).into());
    }
    jwt(&claims)
}

fn jwt(claims: &Value) -> String {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({ "alg": "RS256", "typ": "JWT" }).to_string();
    let claims = claims.to_string();
    format!("{}.{}.{}", part(header.as_bytes()), part(claims.as_bytes()), part(&random::bytes::<256>()))
}

/// Returns the whole seconds of `time` since 1970.
pub(crate) fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn owner() -> Owner {
        Owner::SoftwareHub { username: "alice".into() }
    }

    #[test]
    fn a_token_is_known_until_the_second_of_its_exp() {
        let mut mint = Mint::default();
        let minted = mint.issue(&owner(), json!({}), LIFE, at(1000), TokenForm::Usual);
        assert_eq!(mint.owner(&minted.token, at(1059)), Ok(&owner()));
        assert_eq!(mint.owner(&minted.token, at(1060)), Err(BadToken::Expired));
        assert_eq!(mint.owner("forged", at(1000)), Err(BadToken::Unknown));
    }

    #[test]
    fn tokens_of_one_moment_differ_unless_the_same_one_is_asked_for() {
        let mut mint = Mint::default();
        let mut issue = |form| mint.issue(&owner(), json!({}), LIFE, at(1000), form).token;
        let (first, second) = (issue(TokenForm::Usual), issue(TokenForm::Usual));
        assert_ne!(first, second);
        assert_eq!(issue(TokenForm::Same), second);
    }

    #[test]
    fn an_aged_token_has_its_whole_life_in_its_claims_and_less_of_it_left() {
        let mut mint = Mint::default();
        let form = TokenForm::Aged(Duration::from_secs(45));
        let expiry = mint.issue(&owner(), json!({}), LIFE, at(1000), form).expiry.unwrap();
        assert_eq!((expiry.expires_in, expiry.expiration), (15, 1015));
    }

    #[test]
    fn a_long_token_is_as_long_as_asked() {
        let mut mint = Mint::default();
        let len = mint.issue(&owner(), json!({}), LIFE, at(1000), TokenForm::Long(50_000)).token.len();
        assert!((50_000..50_100).contains(&len), "{len}");
    }
}
