//! When a key ends, where its platform tells: asked for beside the exchanges, so that no token waits for it.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_platform::{KeyCalls, Kind, TokenText};
use dph_agent_protocol::Secret;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::binding::Binding;
use crate::clock::Steady;
use crate::config::Profile;
use crate::error::Chain;
use crate::exchange;
use crate::kept_key::KeptKey;
use crate::vault::{HeldKey, Surroundings};

/// A platform is asked again about the same key after this time.
const ASK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a platform told about a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Told {
    /// When it was asked last, whatever came of it.
    asked: Duration,
    /// When the key ends, in seconds since 1970, as far as it told.
    pub expires_at: Option<i64>,
}

/// A question about a key.
#[derive(Debug)]
pub struct Question {
    /// Whose key.
    pub profile: Arc<Profile>,
    /// The key.
    pub held: HeldKey,
    /// A token that it bought.
    pub bearer: Secret,
}

/// The answer to it.
#[derive(Debug)]
pub struct Answer {
    /// Whose key.
    pub profile: Arc<Profile>,
    /// The key.
    pub key: Arc<KeptKey>,
    /// When it ends, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
}

/// Returns what is known once the platform is asked now, if it is time to ask about a key.
pub fn due(profile: &Profile, told: Option<Told>, now: Steady) -> Option<Told> {
    let is_due = told.is_none_or(|told| now.since(Steady(told.asked)) >= ASK_EVERY);
    let expires_at = told.and_then(|told| told.expires_at);
    (profile.kind == Kind::IbmCloud && is_due).then_some(Told { asked: now.0, expires_at })
}

impl Question {
    /// Asks. What goes wrong is nobody's trouble: the key buys tokens all the same.
    pub async fn ask(self, surroundings: Surroundings) -> Option<Answer> {
        let Self { profile, held, bearer } = self;
        let target = exchange::target(&profile, &surroundings.proxies).await.ok()?;
        if !held.binding.permits(&Binding::of(profile.platform(), &target)) {
            return None;
        }
        let KeyCalls::IbmCloud(keys) = target.key_calls() else { return None };
        let bearer = TokenText::new(bearer.expose().to_owned());
        match keys.details(&bearer, &held.key.expose()).await {
            Ok(details) => Some(Answer { profile, key: held.key, expires_at: details.expires_at }),
            Err(error) => {
                debug!(profile = %profile.name, error = %Chain(&error), "the platform does not tell when the key ends");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::{PlatformKind, Settings};

    use super::*;

    fn profile(platform: PlatformKind) -> Profile {
        let settings = Settings {
            platform: Some(platform),
            url: Some("https://dph.example.com".to_owned()),
            ..Settings::default()
        };
        Profile::build("p".parse().unwrap(), &settings).unwrap()
    }

    #[test]
    fn a_platform_that_tells_is_asked_once_a_day_and_what_it_told_stays() {
        let (cloud, start) = (profile(PlatformKind::IBM_CLOUD), Steady(Duration::from_secs(1000)));
        let told = due(&cloud, None, start).unwrap();
        assert_eq!(told.expires_at, None);
        let told = Some(Told { expires_at: Some(7), ..told });
        assert!(due(&cloud, told, start + ASK_EVERY.mul_f64(0.99)).is_none());
        assert_eq!(due(&cloud, told, start + ASK_EVERY).unwrap().expires_at, Some(7));
        assert!(due(&profile(PlatformKind::MCSP), None, start).is_none());
    }
}
