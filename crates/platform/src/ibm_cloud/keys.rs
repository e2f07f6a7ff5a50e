//! IAM's calls about keys: describe, list, make and delete, as IBM's platform SDKs make them
//! (`iam_identity_v1`).

use std::{fmt, str::FromStr};

use reqwest::{Method, header::HeaderName};
use url::{Url, form_urlencoded};

use super::{failure, front_door, wire};
use crate::{
    ApiKey, CallError, Misconfiguration, PlatformError, Refusal, Target, TokenText,
    answer::{Answer, Request, joined},
    http,
    text::printable,
    time,
};

/// The most keys that IAM tells at once.
const PAGE_LEN: &str = "100";

/// More pages than any user has; a server that goes on and on is not listened to for ever.
const MAX_PAGES: usize = 20;

const MAX_NAME_LEN: usize = 256;
const MAX_ID_LEN: usize = 128;

/// Describes, lists, makes and deletes keys at IBM Cloud, where a user has several.
#[derive(Clone, Copy, Debug)]
pub struct IamKeys<'a> {
    target: &'a Target,
}

/// What IAM knows of a key; the key itself is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDetails {
    /// How IAM calls the key.
    pub id: KeyId,
    /// How its owner calls it, fit to print. Names need not differ.
    pub name: String,
    /// Whether it can be neither changed nor deleted until it is unlocked.
    pub locked: bool,
    /// Whether it buys nothing until it is enabled.
    pub disabled: bool,
    /// Whose it is.
    pub iam_id: String,
    /// In which account.
    pub account_id: String,
    /// When it was made, in seconds since 1970, where IAM says so.
    pub created_at: Option<i64>,
    /// When it ends, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
}

impl KeyDetails {
    /// Returns when a key ends that is made `now` in place of this one: after as long as this one was made for,
    /// or with it where that is not known.
    #[must_use]
    pub fn end_of_successor(&self, now: i64) -> Option<i64> {
        let end = self.expires_at?;
        Some(self.created_at.map_or(end, |made| now.saturating_add(end.saturating_sub(made))))
    }
}

/// Names a key at IAM: `ApiKey-` and what follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(String);

/// Says what the name of a key looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key is `ApiKey-` with letters, digits and hyphens")]
pub struct KeyIdError;

/// A key that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    /// How its owner will call it.
    pub name: &'a str,
    /// What its owner will read beside it.
    pub description: &'a str,
    /// Whose it will be.
    pub iam_id: &'a str,
    /// In which account.
    pub account_id: &'a str,
    /// The key itself, which IAM takes from us: at least 32 characters.
    pub key: &'a ApiKey,
    /// When it ends, in seconds since 1970, to the minute; `None` for never.
    pub expires_at: Option<i64>,
}

/// How a key that was to be deleted is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// By this call.
    Done,
    /// There was none any more.
    GoneBefore,
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let rest = text.strip_prefix("ApiKey-").ok_or(KeyIdError)?;
        let fits = (1..=MAX_ID_LEN).contains(&rest.len());
        if !fits || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(KeyIdError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> IamKeys<'a> {
    pub(crate) fn new(target: &'a Target) -> Self {
        Self { target }
    }

    /// Describes `key` to the owner of `bearer`.
    ///
    /// # Errors
    ///
    /// See [`PlatformError`].
    pub async fn details(&self, bearer: &TokenText, key: &ApiKey) -> Result<KeyDetails, PlatformError> {
        let request = self.details_request(bearer, key)?;
        let answer = Box::pin(http::send(self.target, request, http::TIMEOUTS)).await?;
        read_details(&answer)
    }

    /// Finds the keys of this user in this account that have exactly this name.
    ///
    /// # Errors
    ///
    /// See [`PlatformError`]. A list that does not end is [too large](Misconfiguration::TooLarge): part
    /// of a list would look as if a key were not there.
    pub async fn find(
        &self,
        bearer: &TokenText,
        account_id: &str,
        iam_id: &str,
        name: &str,
    ) -> Result<Vec<KeyDetails>, PlatformError> {
        let (mut found, mut page) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let request = self.list_request(bearer, account_id, iam_id, page.as_deref())?;
            let answer = Box::pin(http::send(self.target, request, http::TIMEOUTS)).await?;
            page = read_page(&answer, name, &mut found)?;
            if page.is_none() {
                return Ok(found);
            }
        }
        Err(Misconfiguration::TooLarge.into())
    }

    /// Makes a key for the owner of `bearer`.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. Whether an [unclear](CallError::Unclear) call made the key is told by
    /// [`find`](Self::find), if its name is one that no other key has.
    ///
    /// # Cancel safety
    ///
    /// None: dropped, it may have made the key.
    pub async fn create(&self, bearer: &TokenText, new: &NewKey<'_>) -> Result<KeyDetails, CallError> {
        let request = self.create_request(bearer, new).map_err(CallError::NotSent)?;
        let answer = Box::pin(http::send(self.target, request, http::TIMEOUTS)).await?;
        if !answer.is_success() {
            return Err(CallError::answered(failure(&answer)));
        }
        read_details(&answer).map_err(CallError::Unclear)
    }

    /// Deletes a key of the owner of `bearer`. Tokens that it bought stay valid until they end.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. A locked key is refused with status 409.
    ///
    /// # Cancel safety
    ///
    /// None: dropped, it may have deleted the key.
    pub async fn delete(&self, bearer: &TokenText, id: &KeyId) -> Result<Deletion, CallError> {
        let request = Request::new(Method::DELETE, self.url(&format!("/{id}"))).with_bearer(bearer);
        let request = request.map_err(|fault| CallError::NotSent(fault.into()))?;
        let answer = Box::pin(http::send(self.target, request, http::TIMEOUTS)).await?;
        read_deletion(&answer)
    }

    fn details_request(&self, bearer: &TokenText, key: &ApiKey) -> Result<Request, PlatformError> {
        let malformed = PlatformError::Refused { reason: Refusal::Malformed };
        if !key.is_sendable() {
            return Err(malformed);
        }
        let request = Request::new(Method::GET, self.url("/details")).with_bearer(bearer)?;
        let header = HeaderName::from_static("iam-apikey");
        request.with_secret(header, joined(&[key.expose()])).ok_or(malformed)
    }

    fn list_request(
        &self,
        bearer: &TokenText,
        account_id: &str,
        iam_id: &str,
        page: Option<&str>,
    ) -> Result<Request, PlatformError> {
        let mut url = self.url("");
        url.query_pairs_mut()
            .append_pair("account_id", account_id)
            .append_pair("iam_id", iam_id)
            .append_pair("pagesize", PAGE_LEN)
            .extend_pairs(page.map(|page| ("pagetoken", page)));
        Ok(Request::new(Method::GET, url).with_bearer(bearer)?)
    }

    fn create_request(&self, bearer: &TokenText, new: &NewKey<'_>) -> Result<Request, PlatformError> {
        if !new.key.is_sendable() {
            return Err(PlatformError::Refused { reason: Refusal::Malformed });
        }
        let body = wire::Create {
            name: new.name,
            description: new.description,
            iam_id: new.iam_id,
            account_id: new.account_id,
            apikey: new.key.expose(),
            expires_at: new.expires_at.and_then(time::iam),
        };
        let texts = [new.name, new.description, new.iam_id, new.account_id, new.key.expose()];
        let texts_len = texts.into_iter().map(str::len).sum();
        Ok(Request::json(self.url(""), &body, texts_len).with_bearer(bearer)?)
    }

    fn url(&self, rest: &str) -> Url {
        let auth_url = &self.target.auth_url;
        auth_url.with_path(&format!("{}/v1/apikeys{rest}", front_door(auth_url.path())))
    }
}

fn read_details(answer: &Answer) -> Result<KeyDetails, PlatformError> {
    if !answer.is_success() {
        return Err(failure(answer));
    }
    details(answer.json()?)
}

/// Adds the keys of this name to `found`; returns the token of the next page, if there is one.
fn read_page(
    answer: &Answer,
    name: &str,
    found: &mut Vec<KeyDetails>,
) -> Result<Option<String>, PlatformError> {
    if !answer.is_success() {
        return Err(failure(answer));
    }
    let page: wire::Page = answer.json()?;
    for key in page.apikeys.into_iter().filter(|key| key.name == name) {
        found.push(details(key)?);
    }
    page.next.filter(|next| !next.is_empty()).map(|next| page_token(&next)).transpose()
}

/// Takes from the address of the next page what names that page. The address itself is not called: it
/// could lead a bearer token anywhere.
fn page_token(next: &str) -> Result<String, PlatformError> {
    let query = next.split_once('?').map_or("", |(_, query)| query);
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "pagetoken");
    token.map(|(_, value)| value.into_owned()).ok_or_else(|| Misconfiguration::NotJson.into())
}

/// A 404 counts as gone only where IAM itself says it, and not what stands before it.
fn read_deletion(answer: &Answer) -> Result<Deletion, CallError> {
    match answer.status {
        404 if answer.parse::<wire::Errors>().is_some() => Ok(Deletion::GoneBefore),
        _ if answer.is_html && answer.is_success() => Err(CallError::Unclear(answer.nonsense().into())),
        _ if answer.is_success() => Ok(Deletion::Done),
        _ => Err(CallError::answered(failure(answer))),
    }
}

fn details(key: wire::Key) -> Result<KeyDetails, PlatformError> {
    let Ok(id) = key.id.parse() else { return Err(Misconfiguration::NotJson.into()) };
    Ok(KeyDetails {
        id,
        name: printable(&key.name, MAX_NAME_LEN),
        locked: key.locked.unwrap_or_default(),
        disabled: key.disabled.unwrap_or_default(),
        iam_id: key.iam_id,
        account_id: key.account_id,
        created_at: key.created_at.as_deref().and_then(time::parse),
        expires_at: key.expires_at.as_deref().and_then(time::parse),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{BaseUrl, CaBundle, IamCode, Kind, Proxy, Trust, answer::tests::answer};

    const URL: &str = "https://iam.cloud.ibm.com/v1/apikeys";

    fn target() -> Target {
        Target {
            kind: Kind::IbmCloud,
            auth_url: BaseUrl::parse("https://iam.cloud.ibm.com/identity/token").unwrap(),
            trust: Trust::Roots { extra: CaBundle::default() },
            proxy: Proxy::None,
        }
    }

    fn bearer() -> TokenText {
        TokenText::new("the-token".into())
    }

    fn key(name: &str, more: &Value) -> Value {
        let mut key = json!({
            "context": { "transaction_id": "x" },
            "id": "ApiKey-b2e1a1b4-0000-4000-8000-000000000001",
            "entity_tag": "1-a",
            "crn": "crn:v1:bluemix:public:iam-identity::a/1::apikey:ApiKey-b2e1",
            "locked": false,
            "created_at": "2026-11-24T15:00+0000",
            "name": name,
            "iam_id": "IBMid-5500000000",
            "account_id": "1f2e",
            "apikey": "",
        });
        key.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        key
    }

    fn described(more: &Value) -> Result<KeyDetails, PlatformError> {
        read_details(&answer(200, &[], &key("laptop", more).to_string()))
    }

    #[test]
    fn details_are_asked_for_with_the_key_in_a_header() {
        let target = target();
        let keys = IamKeys::new(&target);
        let request = keys.details_request(&bearer(), &ApiKey::new("s3cret".into())).unwrap();
        assert_eq!((request.method, request.url.as_str()), (Method::GET, &*format!("{URL}/details")));
        assert_eq!(request.headers["authorization"], "Bearer the-token");
        assert_eq!(request.headers["iam-apikey"], "s3cret");
        assert!(!format!("{:?}", request.headers).contains("s3cret"));
        let malformed = keys.details_request(&bearer(), &ApiKey::new("a\r\nb".into())).err();
        assert_eq!(malformed, Some(PlatformError::Refused { reason: Refusal::Malformed }));
    }

    #[test]
    fn details_are_read_with_and_without_what_is_optional() {
        let plain = described(&json!({})).unwrap();
        assert_eq!(plain.id.to_string(), "ApiKey-b2e1a1b4-0000-4000-8000-000000000001");
        assert_eq!(
            (&*plain.name, &*plain.iam_id, &*plain.account_id),
            ("laptop", "IBMid-5500000000", "1f2e")
        );
        assert_eq!((plain.locked, plain.disabled, plain.expires_at), (false, false, None));
        let more = json!({ "locked": true, "disabled": true, "expires_at": "2027-01-01T00:00+0000", "name": "a\u{1b}" });
        let full = described(&more).unwrap();
        assert_eq!((full.locked, full.disabled, full.expires_at), (true, true, Some(1_798_761_600)));
        let made = full.created_at.unwrap();
        assert_eq!(full.end_of_successor(made + 7), Some(1_798_761_607), "it lives as long");
        let unknown = KeyDetails { created_at: None, ..full.clone() };
        assert_eq!(unknown.end_of_successor(made + 7), Some(1_798_761_600), "it ends when this one does");
        assert_eq!(plain.end_of_successor(made), None);
        assert_eq!(full.name, "a?");
    }

    #[test]
    fn an_id_that_could_change_a_path_is_none() {
        for bad in ["", "ApiKey-", "ApiKey-../x", "ApiKey-a/b", "ApiKey-a?b", "ServiceId-1", "ApiKey-%2e"] {
            assert_eq!(bad.parse::<KeyId>(), Err(KeyIdError), "{bad}");
            assert_eq!(described(&json!({ "id": bad })), Err(Misconfiguration::NotJson.into()), "{bad}");
        }
        assert!(format!("ApiKey-{}", "a".repeat(129)).parse::<KeyId>().is_err());
    }

    #[test]
    fn a_list_names_account_user_and_page() {
        let target = target();
        let keys = IamKeys::new(&target);
        let url = |page| keys.list_request(&bearer(), "1f2e", "IBMid-5&x", page).unwrap().url.to_string();
        let first = format!("{URL}?account_id=1f2e&iam_id=IBMid-5%26x&pagesize=100");
        assert_eq!(url(None), first);
        assert_eq!(url(Some("a b&c")), format!("{first}&pagetoken=a+b%26c"));
    }

    #[test]
    fn a_page_gives_the_keys_of_exactly_this_name_and_the_token_of_the_next() {
        let page = |next: Value| {
            let keys = [key("laptop", &json!({})), key("laptop2", &json!({})), key("Laptop", &json!({}))];
            let mut found = Vec::new();
            let body = json!({ "limit": 100, "first": "f", "next": next, "apikeys": keys }).to_string();
            read_page(&answer(200, &[], &body), "laptop", &mut found).map(|next| (found.len(), next))
        };
        assert_eq!(page(json!(null)), Ok((1, None)));
        let next = json!("https://elsewhere.example.com/v1/apikeys?pagesize=1&pagetoken=a%2Bb");
        assert_eq!(page(next), Ok((1, Some("a+b".into()))));
        assert_eq!(
            page(json!("https://iam.cloud.ibm.com/v1/apikeys")),
            Err(Misconfiguration::NotJson.into())
        );
    }

    #[test]
    fn a_new_key_is_sent_with_our_own_value() {
        let target = target();
        let value = ApiKey::new("0123456789012345678901234567890\"".into());
        let new = NewKey {
            name: "laptop",
            description: "made by rotate",
            iam_id: "IBMid-5",
            account_id: "1f2e",
            key: &value,
            expires_at: Some(1_798_761_600),
        };
        let body = |new| {
            let request = IamKeys::new(&target).create_request(&bearer(), new).unwrap();
            assert_eq!((request.method, request.url.as_str()), (Method::POST, URL));
            serde_json::from_slice::<Value>(&request.body).unwrap()
        };
        let mut expected = json!({
            "name": "laptop", "description": "made by rotate", "iam_id": "IBMid-5", "account_id": "1f2e",
            "apikey": "0123456789012345678901234567890\"", "expires_at": "2027-01-01T00:00+0000",
        });
        assert_eq!(body(&new), expected);
        expected.as_object_mut().unwrap().remove("expires_at");
        assert_eq!(body(&NewKey { expires_at: None, ..new }), expected);
    }

    #[test]
    fn a_body_with_a_new_key_keeps_its_place_in_memory() {
        let target = target();
        let (value, worst) = (ApiKey::new("\"".repeat(64)), "\u{1}".repeat(100));
        let new = NewKey {
            name: &worst,
            description: "",
            iam_id: "",
            account_id: "",
            key: &value,
            expires_at: Some(1_798_761_600),
        };
        let body = IamKeys::new(&target).create_request(&bearer(), &new).unwrap().body;
        assert_eq!(body.capacity(), 6 * 164 + 128);
    }

    #[test]
    fn a_deleted_key_and_one_that_was_gone_are_told_apart() {
        let read = |status, body: &str| read_deletion(&answer(status, &[], body));
        assert_eq!(read(204, ""), Ok(Deletion::Done));
        let errors = r#"{"trace":"x","errors":[{"code":"not_found","message":"no"}],"status_code":404}"#;
        assert_eq!(read(404, errors), Ok(Deletion::GoneBefore));
        for elsewhere in ["404 page not found", "<html>", "", "{}"] {
            assert!(matches!(read(404, elsewhere), Err(CallError::Refused(_))), "{elsewhere}");
        }
        assert!(matches!(read(200, "<html>"), Err(CallError::Unclear(_))));
        assert!(matches!(read(500, ""), Err(CallError::Unclear(_))));
    }

    #[test]
    fn a_locked_key_is_refused_with_iams_code() {
        let body = r#"{"errors":[{"code":"delete_not_possible","message_code":"BXNIM0105E",
            "message":"Unable to delete object","details":"locked"}],"trace":"x","status_code":409}"#;
        let code = IamCode::parse("BXNIM0105E");
        let url = "https://cpd.example.com/called".to_owned();
        let locked = Misconfiguration::Status { url, status: 409, code };
        assert_eq!(read_deletion(&answer(409, &[], body)), Err(CallError::Refused(locked.into())));
    }
}
