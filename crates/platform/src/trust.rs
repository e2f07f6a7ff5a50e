//! Whose word about a server is taken.

use std::{fmt, str::FromStr, sync::Arc};

use ring::digest::{SHA256, digest};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use subtle::ConstantTimeEq;

/// Which certificates are believed. None of the choices believes every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that an authority known to this system vouches for, or one of these.
    Roots {
        /// Authorities beside the system's own.
        extra: CaBundle,
    },
    /// Exactly this one, whoever signed it, whatever it is for and however old it is.
    Pin(Fingerprint),
}

/// Certificates of authorities, each checked to be usable as one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CaBundle(Arc<[CertificateDer<'static>]>);

impl CaBundle {
    /// Reads a file in PEM form, as `ca-file` names it.
    ///
    /// # Errors
    ///
    /// When it holds no certificate, or one that cannot vouch for others.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CaBundleError> {
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(CaBundleError::Pem)?;
        if certificates.is_empty() {
            return Err(CaBundleError::Empty);
        }
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            let added = roots.add(certificate.clone());
            added.map_err(|source| CaBundleError::Certificate { number: index + 1, source })?;
        }
        Ok(Self(certificates.into()))
    }

    /// Returns the fingerprint of each certificate, which together name the bundle.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.0.iter().map(|der| Fingerprint::of(der))
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.0.iter().cloned()
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

/// Why a file is no bundle of authorities.
#[derive(Debug, thiserror::Error)]
pub enum CaBundleError {
    /// It is damaged.
    #[error("not in pem form")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// It has other things in it, or nothing.
    #[error("it holds no certificate")]
    Empty,
    /// One of its certificates does not parse.
    #[error("certificate {number} in it cannot be used")]
    Certificate {
        /// Which one, counted from one.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// The SHA-256 of a certificate in DER form, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; Self::LEN]);

impl Fingerprint {
    const LEN: usize = 32;

    pub(crate) fn of(der: &[u8]) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Fingerprint {}

/// Says how a fingerprint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes colons between the digits and capitals, too, as other programs print them.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let (name, digits) = text.split_once(':').ok_or(FingerprintError)?;
        let digits = digits.replace(':', "");
        if !name.eq_ignore_ascii_case("sha256") || digits.len() != 2 * Self::LEN {
            return Err(FingerprintError);
        }
        let mut bytes = [0; Self::LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = hex(pair).ok_or(FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

fn hex(pair: &[u8]) -> Option<u8> {
    pair.iter().try_fold(0, |byte, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(byte << 4 | u8::try_from(digit).ok()?)
    })
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_fingerprint_reads_what_it_and_openssl_write() {
        let fingerprint = Fingerprint::of(b"");
        assert_eq!(fingerprint.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(fingerprint));
        let digits = EMPTY.strip_prefix("sha256:").unwrap().to_uppercase();
        let pairs: Vec<_> = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
        assert_eq!(format!("SHA256:{}", pairs.join(":")).parse(), Ok(fingerprint));
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let signs = EMPTY.replace("e3", "+3");
        let letters = EMPTY.replace("e3", "ü");
        for bad in
            ["", "sha256:", "sha1:00", &EMPTY[..70], &EMPTY[7..], &format!("{EMPTY}0"), &signs, &letters]
        {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }

    #[test]
    fn a_bundle_holds_at_least_one_certificate_and_no_bad_one() {
        assert!(matches!(CaBundle::from_pem(b""), Err(CaBundleError::Empty)));
        let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(bad), Err(CaBundleError::Certificate { number: 1, .. })));
        let torn = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(torn), Err(CaBundleError::Pem(_))));
    }
}
