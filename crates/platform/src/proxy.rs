//! How connections leave this machine: decided here, never looked up by a library.

use std::{fmt, str::FromStr};

use reqwest::NoProxy;
use url::Url;

use crate::http::failure;
use crate::{BaseUrl, Misconfiguration, PlatformError, UrlError};

/// Whether connections go through a proxy. Plain HTTP, which stays on this machine, never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// As the environment says, though never to a loopback address.
    Environment(ProxyEnv),
    /// Through none.
    None,
    /// Through this one.
    Url(ProxyUrl),
}

/// What the environment says about proxies, read once by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `https_proxy`; one that makes no sense is never passed by.
    pub https_proxy: Option<Result<ProxyUrl, UrlError>>,
    /// `no_proxy`: names, addresses and networks that are reached without it, separated by commas.
    pub no_proxy: Option<String>,
}

/// The address of a proxy, which is asked for tunnels and so sees no key: `http://host:port`, with a
/// user name and password where it wants them, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl Proxy {
    pub(crate) fn towards(&self, base: &BaseUrl) -> Result<Option<reqwest::Proxy>, PlatformError> {
        match self {
            Self::Environment(env) if !base.is_loopback() => env.proxy(),
            Self::Environment(_) | Self::None => Ok(None),
            Self::Url(url) => url.to_reqwest().map(Some).map_err(failure),
        }
    }
}

impl ProxyEnv {
    fn proxy(&self) -> Result<Option<reqwest::Proxy>, PlatformError> {
        let Some(https_proxy) = &self.https_proxy else { return Ok(None) };
        let url = https_proxy.as_ref().map_err(|&error| Misconfiguration::ProxyVariable(error))?;
        let proxy = url.to_reqwest().map_err(failure)?;
        Ok(Some(proxy.no_proxy(self.no_proxy.as_deref().and_then(NoProxy::from_string))))
    }
}

impl ProxyUrl {
    fn to_reqwest(&self) -> Result<reqwest::Proxy, reqwest::Error> {
        reqwest::Proxy::https(self.0.clone())
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    /// Takes `host:port`, too, as other programs do.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let url =
            if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) }?;
        if url.scheme() != "http" || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::Proxy);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_reached_by_plain_http() {
        for good in ["http://proxy:3128", "proxy:3128", " http://proxy:3128/\n"] {
            assert_eq!(good.parse::<ProxyUrl>().unwrap().to_string(), "http://proxy:3128", "{good:?}");
        }
        for bad in ["https://proxy", "socks5://proxy", "http://proxy/path", "http://proxy?x", "", "none:x"] {
            assert!(bad.parse::<ProxyUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxys_password_is_not_printed() {
        let url: ProxyUrl = "http://alice:s3cret@proxy:3128".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://proxy:3128 http://proxy:3128");
    }

    #[test]
    fn the_environments_proxy_is_not_asked_for_this_machine() {
        let env = ProxyEnv { https_proxy: Some("proxy:3128".parse()), no_proxy: None };
        let towards = |proxy: &Proxy, url| proxy.towards(&BaseUrl::parse(url).unwrap()).unwrap().is_some();
        assert!(towards(&Proxy::Environment(env.clone()), "https://cpd.example.com"));
        assert!(!towards(&Proxy::Environment(env.clone()), "https://127.0.0.1:8443"));
        assert!(!towards(&Proxy::Environment(ProxyEnv::default()), "https://cpd.example.com"));
        assert!(!towards(&Proxy::None, "https://cpd.example.com"));
        assert!(towards(&Proxy::Url("proxy:3128".parse().unwrap()), "https://127.0.0.1:8443"));
    }

    #[test]
    fn a_proxy_of_the_environment_that_makes_no_sense_is_not_passed_by() {
        let env = ProxyEnv { https_proxy: Some("socks5://proxy".parse()), no_proxy: None };
        let towards = |proxy: &Proxy, url| proxy.towards(&BaseUrl::parse(url).unwrap()).map(|_| ());
        let wrong = Misconfiguration::ProxyVariable(UrlError::Proxy).into();
        assert_eq!(towards(&Proxy::Environment(env.clone()), "https://cpd.example.com"), Err(wrong));
        assert_eq!(towards(&Proxy::Environment(env), "https://127.0.0.1:8443"), Ok(()));
        assert_eq!(towards(&Proxy::None, "https://cpd.example.com"), Ok(()));
    }
}
