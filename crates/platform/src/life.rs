//! How long a token has to live, from all that an answer tells about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::TokenText;

/// Longer lives are cut down to this, so that sums of times stay in range.
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Longest JWT payload that is looked into: some carry ten thousand groups, none megabytes.
const MAX_PAYLOAD_LEN: usize = 192 * 1024;

/// What an answer tells beside the token, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Life from the answer on.
    pub(crate) expires_in: Option<f64>,
    /// End of life, since 1970.
    pub(crate) expiration: Option<f64>,
}

/// Returns the life that remained when the answer was made: the least of `expires_in`, the token's
/// exp − iat, and its end held against the server's `Date`.
///
/// A reading that is not above zero is left out: nobody sells a dead token, so two clocks disagree
/// there. Nothing but such readings is as good as nothing told.
pub(crate) fn remaining(token: &TokenText, told: Told, date: Option<SystemTime>) -> Option<Duration> {
    let claims = Claims::of(token.expose()).unwrap_or_default();
    let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs_f64());
    let readings = [
        told.expires_in,
        minus(claims.exp, claims.iat.or(claims.nbf)),
        minus(claims.exp, date),
        minus(told.expiration, date),
    ];
    let least = readings.into_iter().flatten().filter(|&seconds| seconds > 0.0).reduce(f64::min)?;
    Some(Duration::try_from_secs_f64(least).map_or(MAX_LIFE, |life| life.min(MAX_LIFE)))
}

/// Reads a count of seconds, whole or not, written as a number or as a text.
pub(crate) fn seconds(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|seconds| seconds.is_finite())
}

#[derive(Default)]
struct Claims {
    exp: Option<f64>,
    iat: Option<f64>,
    nbf: Option<f64>,
}

impl Claims {
    /// Reads the payload of a JWT. Its signature is for those who rely on what it claims: here it
    /// only decides when to buy the next one.
    fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || payload.len() > MAX_PAYLOAD_LEN {
            return None;
        }
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
        let payload: Payload = serde_json::from_slice(&json).ok()?;
        let [exp, iat, nbf] = [payload.exp, payload.iat, payload.nbf].map(|claim| seconds(&claim));
        Some(Self { exp, iat, nbf })
    }
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    iat: Value,
    #[serde(default)]
    nbf: Value,
}

fn minus(end: Option<f64>, start: Option<f64>) -> Option<f64> {
    Some(end? - start?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a JWT with this payload.
    pub(crate) fn jwt(payload: &str) -> TokenText {
        let [header, payload] = [r#"{"alg":"RS256"}"#, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
        TokenText::new(format!("{header}.{payload}.c2ln"))
    }

    fn life(payload: &str, expires_in: Option<f64>, date: Option<u64>) -> Option<f64> {
        let told = Told { expires_in, expiration: None };
        let date = date.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        remaining(&jwt(payload), told, date).map(|life| life.as_secs_f64())
    }

    #[test]
    fn the_least_reading_counts() {
        let claims = r#"{"exp":5000,"iat":1400}"#;
        assert_eq!(life(claims, None, None), Some(3600.0));
        assert_eq!(life(claims, Some(3000.0), None), Some(3000.0));
        assert_eq!(life(claims, Some(3000.0), Some(4000)), Some(1000.0), "bought aged");
        assert_eq!(life(claims, Some(7200.0), Some(100)), Some(3600.0), "date before iat");
    }

    #[test]
    fn an_end_before_the_servers_own_date_is_a_clock_that_is_wrong() {
        let claims = r#"{"exp":5000,"iat":1400}"#;
        assert_eq!(life(claims, None, Some(5000)), Some(3600.0));
        assert_eq!(life(claims, None, Some(99_999)), Some(3600.0));
        assert_eq!(life(r#"{"exp":5000}"#, None, Some(99_999)), None);
        assert_eq!(life(r#"{"exp":1400,"iat":5000}"#, Some(60.0), None), Some(60.0));
        assert_eq!(life("{}", Some(0.0), None), None);
        assert_eq!(life("{}", Some(-5.0), None), None);
    }

    #[test]
    fn claims_may_be_fractions_texts_or_missing() {
        assert_eq!(life(r#"{"exp":10.5,"iat":4}"#, None, None), Some(6.5));
        assert_eq!(life(r#"{"exp":"10","iat":4e0}"#, None, None), Some(6.0));
        assert_eq!(life(r#"{"exp":10,"nbf":4}"#, None, None), Some(6.0));
        assert_eq!(life(r#"{"exp":10}"#, None, Some(7)), Some(3.0));
        assert_eq!(life(r#"{"exp":null,"iat":[],"nbf":{}}"#, None, Some(7)), None);
        assert_eq!(life(r#"{"exp":"inf","iat":"NaN"}"#, None, Some(7)), None);
    }

    #[test]
    fn an_absurd_life_is_cut() {
        let year = Some(MAX_LIFE.as_secs_f64());
        assert_eq!(life(r#"{"exp":1e300,"iat":1}"#, None, None), year);
        assert_eq!(life("{}", Some(f64::MAX), None), year);
        assert_eq!(life("{}", Some(f64::INFINITY), None), year);
    }

    #[test]
    fn the_end_told_beside_the_token_is_held_against_the_servers_date() {
        let told = Told { expires_in: Some(3600.0), expiration: Some(5000.0) };
        let date = Some(UNIX_EPOCH + Duration::from_secs(4990));
        let opaque = TokenText::new("opaque".into());
        assert_eq!(remaining(&opaque, told, date), Some(Duration::from_secs(10)));
        assert_eq!(remaining(&opaque, told, None), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_no_jwt_claims_nothing() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":9,"iat":1}"#);
        let padded = format!("h.{payload}=.s");
        assert!(Claims::of(&padded).is_some());
        let long = format!("h.{}.s", "A".repeat(MAX_PAYLOAD_LEN + 1));
        for bad in
            ["", ".", "..", "a.b", "a.b.c", &format!("h.{payload}"), &format!("h.{payload}.s.t"), &long]
        {
            assert!(Claims::of(bad).is_none(), "{}", &bad[..bad.len().min(40)]);
        }
    }
}
