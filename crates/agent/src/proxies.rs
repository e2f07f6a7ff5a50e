//! What the environment says about proxies, read once.

use dph_agent_platform::{ProxyEnv, ProxyUrl};
use tracing::error;

/// Reads `https_proxy` and `no_proxy`, in small or capital letters.
pub fn from_env() -> ProxyEnv {
    let var = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let https_proxy = var("https_proxy").map(|text| text.parse::<ProxyUrl>());
    if let Some(Err(error)) = &https_proxy {
        // Not repeated: it may hold a password.
        error!(%error, "https_proxy makes no sense: no platform is reached that is not told to do without");
    }
    ProxyEnv { https_proxy, no_proxy: var("no_proxy") }
}
