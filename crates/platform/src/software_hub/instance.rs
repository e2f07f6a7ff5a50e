//! A service instance of Software Hub: a user name and a key for a token of this instance alone.

use std::{fmt, str::FromStr};

use reqwest::{Method, header::AUTHORIZATION};

use super::{failure, front_door, pair, wire};
use crate::{
    ApiKey, BaseUrl, Misconfiguration, Platform, PlatformError, Token,
    answer::{Answer, Request},
    life,
    text::is_path_segment,
};

const MAX_ID_LEN: usize = 128;

/// Names a service instance, as the web client and `/zen-data/v3/service_instances` do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(String);

/// Says how an instance is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance id is made of letters, digits and `-._~:`, 128 at most")]
pub struct InstanceIdError;

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        if text.len() > MAX_ID_LEN || !is_path_segment(text) {
            return Err(InstanceIdError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sells tokens of one instance, by the call that IBM's Java SDK makes
/// (`CloudPakForDataServiceInstanceAuthenticator`).
pub(crate) struct Instance<'a> {
    pub(crate) username: &'a str,
    pub(crate) id: &'a InstanceId,
}

impl Platform for Instance<'_> {
    fn request(&self, auth_url: &BaseUrl, key: &ApiKey) -> Result<Request, Misconfiguration> {
        let front_door = front_door(auth_url.path());
        let url =
            auth_url.with_path(&format!("{front_door}/zen-data/v3/service_instances/{}/token", self.id));
        let pair = pair::encoded("Basic ", self.username, key);
        // Base64 always fits into a header.
        Request::new(Method::GET, url).with_secret(AUTHORIZATION, pair).ok_or(Misconfiguration::NoKey)
    }

    fn read(&self, answer: &Answer) -> Result<Token, PlatformError> {
        if !answer.is_success() {
            return Err(failure(answer));
        }
        let sold: wire::Instance = answer.json()?;
        answer.token(sold.data.and_then(|data| data.token), life::Told::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Refusal, answer::tests::answer, life::tests::jwt};

    fn with_instance<T>(work: impl FnOnce(Instance<'_>) -> T) -> T {
        work(Instance { username: "alice", id: &"1718282382782782".parse().unwrap() })
    }

    fn read(status: u16, body: &str) -> Result<Token, PlatformError> {
        with_instance(|instance| instance.read(&answer(status, &[], body)))
    }

    #[test]
    fn the_request_is_the_java_sdks() {
        for auth_url in ["https://cpd.example.com", "https://cpd.example.com/zen-data/"] {
            let auth_url = BaseUrl::parse(auth_url).unwrap();
            let request = with_instance(|it| it.request(&auth_url, &ApiKey::new("key".into()))).unwrap();
            assert_eq!(request.method, Method::GET);
            assert_eq!(
                request.url.as_str(),
                "https://cpd.example.com/zen-data/v3/service_instances/1718282382782782/token"
            );
            assert_eq!(request.headers[AUTHORIZATION], "Basic YWxpY2U6a2V5");
            assert!(request.headers[AUTHORIZATION].is_sensitive());
            assert!(request.body.is_empty());
        }
    }

    #[test]
    fn the_token_lies_one_level_down() {
        let token = jwt(r#"{"exp":43165,"iat":1}"#);
        let body = format!(
            r#"{{"_messageCode_":"success","data":{{"token":"{}"}},"message":"Success in getting instance token"}}"#,
            token.expose()
        );
        let bought = read(200, &body).unwrap();
        assert_eq!((bought.value, bought.life), (token, Some(Duration::from_secs(43164))));
        for empty in ["{}", r#"{"data":null}"#, r#"{"data":{}}"#, r#"{"token":"abc"}"#] {
            assert_eq!(read(200, empty), Err(Misconfiguration::NoToken.into()), "{empty}");
        }
    }

    #[test]
    fn a_refused_key_and_an_unknown_instance_are_told_apart() {
        assert_eq!(read(401, "no"), Err(PlatformError::Refused { reason: Refusal::Status(401) }));
        assert!(matches!(
            read(404, "{}"),
            Err(PlatformError::Misconfigured(Misconfiguration::NotFound { .. }))
        ));
    }

    #[test]
    fn an_id_cannot_climb_out_of_its_place_in_the_path() {
        for bad in ["", "..", "a/b", "a?b", "a%2fb", "ä", &"1".repeat(129)] {
            assert_eq!(bad.parse::<InstanceId>(), Err(InstanceIdError), "{bad}");
        }
    }
}
