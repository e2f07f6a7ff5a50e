//! MCSP, the account service of IBM's software on AWS and in GovCloud: a key for a JWT.

mod wire;

use url::Url;

use crate::{
    ApiKey, BaseUrl, Misconfiguration, Platform, PlatformError, Scope, Token,
    answer::{Answer, Request},
    life::{self, seconds},
};

pub(crate) struct Mcsp<'a> {
    pub(crate) scope: Option<&'a Scope>,
}

/// What IBM's SDKs send with a scoped request: roles in the token, but no lists of actions.
const SCOPED_QUERY: &str = "includeBuiltinActions=false&includeCustomActions=false\
                            &includeRoles=true&prefixRolesWithDefinitionScope=false";

impl Platform for Mcsp<'_> {
    fn request(&self, auth_url: &BaseUrl, key: &ApiKey) -> Result<Request, Misconfiguration> {
        let body = wire::Exchange { apikey: key.expose() };
        Ok(Request::json(self.url(auth_url)?, &body, key.expose().len()))
    }

    fn read(&self, answer: &Answer) -> Result<Token, PlatformError> {
        match answer.status {
            // IBM's own tests expect a 400 for a key that is not accepted; a page comes from elsewhere.
            400 if !answer.is_html => Err(answer.refused()),
            _ if answer.is_success() => token(answer),
            _ => Err(answer.failure(None)),
        }
    }
}

impl Mcsp<'_> {
    /// Chooses the version by the address, since a service offers only one.
    fn url(&self, auth_url: &BaseUrl) -> Result<Url, Misconfiguration> {
        let path = auth_url.path();
        let whole = path.ends_with("/apikeys/token");
        if self.scope.is_some() && (whole || path.ends_with("/siusermgr")) {
            return Err(Misconfiguration::ScopeNotTaken { url: auth_url.to_string() });
        }
        if whole {
            return Ok(auth_url.with_path(path));
        }
        if path.ends_with("/siusermgr") {
            return Ok(auth_url.with_path(&format!("{path}/api/1.0/apikeys/token")));
        }
        Ok(self.version_2(auth_url))
    }

    fn version_2(&self, auth_url: &BaseUrl) -> Url {
        let path = auth_url.path();
        let Some(scope) = self.scope else {
            return auth_url.with_path(&format!("{path}/api/2.0/apikeys/token"));
        };
        let mut url = auth_url.with_path(&format!("{path}/api/2.0/{scope}/apikeys/token"));
        url.set_query(Some(SCOPED_QUERY));
        url
    }
}

fn token(answer: &Answer) -> Result<Token, PlatformError> {
    let exchanged: wire::Exchanged = answer.json()?;
    let told =
        life::Told { expires_in: seconds(&exchanged.expires_in), expiration: seconds(&exchanged.expiration) };
    answer.token(exchanged.token, told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Refusal, answer::tests::answer, life::tests::jwt};

    const HOST: &str = "https://account-iam.platform.saas.ibm.com";

    fn url(auth_url: &str, scope: Option<&str>) -> Result<String, Misconfiguration> {
        let scope = scope.map(|text| text.parse().unwrap());
        let key = ApiKey::new("k".into());
        let auth_url = BaseUrl::parse(auth_url).unwrap();
        let request = Mcsp { scope: scope.as_ref() }.request(&auth_url, &key)?;
        assert_eq!(*request.body, br#"{"apikey":"k"}"#);
        Ok(request.url.to_string())
    }

    fn read(status: u16, body: &str) -> Result<Token, PlatformError> {
        Mcsp { scope: None }.read(&answer(status, &[], body))
    }

    #[test]
    fn the_address_chooses_the_version() {
        let called = |path| Ok(format!("{HOST}{path}"));
        assert_eq!(url(HOST, None), called("/api/2.0/apikeys/token"));
        assert_eq!(
            url(HOST, Some("services/1234")),
            called(
                "/api/2.0/services/1234/apikeys/token?includeBuiltinActions=false\
                 &includeCustomActions=false&includeRoles=true&prefixRolesWithDefinitionScope=false"
            )
        );
        assert_eq!(url(&format!("{HOST}/siusermgr/"), None), called("/siusermgr/api/1.0/apikeys/token"));
    }

    #[test]
    fn a_whole_path_is_called_as_it_stands() {
        let gateway = "https://us-east-1.aws.data.ibm.com/api/rest/mcsp/apikeys/token";
        assert_eq!(url(gateway, None).as_deref(), Ok(gateway));
    }

    #[test]
    fn a_scope_is_not_dropped_where_the_address_takes_none() {
        for auth_url in [format!("{HOST}/siusermgr"), format!("{HOST}/api/rest/mcsp/apikeys/token")] {
            let wrong = Misconfiguration::ScopeNotTaken { url: auth_url.clone() };
            assert_eq!(url(&auth_url, Some("accounts/1")), Err(wrong));
        }
    }

    #[test]
    fn success_is_read_with_and_without_an_expiry_beside_the_token() {
        let token = jwt(r#"{"exp":8000,"iat":800,"nbf":800}"#);
        for rest in
            [r#","token_type":"Bearer","expires_in":7200,"expiration":8000"#, r#","expires_in":7200"#, ""]
        {
            let bought = read(200, &format!(r#"{{"token":"{}"{rest}}}"#, token.expose())).unwrap();
            assert_eq!(
                (bought.value, bought.life),
                (jwt(r#"{"exp":8000,"iat":800,"nbf":800}"#), Some(Duration::from_secs(7200)))
            );
        }
    }

    #[test]
    fn status_400_and_401_refuse_the_key() {
        for status in [400, 401] {
            let refused = PlatformError::Refused { reason: Refusal::Status(status) };
            assert_eq!(read(status, r#"{"message":"no"}"#), Err(refused));
        }
        assert!(matches!(read(400, "<html>"), Err(PlatformError::Misconfigured(_))));
        assert!(matches!(
            read(404, "{}"),
            Err(PlatformError::Misconfigured(Misconfiguration::NotFound { .. }))
        ));
    }
}
