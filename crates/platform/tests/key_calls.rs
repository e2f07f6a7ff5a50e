//! What becomes of keys at the mock platform, and what the caller is told about it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Options, RetryAfter, Times};
use dph_agent_platform::{
    ApiKey, BaseUrl, CaBundle, CallError, Deletion, HubKeys, IamCode, IamKeys, KeyCalls, KeyDetails, Kind,
    Misconfiguration, NewKey, PlatformError, Proxy, Refusal, Target, TokenText, Trust,
};

const OWN_VALUE: &str = "0123456789-0123456789-0123456789";
const GENERATE: &str = "/usermgmt/v1/user/apiKey";

fn target(platform: &MockPlatform, kind: Kind) -> Target {
    Target {
        kind,
        auth_url: BaseUrl::parse(&platform.url()).unwrap(),
        trust: Trust::Roots { extra: CaBundle::from_pem(platform.ca_pem().as_bytes()).unwrap() },
        proxy: Proxy::None,
    }
}

/// A user of Software Hub with a key, and a bearer that it bought.
struct Hub {
    platform: MockPlatform,
    target: Target,
    bearer: TokenText,
}

impl Hub {
    async fn start() -> Self {
        let platform = MockPlatform::start();
        platform.add_user("alice", "alices-key");
        platform.allow_key_generation();
        let kind = Kind::SoftwareHub { username: "alice".into(), instance: None };
        let target = target(&platform, kind);
        let bearer = target.buy_token(&ApiKey::new("alices-key".into())).await.unwrap().value;
        Self { platform, target, bearer }
    }

    fn keys(&self) -> HubKeys<'_> {
        match self.target.key_calls() {
            KeyCalls::SoftwareHub(keys) => keys,
            KeyCalls::IbmCloud(_) | KeyCalls::None => panic!("not a software hub"),
        }
    }

    /// Returns how often a key was asked for.
    fn calls(&self) -> usize {
        self.platform.requests().iter().filter(|request| request.path == GENERATE).count()
    }

    fn is_old_key_valid(&self) -> bool {
        self.platform.is_valid_key("alices-key")
    }
}

/// A user of IBM Cloud with a key, and a bearer that it bought.
struct Iam {
    platform: MockPlatform,
    target: Target,
    bearer: TokenText,
}

impl Iam {
    async fn start(options: Options) -> Self {
        let platform = MockPlatform::start_with(options);
        platform.add_named_iam_key("old", "old-key");
        let target = target(&platform, Kind::IbmCloud);
        let bearer = target.buy_token(&ApiKey::new("old-key".into())).await.unwrap().value;
        Self { platform, target, bearer }
    }

    fn keys(&self) -> IamKeys<'_> {
        match self.target.key_calls() {
            KeyCalls::IbmCloud(keys) => keys,
            KeyCalls::SoftwareHub(_) | KeyCalls::None => panic!("not IBM Cloud"),
        }
    }

    async fn old(&self) -> KeyDetails {
        self.keys().details(&self.bearer, &ApiKey::new("old-key".into())).await.unwrap()
    }

    async fn create(&self, name: &str) -> Result<KeyDetails, CallError> {
        let (old, key) = (self.old().await, ApiKey::new(OWN_VALUE.into()));
        let new = NewKey {
            name,
            description: "made by rotate",
            iam_id: &old.iam_id,
            account_id: &old.account_id,
            key: &key,
            expires_at: Some(1_798_761_600),
        };
        self.keys().create(&self.bearer, &new).await
    }

    async fn find(&self, name: &str) -> Vec<KeyDetails> {
        let old = self.old().await;
        self.keys().find(&self.bearer, &old.account_id, &old.iam_id, name).await.unwrap()
    }
}

#[tokio::test]
async fn a_generated_key_buys_tokens_and_the_old_one_none() {
    let hub = Hub::start().await;
    hub.platform.set_expire_at("2027-01-01T00:00:00Z");
    let generated = hub.keys().generate(&hub.bearer).await.unwrap();
    assert_eq!(generated.expires_at, Some(1_798_761_600));
    assert!(hub.target.buy_token(&generated.key).await.is_ok());
    let refused = Err(PlatformError::Refused { reason: Refusal::Status(401) });
    assert_eq!(hub.target.buy_token(&ApiKey::new("alices-key".into())).await, refused);
}

#[tokio::test]
async fn a_discarded_key_ends_the_old_one_all_the_same() {
    let hub = Hub::start().await;
    assert_eq!(hub.keys().generate_and_discard(&hub.bearer).await, Ok(()));
    assert!(!hub.is_old_key_valid());
    assert_eq!(hub.calls(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_unclear_whether_or_not_the_key_was_made_and_nothing_is_sent_twice() {
    for (fault, survives) in [
        (Fault::DropConnection, true),
        (Fault::DropAnswer, false),
        (Fault::DropMidBody, false),
        (Fault::EmptyBody, false),
        (Fault::NoTokenField, false),
        (Fault::Garbage, true),
        (Fault::Html, true),
        (Fault::ServerError(502, None), true),
        (Fault::Redirect("/login".into()), true),
    ] {
        let hub = Hub::start().await;
        hub.platform.script(Endpoint::GenerateKey, fault.clone(), Times::Once);
        let outcome = hub.keys().generate(&hub.bearer).await;
        assert!(matches!(outcome, Err(CallError::Unclear(_))), "{fault:?}: {outcome:?}");
        assert_eq!(hub.is_old_key_valid(), survives, "{fault:?}");
        assert_eq!(hub.calls(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_old_key_alone() {
    for fault in [
        Fault::Unauthorized { json: true },
        Fault::Unauthorized { json: false },
        Fault::Forbidden,
        Fault::NotFound,
        Fault::BadRequest { code: "any" },
        Fault::Throttled(RetryAfter::Seconds(1)),
    ] {
        let hub = Hub::start().await;
        hub.platform.script(Endpoint::GenerateKey, fault.clone(), Times::N(2));
        let outcome = hub.keys().generate(&hub.bearer).await;
        assert!(matches!(outcome, Err(CallError::Refused(_))), "{fault:?}: {outcome:?}");
        let outcome = hub.keys().generate_and_discard(&hub.bearer).await;
        assert!(matches!(outcome, Err(CallError::Refused(_))), "{fault:?}: {outcome:?}");
        assert!(hub.is_old_key_valid(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_platform_that_is_down_was_not_asked() {
    let hub = Hub::start().await;
    hub.platform.stop_listening();
    let outcome = hub.keys().generate_and_discard(&hub.bearer).await;
    assert!(matches!(outcome, Err(CallError::NotSent(PlatformError::Unreachable { .. }))), "{outcome:?}");
    assert_eq!(hub.calls(), 0);
    assert!(hub.is_old_key_valid());
}

#[tokio::test]
async fn a_key_is_rotated_at_iam() {
    let iam = Iam::start(Options::default()).await;
    let made = iam.create("new").await.unwrap();
    assert_eq!((&*made.name, made.expires_at), ("new", Some(1_798_761_600)));
    let new = ApiKey::new(OWN_VALUE.into());
    assert_eq!(iam.keys().details(&iam.bearer, &new).await, Ok(made.clone()));
    assert!(iam.target.buy_token(&new).await.is_ok());
    let old = iam.old().await;
    assert_eq!(iam.keys().delete(&iam.bearer, &old.id).await, Ok(Deletion::Done));
    assert_eq!(iam.keys().delete(&iam.bearer, &old.id).await, Ok(Deletion::GoneBefore));
    assert_eq!(iam.platform.iam_key_names(), ["new"]);
}

#[tokio::test]
async fn a_key_is_found_by_its_name_on_whatever_page_it_is() {
    let iam = Iam::start(Options { iam_page_len: Some(2), ..Options::default() }).await;
    for name in ["a", "b", "new", "c", "new"] {
        iam.platform.add_named_iam_key(name, name);
    }
    assert_eq!(iam.find("new").await.len(), 2);
    assert_eq!(iam.find("old").await, [iam.old().await]);
    assert_eq!(iam.find("ne").await, []);
}

#[tokio::test]
async fn a_key_whose_making_was_not_answered_is_found_if_it_was_made() {
    for (fault, count) in [(Fault::DropConnection, 0), (Fault::DropAnswer, 1), (Fault::DropMidBody, 1)] {
        let iam = Iam::start(Options::default()).await;
        iam.platform.script(Endpoint::CreateIamKey, fault.clone(), Times::Once);
        let outcome = iam.create("unique-name").await;
        assert!(matches!(outcome, Err(CallError::Unclear(_))), "{fault:?}: {outcome:?}");
        assert_eq!(iam.find("unique-name").await.len(), count, "{fault:?}");
    }
}

#[tokio::test]
async fn a_locked_key_is_refused_and_stays() {
    let iam = Iam::start(Options::default()).await;
    iam.platform.set_iam_key_locked("old-key", true);
    let old = iam.old().await;
    assert!(old.locked);
    let Err(CallError::Refused(PlatformError::Misconfigured(Misconfiguration::Status {
        status: 409,
        code,
        ..
    }))) = iam.keys().delete(&iam.bearer, &old.id).await
    else {
        panic!("a locked key is a conflict");
    };
    assert_eq!(code.as_ref().map(IamCode::to_string).as_deref(), Some("BXNIM0105E"));
    assert!(iam.platform.is_valid_key("old-key"));
}

#[tokio::test]
async fn a_bearer_that_iam_does_not_know_changes_nothing() {
    let iam = Iam::start(Options::default()).await;
    let id = iam.old().await.id;
    let forged = TokenText::new("forged".into());
    let refused = PlatformError::Refused { reason: Refusal::Status(401) };
    assert_eq!(iam.keys().delete(&forged, &id).await, Err(CallError::Refused(refused.clone())));
    let key = ApiKey::new("old-key".into());
    assert_eq!(iam.keys().details(&forged, &key).await, Err(refused));
    assert!(iam.platform.is_valid_key("old-key"));
}

#[tokio::test]
async fn an_instance_sells_its_token_to_the_user_with_the_key() {
    let platform = MockPlatform::start();
    platform.add_user("alice", "alices-key");
    let instance = "1718282382782782".parse().ok();
    let target = target(&platform, Kind::SoftwareHub { username: "alice".into(), instance });
    assert!(target.buy_token(&ApiKey::new("alices-key".into())).await.is_ok());
    let refused = Err(PlatformError::Refused { reason: Refusal::Status(401) });
    assert_eq!(target.buy_token(&ApiKey::new("other-key".into())).await, refused);
}

#[tokio::test]
async fn no_error_repeats_what_was_sent_or_answered() {
    let iam = Iam::start(Options::default()).await;
    iam.platform.script(Endpoint::CreateIamKey, Fault::DropMidBody, Times::Once);
    let error = iam.create("new").await.unwrap_err();
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let words: String = chain.map(|error| format!("{error} {error:?} ")).collect();
    for secret in [OWN_VALUE, iam.bearer.expose(), "old-key"] {
        assert!(!words.contains(secret), "{words}");
    }
}
