//! The IBM platforms that sell bearer tokens for API keys, behind one private trait.
//!
//! A [`Target`] says which platform, where, for whom, and whose certificate is believed: all that
//! decides whom a key is sent to. [`Target::buy_token`] makes one HTTP request over a connection
//! of its own and reads the answer into a [`Token`] or a [`PlatformError`], which is typed by who
//! must act. The server's words never reach an error: they could repeat the key.
//!
//! [`Target::key_calls`] leads to what a platform can do with keys themselves. What changes something
//! there fails with a [`CallError`], which tells whether it may have been done all the same.
#![forbid(unsafe_code)]

mod answer;
mod base_url;
mod call_error;
mod certificate;
mod error;
mod http;
mod ibm_cloud;
mod key_calls;
mod life;
mod mcsp;
mod proxy;
mod scope;
mod secret;
mod software_hub;
mod text;
mod time;
mod tls;
mod trust;

pub use base_url::{BaseUrl, UrlError};
pub use call_error::CallError;
pub use certificate::{Certificate, Verdict};
pub use error::{Cause, IamCode, Misconfiguration, PlatformError, Refusal, RetryAfter};
pub use ibm_cloud::keys::{Deletion, IamKeys, KeyDetails, KeyId, KeyIdError, NewKey};
pub use key_calls::KeyCalls;
pub use proxy::{Proxy, ProxyEnv, ProxyUrl};
pub use scope::{Scope, ScopeError};
pub use secret::{ApiKey, HeaderText, Token, TokenText};
pub use software_hub::{
    instance::{InstanceId, InstanceIdError},
    keys::{Generated, HubKeys},
    pair::zen_header,
};
pub use trust::{CaBundle, CaBundleError, Fingerprint, FingerprintError, Trust};

use answer::{Answer, Request};
use ibm_cloud::IbmCloud;
use mcsp::Mcsp;
use software_hub::{SoftwareHub, instance::Instance};

/// Names a platform and everything that decides whom a key is sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Which service it is, and for whom or for what it sells tokens.
    pub kind: Kind,
    /// Where tokens are bought.
    pub auth_url: BaseUrl,
    /// Which certificates are believed.
    pub trust: Trust,
    /// How connections leave this machine.
    pub proxy: Proxy,
}

/// Names a service, with what it alone needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// IBM Software Hub, formerly Cloud Pak for Data: on premises.
    SoftwareHub {
        /// Whose key it is.
        username: String,
        /// The service instance that tokens are for; none: the platform.
        instance: Option<InstanceId>,
    },
    /// IBM Cloud, where IAM sells the tokens.
    IbmCloud,
    /// MCSP, the account service of IBM's software on AWS and in GovCloud. Its version follows from
    /// the path of [`Target::auth_url`]: none is version 2, `/siusermgr` is version 1, and a
    /// path that ends in `/apikeys/token` is called as it stands.
    Mcsp {
        /// What the token is good for; version 2 only.
        scope: Option<Scope>,
    },
}

/// Tells what a [probe](Target::probe) met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The server's certificate; `None` over plain HTTP, which only loopback addresses have.
    pub certificate: Option<Certificate>,
}

impl Target {
    /// Returns whose key it is, where the platform wants to know.
    pub fn username(&self) -> Option<&str> {
        match &self.kind {
            Kind::SoftwareHub { username, .. } => Some(username),
            Kind::IbmCloud | Kind::Mcsp { .. } => None,
        }
    }

    /// Returns what the tokens are good for, where that was narrowed.
    pub fn scope(&self) -> Option<&Scope> {
        match &self.kind {
            Kind::Mcsp { scope } => scope.as_ref(),
            Kind::SoftwareHub { .. } | Kind::IbmCloud => None,
        }
    }

    /// Buys a token with `key`: one request on a connection of its own, repeated by nobody.
    ///
    /// # Errors
    ///
    /// See [`PlatformError`]; whether to try again is the caller's decision.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; a token bought meanwhile is lost, not the key.
    pub async fn buy_token(&self, key: &ApiKey) -> Result<Token, PlatformError> {
        if !key.is_sendable() {
            return Err(PlatformError::Refused { reason: Refusal::Malformed });
        }
        let platform = self.kind.platform();
        let request = platform.request(&self.auth_url, key)?;
        let answer = Box::pin(http::send(self, request, http::TIMEOUTS)).await?;
        platform.read(&answer)
    }

    /// Returns what this platform can do with a key besides selling tokens for it.
    pub fn key_calls(&self) -> KeyCalls<'_> {
        KeyCalls::of(self)
    }

    /// Connects, looks at the server's certificate, and asks for `/` without any secret.
    ///
    /// A certificate that is not trusted is reported like any other, as
    /// [untrusted](Verdict::Untrusted), though nothing is asked from its server.
    ///
    /// # Errors
    ///
    /// When no server answered; the answer itself does not matter.
    pub async fn probe(&self) -> Result<Probe, PlatformError> {
        Box::pin(http::probe(self, http::TIMEOUTS)).await
    }
}

impl Kind {
    fn platform(&self) -> Box<dyn Platform + Send + Sync + '_> {
        match self {
            Self::SoftwareHub { username, instance: None } => Box::new(SoftwareHub { username }),
            Self::SoftwareHub { username, instance: Some(id) } => Box::new(Instance { username, id }),
            Self::IbmCloud => Box::new(IbmCloud),
            Self::Mcsp { scope } => Box::new(Mcsp { scope: scope.as_ref() }),
        }
    }
}

/// What differs between the platforms, free of I/O.
trait Platform {
    /// Returns the request that buys a token.
    fn request(&self, auth_url: &BaseUrl, key: &ApiKey) -> Result<Request, Misconfiguration>;

    /// Reads what the platform answered to it.
    fn read(&self, answer: &Answer) -> Result<Token, PlatformError>;
}
