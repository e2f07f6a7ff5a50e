//! The key of a profile as things stand, for what is done with the key itself.

use std::sync::Arc;

use dph_agent_protocol::ErrorCode;

use super::Desk;
use crate::binding::{self, Binding};
use crate::config::Profile;
use crate::error::Problem;
use crate::exchange;
use crate::kept_key::KeptKey;
use crate::key_source::Found;
use crate::vault::HeldKey;

/// Returns the key of a profile, held or read, with what it was given for, if it may be used as things stand. What
/// is read here is not kept.
///
/// # Errors
///
/// When there is none, it is withheld, or it was given for something else than the configuration says now.
pub(super) async fn key_of(profile: &Arc<Profile>, desk: &Desk) -> Result<HeldKey, Problem> {
    let target = exchange::target(profile, &desk.surroundings.proxies).await?;
    let now = Binding::of(profile.platform(), &target);
    let key = match desk.vault.usable_key(profile.name.clone()).await? {
        Some(held) => held,
        None => read(profile, &now, desk).await?,
    };
    if key.binding.permits(&now) { Ok(key) } else { Err(binding::changed(profile, &key.binding, &now)) }
}

async fn read(profile: &Arc<Profile>, now: &Binding, desk: &Desk) -> Result<HeldKey, Problem> {
    let found = profile.key_source.read(profile, &desk.surroundings.sealed).await?;
    let Some(Found { key, binding }) = found else {
        return Err(Problem::new(
            ErrorCode::NO_KEY,
            format!("profile `{}` holds no key", profile.name),
            format!("hand it over: dph-agent-client add --profile {}", profile.name),
        ));
    };
    if binding.is_none() {
        let (bindings, profile, now) =
            (Arc::clone(&desk.surroundings.bindings), Arc::clone(profile), now.clone());
        exchange::blocking(move || bindings.check(&profile, &now)).await??;
    }
    Ok(HeldKey {
        key: Arc::new(KeptKey::new(&desk.surroundings.pool, &key)?),
        binding: binding.unwrap_or_else(|| now.clone()),
        added_at: desk.surroundings.clock.wall(),
        until: None,
    })
}
