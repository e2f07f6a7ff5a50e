//! What a server's certificate says, for a person to judge.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{Fingerprint, text::printable};

/// Longest text taken from a certificate.
const MAX_TEXT_LEN: usize = 256;

/// Most names taken from a certificate.
const MAX_NAMES: usize = 32;

/// Describes the certificate that a server showed. Its texts are the server's, made fit to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is; empty where it does not parse.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// Its SHA-256, which [`Trust::Pin`](crate::Trust::Pin) takes.
    pub fingerprint: Fingerprint,
    /// The end of its validity, in seconds since 1970.
    pub not_after: i64,
    /// Whether it is believed.
    pub verdict: Verdict,
}

/// Tells why a certificate is believed, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A trusted authority vouches for it.
    Roots,
    /// It is the pinned one.
    Pin,
    /// It is not believed, and no key is sent to its server.
    Untrusted(String),
}

impl Certificate {
    pub(crate) fn describe(der: &[u8], verdict: Verdict) -> Self {
        let parsed = X509Certificate::from_der(der).ok().map(|(_rest, parsed)| parsed);
        let text = |text: String| printable(&text, MAX_TEXT_LEN);
        Self {
            subject: parsed.as_ref().map(|it| text(it.subject().to_string())).unwrap_or_default(),
            issuer: parsed.as_ref().map(|it| text(it.issuer().to_string())).unwrap_or_default(),
            names: parsed.as_ref().map(names).unwrap_or_default(),
            fingerprint: Fingerprint::of(der),
            not_after: parsed.as_ref().map_or(0, |it| it.validity().not_after.timestamp()),
            verdict,
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(name).take(MAX_NAMES).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a server is found by name or address and by nothing else"
)]
fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::DNSName(name) => Some(printable(name, MAX_TEXT_LEN)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_parse_still_has_a_fingerprint() {
        let certificate = Certificate::describe(b"nonsense", Verdict::Untrusted("it is damaged".into()));
        assert_eq!(certificate.fingerprint, Fingerprint::of(b"nonsense"));
        assert_eq!((certificate.subject.as_str(), certificate.names.len()), ("", 0));
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        assert_eq!(address(&[127, 0, 0, 1]).as_deref(), Some("127.0.0.1"));
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(address(&loopback).as_deref(), Some("::1"));
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
