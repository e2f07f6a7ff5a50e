//! What the environment says about proxies, read once.

use dph_agent_platform::ProxyEnv;
use tracing::warn;

/// Reads `https_proxy` and `no_proxy`, in small or capital letters.
pub fn from_env() -> ProxyEnv {
    let var = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let https_proxy = var("https_proxy").and_then(|text| {
        let parsed = text.parse();
        if parsed.is_err() {
            // Not repeated: it may hold a password.
            warn!("https_proxy is not a URL such as http://proxy:3128: platforms are reached directly");
        }
        parsed.ok()
    });
    ProxyEnv { https_proxy, no_proxy: var("no_proxy") }
}
