//! Who a server is: by the system's roots, or by a pinned certificate. There is no third way.

use std::{
    error::Error,
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

use crate::{
    Cause, Certificate, Fingerprint, Misconfiguration, PlatformError, Trust, Verdict, text::printable,
};

/// Longest reason that is passed on from the TLS library, which quotes certificates in some.
const MAX_REASON_LEN: usize = 256;

/// Where the certificate of a connection is noted.
pub(crate) type Seen = Arc<OnceLock<Certificate>>;

/// Returns what one connection needs: TLS 1.2 or later, and a verifier that follows `trust`.
///
/// Loads the system's roots from disk where they count.
pub(crate) fn client_config(trust: &Trust, seen: Seen) -> Result<ClientConfig, PlatformError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Witness { inner: verifier(trust, &provider)?, trusted: verdict(trust), seen });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failure(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn verifier(
    trust: &Trust,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Misconfiguration> {
    match trust {
        Trust::Pin(expected) => {
            Ok(Arc::new(PinVerifier { expected: *expected, provider: Arc::clone(provider) }))
        }
        Trust::Roots { extra } => {
            match Verifier::new_with_extra_roots(extra.certificates(), Arc::clone(provider)) {
                Ok(verifier) => Ok(Arc::new(verifier)),
                // The extra roots were checked when they were read, so it is the system's that are missing.
                Err(_) => Err(Misconfiguration::NoRoots),
            }
        }
    }
}

fn verdict(trust: &Trust) -> Verdict {
    match trust {
        Trust::Roots { .. } => Verdict::Roots,
        Trust::Pin(_) => Verdict::Pin,
    }
}

/// Notes which certificate was shown and what was made of it, and changes nothing about that: even a
/// probe talks to no server that is not trusted.
#[derive(Debug)]
struct Witness {
    inner: Arc<dyn ServerCertVerifier>,
    trusted: Verdict,
    seen: Seen,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let verdict = match &verified {
            Ok(_) => self.trusted.clone(),
            Err(error) => Verdict::Untrusted(reason(error)),
        };
        self.seen.get_or_init(|| Certificate::describe(leaf, verdict));
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Believes one certificate. That its server has the private key, too, is checked as ever.
#[derive(Debug)]
struct PinVerifier {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(leaf);
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let changed = ChangedCertificate { expected: self.expected, found };
        Err(CertificateError::Other(rustls::OtherError(Arc::new(changed))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How the pin verifier's verdict travels through the TLS library.
#[derive(Debug)]
struct ChangedCertificate {
    expected: Fingerprint,
    found: Fingerprint,
}

impl fmt::Display for ChangedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, the pinned one is {}", self.found, self.expected)
    }
}

impl Error for ChangedCertificate {}

/// Says what a failed handshake means: certificates and mismatched settings are for people to mend,
/// while a server that starts or stops may well send an alert.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not known to be lasting is tried again")]
pub(crate) fn failure(error: &rustls::Error) -> PlatformError {
    match error {
        rustls::Error::InvalidCertificate(error) => untrusted(error).into(),
        rustls::Error::NoCertificatesPresented
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::CertificateRequired,
        ) => Misconfiguration::Tls { reason: reason(error) }.into(),
        _ => PlatformError::Unreachable { cause: Cause::Tls(reason(error)), retry_after: None },
    }
}

fn untrusted(error: &CertificateError) -> Misconfiguration {
    if let CertificateError::Other(other) = error
        && let Some(&ChangedCertificate { expected, found }) = other.0.downcast_ref()
    {
        return Misconfiguration::ChangedCertificate { expected, found };
    }
    Misconfiguration::Untrusted { reason: certificate_reason(error) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library has words for the rest")]
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_reason(error),
        rustls::Error::InvalidMessage(_) => "what answers there does not speak tls".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the server sent the alert {alert:?}"),
        other => printable(&other.to_string(), MAX_REASON_LEN),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library has words for the rest")]
fn certificate_reason(error: &CertificateError) -> String {
    let reason = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::Revoked => "it was revoked",
        CertificateError::UnknownIssuer => "no trusted authority signed it",
        CertificateError::BadSignature => "the authority that it names did not sign it",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for other names"
        }
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own certificate"
        }
        other => return printable(&other.to_string(), MAX_REASON_LEN),
    };
    reason.to_owned()
}
