//! Addresses that a key may be sent to.

use std::{borrow::Cow, fmt, str::FromStr};

use url::{Host, Url};

/// Ends of paths that a service's documentation tells users to configure; any other path that was
/// pasted comes from a browser.
const API_PATHS: [&str; 7] = [
    "/icp4d-api",
    "/v1/authorize",
    "/zen-data",
    "/identity",
    "/identity/token",
    "/siusermgr",
    "/apikeys/token",
];

/// The address of a service: `https`, or `http` to a loopback address; no user, query or fragment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Reads an address as the configuration holds it.
    ///
    /// # Errors
    ///
    /// When it is no URL, or one that a key must not be sent to.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::try_from(Url::parse(text)?)
    }

    /// Reads what a user pasted, and tells whether more than its address had to be taken off: a
    /// page of the web client becomes its origin, a missing scheme `https`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn clean(pasted: &str) -> Result<(Self, bool), UrlError> {
        let pasted = pasted.trim();
        let mut url = Url::parse(&with_scheme(pasted))?;
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/');
        if !API_PATHS.iter().any(|api| path.ends_with(api)) {
            url.set_path("");
        }
        let clean = Self::try_from(url)?;
        let changed = clean.as_str() != pasted.trim_end_matches('/');
        Ok((clean, changed))
    }

    /// Returns scheme, host and port, without the port where it is the usual one.
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Returns the address without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Returns the path without a slash at its end: empty for most.
    pub(crate) fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    /// Returns the URL with this path on the same origin.
    pub(crate) fn with_path(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }
}

impl TryFrom<Url> for BaseUrl {
    type Error = UrlError;

    fn try_from(url: Url) -> Result<Self, UrlError> {
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            return Err(UrlError::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::QueryOrFragment);
        }
        Ok(Self(url))
    }
}

impl FromStr for BaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::parse(text)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BaseUrl").field(&self.as_str()).finish()
    }
}

/// Why a text is no address that a key may be sent to; it repeats none of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not parse.
    #[error("not a url")]
    Syntax(#[from] url::ParseError),
    /// The key would travel in the clear.
    #[error("not https, which only a loopback address may do without")]
    NotHttps,
    /// It names a user or a password.
    #[error("a url must not hold a user name or password")]
    UserInfo,
    /// It has a part that no address of a service has.
    #[error("a url must not have a query or fragment")]
    QueryOrFragment,
    /// A proxy is reached by plain HTTP and passes TLS on unread.
    #[error("a proxy's url must be http://host:port")]
    Proxy,
}

fn with_scheme(pasted: &str) -> Cow<'_, str> {
    if pasted.contains("://") { pasted.into() } else { format!("https://{pasted}").into() }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_goes_anywhere_and_http_only_to_loopback() {
        for good in
            ["https://cpd.example.com", "http://127.8.9.1:81", "http://[::1]:81", "http://localhost:81"]
        {
            assert_eq!(BaseUrl::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "http://cpd.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://[::2]",
            "ftp://localhost",
            "file:///etc/passwd",
            "http://10.0.0.1",
        ] {
            assert_eq!(BaseUrl::parse(bad), Err(UrlError::NotHttps), "{bad}");
        }
    }

    #[test]
    fn an_address_is_normalised() {
        for same in ["https://Cpd.Example.com:443/", "https://cpd.example.com//", "https://cpd.example.com/."]
        {
            assert_eq!(BaseUrl::parse(same).unwrap().as_str(), "https://cpd.example.com", "{same}");
        }
        let odd = BaseUrl::parse("https://cpd.example.com:8443/prefix/").unwrap();
        assert_eq!(
            (odd.as_str(), odd.origin().as_str()),
            ("https://cpd.example.com:8443/prefix", "https://cpd.example.com:8443")
        );
    }

    #[test]
    fn user_query_and_fragment_are_refused() {
        assert_eq!(BaseUrl::parse("https://alice@host"), Err(UrlError::UserInfo));
        assert_eq!(BaseUrl::parse("https://:secret@host"), Err(UrlError::UserInfo));
        assert_eq!(BaseUrl::parse("https://host/?key=1"), Err(UrlError::QueryOrFragment));
        assert_eq!(BaseUrl::parse("https://host/#x"), Err(UrlError::QueryOrFragment));
        assert!(matches!(BaseUrl::parse("cpd.example.com"), Err(UrlError::Syntax(_))));
    }

    #[test]
    fn a_pasted_page_becomes_its_origin() {
        for (pasted, clean, changed) in [
            ("https://cpd.example.com/zen/#/homepage", "https://cpd.example.com", true),
            (" cpd.example.com\n", "https://cpd.example.com", true),
            ("https://cpd.example.com/dpx?context=icp4data", "https://cpd.example.com", true),
            ("https://cpd.example.com/", "https://cpd.example.com", false),
            ("https://cpd.example.com/icp4d-api", "https://cpd.example.com/icp4d-api", false),
            ("https://mcsp.example.com/siusermgr/", "https://mcsp.example.com/siusermgr", false),
            ("https://cpd.example.com/zen-data/", "https://cpd.example.com/zen-data", false),
        ] {
            let (url, was_changed) = BaseUrl::clean(pasted).unwrap();
            assert_eq!((url.as_str(), was_changed), (clean, changed), "{pasted}");
        }
        assert_eq!(BaseUrl::clean("http://cpd.example.com/zen"), Err(UrlError::NotHttps));
        assert_eq!(BaseUrl::clean("https://u:p@cpd.example.com/zen"), Err(UrlError::UserInfo));
    }
}
