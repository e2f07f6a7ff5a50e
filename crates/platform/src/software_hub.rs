//! IBM Software Hub, formerly Cloud Pak for Data: a user name and a key for a JWT.

pub(crate) mod instance;
pub(crate) mod keys;
pub(crate) mod pair;
mod wire;

use crate::{
    ApiKey, BaseUrl, Misconfiguration, Platform, PlatformError, Token,
    answer::{Answer, Request},
    life,
};

pub(crate) struct SoftwareHub<'a> {
    pub(crate) username: &'a str,
}

impl Platform for SoftwareHub<'_> {
    fn request(&self, auth_url: &BaseUrl, key: &ApiKey) -> Result<Request, Misconfiguration> {
        let body = wire::Authorize { username: self.username, api_key: key.expose() };
        let path = format!("{}/icp4d-api/v1/authorize", front_door(auth_url.path()));
        Ok(Request::json(auth_url.with_path(&path), &body, self.username.len() + key.expose().len()))
    }

    fn read(&self, answer: &Answer) -> Result<Token, PlatformError> {
        if !answer.is_success() {
            return Err(failure(answer));
        }
        let authorized: wire::Authorized = answer.json()?;
        answer.token(authorized.token.or(authorized.access_token), life::Told::default())
    }
}

/// Takes off what IBM's SDKs want in their `AUTH_URL`: `/icp4d-api`, some with `/v1/authorize`; for a
/// service instance `/zen-data`.
fn front_door(path: &str) -> &str {
    let path = path.strip_suffix("/v1/authorize").unwrap_or(path);
    ["/icp4d-api", "/zen-data"].into_iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path)
}

/// A request that does not validate is answered like a crash, and told apart by its code.
const INVALID: u16 = 602;

fn failure(answer: &Answer) -> PlatformError {
    match answer.parse() {
        Some(wire::Failed { code: INVALID }) if answer.status == 500 => {
            Misconfiguration::Invalid { code: INVALID }.into()
        }
        _ => answer.failure(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Cause, Refusal, answer::tests::answer, life::tests::jwt};

    const ALICE: SoftwareHub<'_> = SoftwareHub { username: "alice" };

    fn read(status: u16, body: &str) -> Result<Token, PlatformError> {
        ALICE.read(&answer(status, &[], body))
    }

    #[test]
    fn the_request_is_the_documented_one() {
        let key = ApiKey::new("k\"ey".into());
        for auth_url in [
            "https://cpd.example.com",
            "https://cpd.example.com/icp4d-api/",
            "https://cpd.example.com/icp4d-api/v1/authorize",
            "https://cpd.example.com/zen-data",
        ] {
            let request = ALICE.request(&BaseUrl::parse(auth_url).unwrap(), &key).unwrap();
            assert_eq!(request.url.as_str(), "https://cpd.example.com/icp4d-api/v1/authorize");
            assert_eq!(request.headers["content-type"], "application/json");
            assert_eq!(*request.body, br#"{"username":"alice","api_key":"k\"ey"}"#);
        }
    }

    #[test]
    fn every_documented_success_is_read() {
        let token = jwt(r#"{"exp":43165,"iat":1}"#);
        let text = token.expose();
        for body in [
            format!(r#"{{"_messageCode_":"200","message":"Success","token":"{text}"}}"#),
            format!(r#"{{"token":"{text}","message":"success","_messageCode_":"success"}}"#),
            format!(r#"{{"_messageCode_":"200","message":"Success","accessToken":"{text}"}}"#),
            format!(r#"{{"token":null,"accessToken":"{text}","_messageCode_":401}}"#),
        ] {
            let bought = read(200, &body).unwrap();
            assert_eq!(bought.value, token);
            assert_eq!(bought.life, Some(Duration::from_secs(43164)));
        }
    }

    #[test]
    fn a_401_refuses_the_key_whatever_its_body() {
        for body in ["Sorry you are not authorized", r#"{"message":"User unauthorized"}"#, "", "<html>"] {
            assert_eq!(read(401, body), Err(PlatformError::Refused { reason: Refusal::Status(401) }));
        }
        assert_eq!(read(403, "{}"), Err(PlatformError::Forbidden));
    }

    #[test]
    fn a_500_with_code_602_is_not_an_outage() {
        let body = r#"{"code":602,"message":"properties.username in body is required"}"#;
        assert_eq!(read(500, body), Err(Misconfiguration::Invalid { code: 602 }.into()));
        let outage = PlatformError::Unreachable { cause: Cause::Status(500), retry_after: None };
        assert_eq!(read(500, r#"{"code":500}"#), Err(outage.clone()));
        assert_eq!(read(500, "oops"), Err(outage));
    }

    #[test]
    fn a_success_without_a_usable_token_is_a_misconfiguration() {
        for (body, wrong) in [
            ("{}", Misconfiguration::NoToken),
            (r#"{"token":null}"#, Misconfiguration::NoToken),
            (r#"{"token":""}"#, Misconfiguration::BadToken),
            (r#"{"token":"a b"}"#, Misconfiguration::BadToken),
            (r#"{"token":"a\r\nX: y"}"#, Misconfiguration::BadToken),
            (r#"{"token":"ä"}"#, Misconfiguration::BadToken),
            (r#"{"token":7}"#, Misconfiguration::NotJson),
            ("", Misconfiguration::NotJson),
            ("garbage", Misconfiguration::NotJson),
        ] {
            assert_eq!(read(200, body), Err(wrong.into()), "{body}");
        }
    }
}
