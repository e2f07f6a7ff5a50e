//! IBM Cloud: a key for a token of IAM.

pub(crate) mod keys;
mod wire;

use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::{
    ApiKey, BaseUrl, IamCode, Misconfiguration, Platform, PlatformError, Refusal, Token,
    answer::{Answer, Request},
    life::{self, seconds},
};

pub(crate) struct IbmCloud;

/// What IAM says of a key that it does not find, that was disabled, and that is another account's;
/// each with a status that it uses for other faults of a request, too.
const KEY_CODES: [&str; 3] = ["BXNIM0415E", "BXNIM0462E", "BXNIM0410E"];

const GRANT_TYPE: &str = "urn:ibm:params:oauth:grant-type:apikey";

impl Platform for IbmCloud {
    fn request(&self, auth_url: &BaseUrl, key: &ApiKey) -> Result<Request, Misconfiguration> {
        let url = auth_url.with_path(&format!("{}/identity/token", front_door(auth_url.path())));
        Ok(Request::post(url, "application/x-www-form-urlencoded", form(key)))
    }

    fn read(&self, answer: &Answer) -> Result<Token, PlatformError> {
        if !answer.is_success() {
            return Err(failure(answer));
        }
        let granted: wire::Granted = answer.json()?;
        let told =
            life::Told { expires_in: seconds(&granted.expires_in), expiration: seconds(&granted.expiration) };
        answer.token(granted.access_token, told)
    }
}

fn front_door(path: &str) -> &str {
    let path = path.strip_suffix("/token").unwrap_or(path);
    path.strip_suffix("/identity").unwrap_or(path)
}

fn form(key: &ApiKey) -> Zeroizing<Vec<u8>> {
    // Room for every byte percent-encoded, so that the text does not move and leave a copy behind.
    let text = String::with_capacity(3 * key.expose().len() + 128);
    let form = Serializer::new(text)
        .append_pair("grant_type", GRANT_TYPE)
        .append_pair("response_type", "cloud_iam")
        .append_pair("apikey", key.expose())
        .finish();
    Zeroizing::new(form.into_bytes())
}

fn failure(answer: &Answer) -> PlatformError {
    let failed: wire::Failed = answer.parse().unwrap_or_default();
    let code = failed.code().and_then(IamCode::parse);
    match (answer.status, code) {
        (400 | 401, Some(code)) if is_about_the_key(code) => {
            PlatformError::Refused { reason: Refusal::Code(code) }
        }
        (_, code) => answer.failure(code),
    }
}

fn is_about_the_key(code: IamCode) -> bool {
    KEY_CODES.into_iter().any(|known| IamCode::parse(known) == Some(code))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{RetryAfter, answer::tests::answer};

    fn read(status: u16, body: &str) -> Result<Token, PlatformError> {
        IbmCloud.read(&answer(status, &[], body))
    }

    #[test]
    fn the_request_is_the_documented_one() {
        let key = ApiKey::new("a+b &c=\"ä".into());
        for auth_url in [
            "https://iam.cloud.ibm.com",
            "https://iam.cloud.ibm.com/identity",
            "https://iam.cloud.ibm.com/identity/token",
        ] {
            let request = IbmCloud.request(&BaseUrl::parse(auth_url).unwrap(), &key).unwrap();
            assert_eq!(request.url.as_str(), "https://iam.cloud.ibm.com/identity/token");
            assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
            assert_eq!(
                String::from_utf8_lossy(&request.body),
                "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&response_type=cloud_iam\
                 &apikey=a%2Bb+%26c%3D%22%C3%A4"
            );
        }
    }

    #[test]
    fn a_form_keeps_its_place_in_memory() {
        let body = form(&ApiKey::new("&".repeat(300)));
        assert_eq!(body.capacity(), 3 * 300 + 128);
        assert!(body.len() < body.capacity());
    }

    #[test]
    fn the_documented_success_is_read() {
        let body = r#"{"access_token":"abc","refresh_token":"not_supported","ims_user_id":7,
            "token_type":"Bearer","expires_in":3600,"expiration":1748619938,"scope":"ibm openid"}"#;
        let token = read(200, body).unwrap();
        assert_eq!(token.value.expose(), "abc");
        assert_eq!(token.life, Some(Duration::from_secs(3600)));
        assert_eq!(read(200, r#"{"access_token":"abc"}"#).unwrap().life, None);
        assert_eq!(read(200, r#"{"token":"abc"}"#), Err(Misconfiguration::NoToken.into()));
    }

    #[test]
    fn codes_about_the_key_refuse_it() {
        for code in KEY_CODES {
            let reason = Refusal::Code(IamCode::parse(code).unwrap());
            let body =
                format!(r#"{{"errorCode":"{code}","errorMessage":"no","context":{{"requestId":"1"}}}}"#);
            assert_eq!(read(400, &body), Err(PlatformError::Refused { reason }));
            assert_eq!(read(401, &body), Err(PlatformError::Refused { reason }));
        }
        assert_eq!(read(401, "no"), Err(PlatformError::Refused { reason: Refusal::Status(401) }));
    }

    #[test]
    fn any_other_400_is_a_misconfiguration_that_shows_its_code() {
        let code_of = |body| match read(400, body) {
            Err(PlatformError::Misconfigured(Misconfiguration::Status { status: 400, code, .. })) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code_of(r#"{"errorCode":"BXNIM0106E"}"#), IamCode::parse("BXNIM0106E"));
        assert_eq!(code_of(r#"{"errorCode":"the key s3cret is bad"}"#), None);
        assert_eq!(code_of("Bad Request"), None);
    }

    #[test]
    fn throttling_is_no_refusal() {
        let throttled = answer(429, &[("retry-after", "30")], r#"{"errorCode":"BXNIM0415E"}"#);
        let retry_after = Some(RetryAfter::In(Duration::from_secs(30)));
        assert_eq!(IbmCloud.read(&throttled), Err(PlatformError::Throttled { retry_after }));
    }
}
