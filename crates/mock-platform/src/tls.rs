//! The certificates, made anew at each start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use ring::digest;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::random;

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The server's certificate, and what a peer needs to trust it.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The certificate of the authority, or the server's own where nobody else signed it.
    pub(crate) ca_pem: String,
    leaf: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    /// Makes an authority and a certificate signed by it.
    pub(crate) fn signed() -> Result<Self, rcgen::Error> {
        let mut params = named("Mock Platform CA", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = server()?.signed_by(&key, &authority)?;
        Ok(Self { ca_pem: authority.pem(), leaf: leaf.der().clone(), key })
    }

    /// Makes a certificate signed by itself.
    pub(crate) fn self_signed() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let leaf = server()?.self_signed(&key)?;
        Ok(Self { ca_pem: leaf.pem(), leaf: leaf.der().clone(), key })
    }

    /// Returns the SHA-256 of the server's certificate as `sha256:<hex>`.
    pub(crate) fn fingerprint(&self) -> String {
        format!("sha256:{}", random::hex(digest::digest(&digest::SHA256, &self.leaf).as_ref()))
    }

    /// Returns the settings of a server that shows this certificate.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], key)
    }
}

fn server() -> Result<CertificateParams, rcgen::Error> {
    let mut params = named("localhost", NAMES.map(str::to_owned).to_vec())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn named(common_name: &str, alternative_names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(alternative_names)?;
    params.distinguished_name.push(DnType::OrganizationName, "dph-agent mock platform");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = now();
    params.not_before = (now - DAY).into();
    // Apple's verifier accepts no server certificate that is valid for more than 825 days.
    params.not_after = (now + 365 * DAY).into();
    Ok(params)
}

#[expect(clippy::disallowed_methods, reason = "peers judge the certificate by the machine's clock")]
fn now() -> SystemTime {
    SystemTime::now()
}
