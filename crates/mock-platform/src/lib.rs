//! A server on loopback that plays the IBM endpoints, with faults on demand.
//!
//! It runs on a thread of its own, so that plain synchronous tests can use it:
//!
//! ```
//! use dph_agent_mock_platform::{Endpoint, Fault, MockPlatform, Times};
//!
//! let platform = MockPlatform::start();
//! platform.add_user("alice", "an-api-key");
//! platform.script(Endpoint::Authorize, Fault::Unauthorized { json: true }, Times::Once);
//! // … the code under test talks to platform.url(), trusting platform.ca_pem() …
//! assert_eq!(platform.exchanges(), 0);
//! ```
//!
//! Tokens look like JWTs, but their signatures are random bytes. Software Hub's `GET` that
//! generates an API key kills the old one; unless a test allows it, calling it fails the test.

mod accounts;
mod answer;
mod caller;
mod data_products;
mod endpoint;
mod iam_keys;
mod ibm_cloud;
mod mcsp;
mod mint;
mod random;
mod recorded;
mod script;
mod server;
mod software_hub;
mod state;
mod tls;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

pub use caller::call;
pub use endpoint::Endpoint;
pub use random::api_key;
pub use recorded::Recorded;
pub use script::{Fault, RetryAfter, Times};

use accounts::IamKey;
use server::{Command, Port, Shared};
use state::State;
use tls::Identity;

/// How a platform is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The server's certificate is signed by itself instead of by an authority.
    pub self_signed: bool,
    /// Plain HTTP instead of TLS.
    pub plain_http: bool,
    /// The port; `None` lets the system choose.
    pub port: Option<u16>,
    /// The life of every token; `None` for what is usual on each platform.
    pub token_life: Option<Duration>,
    /// Data Product Hub accepts `ZenApiKey` besides bearer tokens.
    pub accept_zen_api_key: bool,
    /// The bearer tokens of a Software Hub user end when a new key is generated; otherwise they live on,
    /// which of the real service nobody knows.
    pub bearers_die_with_key: bool,
    /// The most keys on a page of IBM Cloud's list; `None` for the 100 that IBM documents.
    pub iam_page_len: Option<usize>,
    /// Called with every request once it is answered, or will not be.
    pub on_answer: Option<fn(&Recorded)>,
}

/// A running platform; dropping it stops the server.
///
/// # Panics
///
/// Dropping it panics if the key-generating call was made without
/// [`MockPlatform::allow_key_generation`], so that the test fails.
#[derive(Debug)]
pub struct MockPlatform {
    url: String,
    identity: Identity,
    shared: Arc<Shared>,
    commands: Option<UnboundedSender<Command>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl MockPlatform {
    /// Starts a platform with TLS, its own authority and nobody who may buy tokens.
    ///
    /// # Panics
    ///
    /// If loopback has no free port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a platform as `options` say.
    ///
    /// # Panics
    ///
    /// As [`MockPlatform::try_start`] fails.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot start its platform has failed")]
    pub fn start_with(options: Options) -> Self {
        Self::try_start(options).expect("the mock platform starts")
    }

    /// Starts a platform as `options` say.
    ///
    /// # Errors
    ///
    /// The port is taken, or a certificate or thread cannot be made.
    pub fn try_start(options: Options) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let identity = if options.self_signed { Identity::self_signed()? } else { Identity::signed()? };
        let tls = (!options.plain_http).then(|| identity.server_config()).transpose()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        // Entered and not blocked on, so that a test that is itself asynchronous can start a platform.
        let port = {
            let _entered = runtime.enter();
            Port::open(options.port.unwrap_or(0))?
        };
        let scheme = if options.plain_http { "http" } else { "https" };
        let url = format!("{scheme}://localhost:{}", port.number());
        let shared = Arc::new(Shared::new(State::new(&options), options.on_answer));
        let (commands, receiver) = unbounded_channel();
        let server = server::run(
            port,
            tls.map(|config| TlsAcceptor::from(Arc::new(config))),
            Arc::clone(&shared),
            receiver,
        );
        let thread =
            thread::Builder::new().name("mock-platform".into()).spawn(move || runtime.block_on(server))?;
        Ok(Self { url, identity, shared, commands: Some(commands), thread: Some(thread) })
    }

    /// Returns `https://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Returns the authority's certificate; the server's own where it is self-signed.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.identity.ca_pem
    }

    /// Writes [`MockPlatform::ca_pem`] into a file in `dir` and returns its path.
    ///
    /// # Panics
    ///
    /// If `dir` cannot be written.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot write its files has failed")]
    pub fn write_ca(&self, dir: &Path) -> PathBuf {
        let path = dir.join("mock-platform-ca.pem");
        fs::write(&path, self.ca_pem()).expect("the folder can be written");
        path
    }

    /// Returns the SHA-256 of the server's certificate as `sha256:<hex>`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.identity.fingerprint()
    }

    /// Adds a user of Software Hub, or gives a known one another key in place of the old.
    pub fn add_user(&self, username: &str, api_key: &str) {
        self.shared.state().accounts.add_hub_user(username, api_key);
    }

    /// Adds an API key of IBM Cloud. All belong to one user.
    pub fn add_iam_key(&self, api_key: &str) {
        self.add_named_iam_key("mock", api_key);
    }

    /// Adds an API key of IBM Cloud with this name, and returns its id.
    pub fn add_named_iam_key(&self, name: &str, api_key: &str) -> String {
        self.shared.state().accounts.add_iam_key(IamKey::new(name, api_key))
    }

    /// Locks an API key of IBM Cloud, so that it cannot be deleted, or unlocks it.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn set_iam_key_locked(&self, api_key: &str, locked: bool) {
        self.change_iam_key(api_key, |key| key.locked = locked);
    }

    /// Disables an API key of IBM Cloud, so that it buys nothing, or enables it.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn set_iam_key_disabled(&self, api_key: &str, disabled: bool) {
        self.change_iam_key(api_key, |key| key.disabled = disabled);
    }

    /// Sets when an API key of IBM Cloud ends, in IAM's form; that is told, and has no effect.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn set_iam_key_expires_at(&self, api_key: &str, expires_at: &str) {
        self.change_iam_key(api_key, |key| key.expires_at = Some(expires_at.to_owned()));
    }

    /// Returns the names of the API keys of IBM Cloud, oldest first.
    #[must_use]
    pub fn iam_key_names(&self) -> Vec<String> {
        self.shared.state().accounts.iam_keys.iter().map(|key| key.name.clone()).collect()
    }

    /// Returns whether `api_key` buys tokens on any platform.
    #[must_use]
    pub fn is_valid_key(&self, api_key: &str) -> bool {
        self.shared.state().accounts.is_valid(api_key)
    }

    /// Gives a user of Software Hub a new key in place of the old, as if it were done in the web client,
    /// and returns it.
    pub fn generate_key_elsewhere(&self, username: &str) -> String {
        self.shared.state().generate_key(username)
    }

    /// Sets what Software Hub says in `expire_at` of the keys that it generates from now on; null is
    /// usual. In what form is not public.
    pub fn set_expire_at(&self, expire_at: impl Into<Value>) {
        self.shared.state().expire_at = expire_at.into();
    }

    /// Adds an API key of MCSP.
    pub fn add_mcsp_key(&self, api_key: &str) {
        self.shared.state().accounts.add_mcsp_key(api_key);
    }

    /// Makes `api_key` worthless on every platform; tokens that it bought live on.
    pub fn revoke_key(&self, api_key: &str) {
        self.shared.state().accounts.revoke(api_key);
    }

    /// Sets the life of tokens bought from now on, in whole seconds.
    pub fn set_token_life(&self, life: Duration) {
        self.shared.state().mint.life = Some(life);
    }

    /// Sets the platform's clock ahead, or behind where `seconds` is negative.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.state().clock_skew = seconds;
    }

    /// Spoils the answers of `endpoint`. Scripts for the same endpoint follow each other.
    pub fn script(&self, endpoint: Endpoint, fault: Fault, times: Times) {
        self.shared.state().scripts.add(endpoint, fault, times);
    }

    /// Forgets every script.
    pub fn clear_scripts(&self) {
        self.shared.state().scripts.clear();
    }

    /// Returns the requests so far, in order of arrival, secrets included.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// Returns how often a token was asked for, whatever the outcome.
    #[must_use]
    pub fn exchanges(&self) -> usize {
        self.shared.state().exchanges
    }

    /// Waits until a token has been asked for at least `n` times; says whether that was `within`.
    #[must_use]
    pub fn wait_for_exchanges(&self, n: usize, within: Duration) -> bool {
        let arrival = &self.shared.arrival;
        let waited = arrival.wait_timeout_while(self.shared.state(), within, |state| state.exchanges < n);
        waited.unwrap_or_else(PoisonError::into_inner).0.exchanges >= n
    }

    /// Waits until there have been at least `n` requests to `endpoint`; says whether that was `within`.
    #[must_use]
    pub fn wait_for_requests(&self, endpoint: Endpoint, n: usize, within: Duration) -> bool {
        let is_missing = |state: &mut State| {
            state.requests.iter().filter(|request| endpoint.covers(request.endpoint)).count() < n
        };
        let waited = self.shared.arrival.wait_timeout_while(self.shared.state(), within, is_missing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Holds requests that arrive from now on until [`MockPlatform::resume`]. They are recorded
    /// and counted on arrival; scripts and answers are chosen after it.
    pub fn pause(&self) {
        self.pause_at(Endpoint::Any);
    }

    /// Holds requests to `endpoint` alone, so that a test can do something before they are answered.
    pub fn pause_at(&self, endpoint: Endpoint) {
        self.shared.paused.send_replace(Some(endpoint));
    }

    /// Lets requests go on.
    pub fn resume(&self) {
        self.shared.paused.send_replace(None);
    }

    /// Closes every connection and refuses new ones.
    pub fn stop_listening(&self) {
        self.tell(Command::StopListening);
    }

    /// Accepts connections again, on the same port.
    pub fn listen_again(&self) {
        self.tell(Command::ListenAgain);
    }

    /// Allows the call that generates an API key, which is a violation otherwise.
    pub fn allow_key_generation(&self) {
        self.shared.state().key_generation_allowed = true;
    }

    /// Returns what was called that must not be.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.state().violations.clone()
    }

    #[expect(clippy::expect_used, reason = "a test that names a key that is not there has failed")]
    fn change_iam_key(&self, api_key: &str, change: impl FnOnce(&mut IamKey)) {
        change(self.shared.state().accounts.iam_key_mut(api_key).expect("a key of IBM Cloud"));
    }

    /// Sends a command and waits until it is carried out.
    #[expect(clippy::expect_used, reason = "the server ends before its platform only if its port is lost")]
    fn tell(&self, command: impl FnOnce(mpsc::Sender<()>) -> Command) {
        let (done, wait) = mpsc::channel();
        let sent = self.commands.as_ref().map(|commands| commands.send(command(done)));
        sent.and_then(Result::ok).and_then(|()| wait.recv().ok()).expect("the mock platform's server runs");
    }
}

impl Drop for MockPlatform {
    #[expect(clippy::panic, reason = "a violation fails the test, whatever else it asserts")]
    fn drop(&mut self) {
        drop(self.commands.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            return;
        }
        let violations = self.violations();
        assert!(violations.is_empty(), "the mock platform was misused: {violations:?}");
        if !matches!(ended, None | Some(Ok(Ok(())))) {
            panic!("the mock platform's server failed: {ended:?}");
        }
    }
}
