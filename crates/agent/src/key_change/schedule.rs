//! `rotate-every`: keys that are replaced when they are old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::KeyChanges;
use super::rotating::check;
use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::{self, blocking};
use crate::vault::{ChangeKind, VaultHandle};

/// Longest pause between two looks, for the wall clock may be set and the machine may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// A rotation that came to nothing is tried again after this.
const TRY_EVERY: i64 = 24 * 60 * 60;

/// Begins rotations when they are due. Sleeps for good while no profile has one.
pub async fn rotate_when_due(changes: Arc<KeyChanges>, vault: VaultHandle) {
    let mut in_force = vault.in_force();
    let mut tried = HashMap::new();
    loop {
        let config = Arc::clone(&in_force.borrow_and_update());
        let pause = changes.begin_due(&config, &mut tried).await;
        let look_again = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = look_again => {}
            changed = in_force.changed() => if changed.is_err() { return },
        }
    }
}

impl KeyChanges {
    /// Begins what is due; returns when to look again, if there is anything to look at.
    async fn begin_due(
        self: &Arc<Self>,
        config: &Config,
        tried: &mut HashMap<ProfileName, i64>,
    ) -> Option<Duration> {
        let mut pause = None;
        for profile in config.profiles.values() {
            let Some(every) = profile.rotate_every else { continue };
            let left = self.time_left(profile, every, tried).await;
            if left.is_zero() {
                tried.insert(profile.name.clone(), self.tools.surroundings.clock.wall());
                self.begin_one(profile).await;
            }
            let next = if left.is_zero() { LOOK_EVERY } else { left.min(LOOK_EVERY) };
            pause = Some(pause.map_or(next, |pause: Duration| pause.min(next)));
        }
        pause
    }

    /// Returns how long the key of a profile may still be used.
    async fn time_left(
        &self,
        profile: &Profile,
        every: Duration,
        tried: &HashMap<ProfileName, i64>,
    ) -> Duration {
        let now = self.tools.surroundings.clock.wall();
        let (journal, name) = (self.tools.journal.clone(), profile.name.clone());
        let since = match blocking(move || journal.age_from(&name, now)).await {
            Ok(Ok(since)) => since,
            Ok(Err(error)) => {
                warn!(profile = %profile.name, %error, "cannot tell how old the key is: not rotated");
                return LOOK_EVERY;
            }
            Err(_stopping) => return LOOK_EVERY,
        };
        let due = since.saturating_add_unsigned(every.as_secs());
        let again = tried.get(&profile.name).map_or(i64::MIN, |tried| tried.saturating_add(TRY_EVERY));
        Duration::from_secs(due.max(again).saturating_sub(now).try_into().unwrap_or(0))
    }

    async fn begin_one(self: &Arc<Self>, profile: &Profile) {
        info!(profile = %profile.name, "its key is as old as rotate-every lets it be");
        if let Err(problem) = self.try_begin(profile).await {
            warn!(profile = %profile.name, problem = problem.message, "its key is not rotated");
        }
    }

    async fn try_begin(self: &Arc<Self>, profile: &Profile) -> Result<(), Problem> {
        let target = exchange::target(profile, &self.tools.surroundings.proxies).await?;
        check(profile, &target).await?;
        self.begin(ChangeKind::Rotate, &profile.name).await.map(drop)
    }
}
