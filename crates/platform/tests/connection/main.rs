//! How a key travels: to which server, which way, and seen by whom.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod keys;
mod proxy;
mod support;
mod trust;

use dph_agent_platform::{Kind, Target};
use rustls::version::TLS13;
use support::{Authority, Server, TOKEN, key, params};

#[tokio::test]
async fn every_platform_sells_a_token_over_tls() {
    let authority = Authority::new();
    for (kind, path) in [
        (Kind::SoftwareHub { username: "alice".into(), instance: None }, "/icp4d-api/v1/authorize"),
        (Kind::IbmCloud, "/identity/token"),
        (Kind::Mcsp { scope: None }, "/api/2.0/apikeys/token"),
        (Kind::Mcsp { scope: "services/1".parse().ok() }, "/api/2.0/services/1/apikeys/token?"),
    ] {
        let server = Server::start(authority.sign(params("cpd", &["127.0.0.1"])), &TLS13).await;
        let target = Target { kind, ..server.target(authority.trust()) };
        assert_eq!(target.buy_token(&key()).await.unwrap().value.expose(), TOKEN);
        let asked = server.received.text();
        assert!(asked.starts_with(&format!("POST {path}")), "{asked}");
    }
}
