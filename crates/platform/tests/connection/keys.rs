//! Calls about keys travel as exchanges do: over TLS, to servers that are believed, and only once.

use crate::support::{Authority, KEY, NEW_KEY, Server, TOKEN, key, params};
use dph_agent_platform::{
    CallError, Deletion, HubKeys, IamKeys, KeyCalls, Kind, Misconfiguration, NewKey, PlatformError, Target,
    TokenText, Trust,
};
use rustls::version::TLS13;

async fn start(authority: &Authority) -> Server {
    Server::start(authority.sign(params("cpd", &["127.0.0.1"])), &TLS13).await
}

fn hub(server: &Server, trust: Trust) -> Target {
    let kind = Kind::SoftwareHub { username: "alice".into(), instance: None };
    Target { kind, ..server.target(trust) }
}

fn hub_keys(target: &Target) -> HubKeys<'_> {
    match target.key_calls() {
        KeyCalls::SoftwareHub(keys) => keys,
        KeyCalls::IbmCloud(_) | KeyCalls::None => panic!("not a software hub"),
    }
}

fn iam_keys(target: &Target) -> IamKeys<'_> {
    match target.key_calls() {
        KeyCalls::IbmCloud(keys) => keys,
        KeyCalls::SoftwareHub(_) | KeyCalls::None => panic!("not IBM Cloud"),
    }
}

fn bearer() -> TokenText {
    TokenText::new(TOKEN.into())
}

#[tokio::test]
async fn software_hub_generates_a_key_over_tls_and_is_asked_once_for_each() {
    let authority = Authority::new();
    let server = start(&authority).await;
    let target = hub(&server, authority.trust());
    let generated = hub_keys(&target).generate(&bearer()).await.unwrap();
    assert_eq!((generated.key.expose(), generated.expires_at), (NEW_KEY, None));
    assert_eq!(hub_keys(&target).generate_and_discard(&bearer()).await, Ok(()));
    let asked = server.received.text();
    assert_eq!(asked.matches("GET /usermgmt/v1/user/apiKey HTTP/1.1").count(), 2, "{asked}");
    assert_eq!(asked.matches("authorization: Bearer the-token").count(), 2, "{asked}");
    assert_eq!(asked.matches("cache-control: no-store").count(), 2, "{asked}");
}

#[tokio::test]
async fn iam_describes_lists_makes_and_deletes_keys_over_tls() {
    let authority = Authority::new();
    let server = start(&authority).await;
    let target = server.target(authority.trust());
    let keys = iam_keys(&target);
    let details = keys.details(&bearer(), &key()).await.unwrap();
    assert_eq!(keys.find(&bearer(), "a", "i", "n").await, Ok(vec![]));
    let value = key();
    let new =
        NewKey { name: "n", description: "d", iam_id: "i", account_id: "a", key: &value, expires_at: None };
    assert_eq!(keys.create(&bearer(), &new).await, Ok(details.clone()));
    assert_eq!(keys.delete(&bearer(), &details.id).await, Ok(Deletion::Done));
    let asked = server.received.text();
    for line in [
        "GET /v1/apikeys/details HTTP/1.1",
        &format!("iam-apikey: {KEY}"),
        "GET /v1/apikeys?account_id=a&iam_id=i&pagesize=100 HTTP/1.1",
        "POST /v1/apikeys HTTP/1.1",
        "DELETE /v1/apikeys/ApiKey-1 HTTP/1.1",
    ] {
        assert_eq!(asked.matches(line).count(), 1, "{line} in {asked}");
    }
}

#[tokio::test]
async fn no_call_about_keys_is_made_to_a_server_that_is_not_believed() {
    let server = start(&Authority::new()).await;
    let trust = Authority::new().trust();
    let (hub, iam) = (hub(&server, trust.clone()), server.target(trust));
    let is_untrusted = |error: &PlatformError| {
        matches!(error, PlatformError::Misconfigured(Misconfiguration::Untrusted { .. }))
    };
    let id = "ApiKey-1".parse().unwrap();
    for error in [
        hub_keys(&hub).generate(&bearer()).await.err(),
        hub_keys(&hub).generate_and_discard(&bearer()).await.err(),
        iam_keys(&iam).delete(&bearer(), &id).await.err(),
    ] {
        assert!(matches!(&error, Some(CallError::NotSent(why)) if is_untrusted(why)), "{error:?}");
    }
    let unread = iam_keys(&iam).details(&bearer(), &key()).await.unwrap_err();
    assert!(is_untrusted(&unread), "{unread:?}");
    assert_eq!(server.received.text(), "");
}

#[tokio::test]
async fn a_service_instance_sells_its_token_and_has_no_calls_about_keys() {
    let authority = Authority::new();
    let server = start(&authority).await;
    let instance = "1718282382782782".parse().ok();
    let kind = Kind::SoftwareHub { username: "alice".into(), instance };
    let target = Target { kind, ..server.target(authority.trust()) };
    assert_eq!(target.buy_token(&key()).await.unwrap().value.expose(), TOKEN);
    let asked = server.received.text();
    assert!(
        asked.starts_with("GET /zen-data/v3/service_instances/1718282382782782/token HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("authorization: Basic YWxpY2U6czNjcmV0LWFwaS1rZXk=\r\n"), "{asked}");
    assert!(matches!(target.key_calls(), KeyCalls::None));
}
