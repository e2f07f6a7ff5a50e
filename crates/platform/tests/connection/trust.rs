//! Whom a key is sent to: certificates that are believed, and those that are not.

use crate::support::{Authority, Identity, Server, TOKEN, key, params};
use dph_agent_platform::{Fingerprint, Misconfiguration, PlatformError, Probe, Target, Trust, Verdict};
use rcgen::{BasicConstraints, IsCa, KeyPair, date_time_ymd};
use rustls::version::{TLS12, TLS13};

const HOST: &[&str] = &["127.0.0.1", "cpd.example.com"];

async fn fingerprint(target: &Target) -> Fingerprint {
    target.probe().await.unwrap().certificate.unwrap().fingerprint
}

/// Returns why the server is not believed, as buying and probing tell alike; nothing was sent to it.
async fn refusal(server: &Server, trust: Trust) -> String {
    let target = server.target(trust);
    let Err(PlatformError::Misconfigured(Misconfiguration::Untrusted { reason })) =
        target.buy_token(&key()).await
    else {
        panic!("a token was bought from a server that is not believed");
    };
    let Probe { certificate: Some(certificate) } = target.probe().await.unwrap() else {
        panic!("a probe over tls saw no certificate");
    };
    assert_eq!(certificate.verdict, Verdict::Untrusted(reason.clone()));
    assert_eq!(server.received.text(), "");
    reason
}

#[tokio::test]
async fn a_ca_file_makes_a_server_believed() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new();
        let server = Server::start(authority.sign(params("cpd", HOST)), version).await;
        let token = server.target(authority.trust()).buy_token(&key()).await.unwrap();
        assert_eq!(token.value.expose(), TOKEN);
    }
}

#[tokio::test]
async fn a_probe_describes_the_certificate_and_sends_no_key() {
    let authority = Authority::new();
    let mut params = params("cpd.example.com\u{202e}", HOST);
    params.not_after = date_time_ymd(2100, 1, 1);
    let server = Server::start(authority.sign(params), &TLS13).await;
    let certificate = server.target(authority.trust()).probe().await.unwrap().certificate.unwrap();
    assert_eq!(certificate.subject, "CN=cpd.example.com?");
    assert_eq!(certificate.issuer, "CN=Test Authority");
    assert_eq!(certificate.names, ["127.0.0.1", "cpd.example.com"]);
    assert_eq!(certificate.not_after, 4_102_444_800);
    assert_eq!(certificate.verdict, Verdict::Roots);
    assert!(server.received.text().starts_with("GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn no_other_authority_will_do() {
    let server = Server::start(Authority::new().sign(params("cpd", HOST)), &TLS13).await;
    assert_eq!(
        refusal(&server, Authority::new().trust()).await,
        "the authority that it names did not sign it"
    );
}

#[tokio::test]
async fn an_authority_vouches_for_a_name_and_a_time() {
    let authority = Authority::new();
    let other = Server::start(authority.sign(params("cpd", &["other.example.com"])), &TLS13).await;
    assert_eq!(refusal(&other, authority.trust()).await, "it is for other names");
    let mut old = params("cpd", HOST);
    old.not_after = date_time_ymd(2020, 1, 1);
    old.not_before = date_time_ymd(2019, 1, 1);
    let expired = Server::start(authority.sign(old), &TLS13).await;
    assert_eq!(refusal(&expired, authority.trust()).await, "it has expired");
}

#[tokio::test]
async fn a_self_signed_certificate_is_believed_once_it_is_pinned() {
    for version in [&TLS12, &TLS13] {
        let server = Server::start(Identity::self_signed(params("cpd", &["other"])), version).await;
        let roots = Authority::new().trust();
        assert_eq!(refusal(&server, roots.clone()).await, "no trusted authority signed it");
        let pin = fingerprint(&server.target(roots)).await;
        let token = server.target(Trust::Pin(pin)).buy_token(&key()).await.unwrap();
        assert_eq!(token.value.expose(), TOKEN);
    }
}

#[tokio::test]
async fn an_authoritys_own_certificate_works_when_pinned() {
    let mut authority = params("Test Authority", HOST);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let identity = Identity::self_signed(authority);
    let pin = pin(&identity);
    let server = Server::start(identity, &TLS13).await;
    assert!(server.target(Trust::Pin(pin)).buy_token(&key()).await.is_ok());
}

#[tokio::test]
async fn a_changed_certificate_is_refused_with_both_fingerprints() {
    let authority = Authority::new();
    let (old, new) = (authority.sign(params("cpd", HOST)), authority.sign(params("cpd", HOST)));
    let (expected, found) = (pin(&old), pin(&new));
    let server = Server::start(new, &TLS13).await;
    let target = server.target(Trust::Pin(expected));
    let error = target.buy_token(&key()).await.unwrap_err();
    let changed = Misconfiguration::ChangedCertificate { expected, found };
    assert_eq!(error, PlatformError::Misconfigured(changed.clone()));
    for fingerprint in [expected, found] {
        assert!(changed.to_string().contains(&fingerprint.to_string()));
    }
    assert_eq!(fingerprint(&target).await, found);
    assert_eq!(server.received.text(), "");
}

#[tokio::test]
async fn a_pinned_certificate_without_its_private_key_is_worth_nothing() {
    for version in [&TLS12, &TLS13] {
        let mut stolen = Identity::self_signed(params("cpd", HOST));
        let pin = pin(&stolen);
        stolen.private_key = KeyPair::generate().unwrap();
        let server = Server::start(stolen, version).await;
        assert!(server.target(Trust::Pin(pin)).buy_token(&key()).await.is_err());
        assert_eq!(server.received.text(), "");
    }
}

fn pin(identity: &Identity) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, &identity.certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().unwrap()
}
