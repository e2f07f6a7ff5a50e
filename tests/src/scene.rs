//! A platform that knows alice, and a home from which her key is used.

use dph_agent_mock_platform::MockPlatform;
use serde_json::Value;

use crate::{AgentProcess, Home, Ran};

/// Alice's key.
pub const KEY: &str = "k3y-of-alice-0123456789-abcdefghijkl";

/// The platform, and a home in which its CA lies.
#[derive(Debug)]
pub struct Scene {
    pub home: Home,
    pub platform: MockPlatform,
    pub ca: String,
}

impl Scene {
    pub fn new() -> Self {
        let (home, platform) = (Home::new(), MockPlatform::start());
        platform.add_user("alice", KEY);
        let ca = platform.write_ca(&home.path(".")).canonicalize().unwrap().display().to_string();
        Self { home, platform, ca }
    }

    /// Starts an agent that holds alice's key in memory only, and a token.
    pub fn warm(&self) -> AgentProcess<'_> {
        let agent = self.home.start_agent();
        self.add("session", &["--key-stdin"]).unwrap();
        agent
    }

    /// Adds alice's key as the profile `default`, from a source or handed over for it.
    pub fn add(&self, source: &str, more: &[&str]) -> Ran {
        let url = self.platform.url();
        let add = ["add", "--platform", "software-hub", "--url", &url, "--username", "alice"];
        let add = [&add[..], &["--ca-file", &self.ca, "--key-source", source], more].concat();
        self.home.client_with(&add, KEY)
    }

    /// Locks the agent behind a passphrase that was not set before.
    pub fn lock(&self, passphrase: &str) {
        self.home.client_with(&["lock", "--set-passphrase", "--passphrase-stdin"], passphrase).unwrap();
    }

    pub fn unlock(&self, passphrase: &str) -> Ran {
        self.home.client_with(&["unlock", "--passphrase-stdin"], passphrase)
    }

    pub fn is_locked(&self) -> bool {
        self.status().pointer("/agent/locked").and_then(Value::as_bool).unwrap()
    }

    /// Returns what `status` says of the profile `default`.
    pub fn profile(&self) -> Value {
        self.status().pointer("/profiles/0").unwrap().clone()
    }

    /// Returns what `status` says.
    pub fn status(&self) -> Value {
        self.home.client(&["status", "--json"]).json()
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}
