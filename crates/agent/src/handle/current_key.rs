//! The key of a profile as things stand, for what is done with the key itself.

use std::sync::Arc;

use super::Desk;
use crate::config::Profile;
use crate::error::Problem;
use crate::exchange;
use crate::vault::HeldKey;

/// Returns the key of a profile, held or read, with what it was given for, if it may be used as things stand. What
/// is read here is not kept.
///
/// # Errors
///
/// When there is none, it is withheld, or it was given for something else than the configuration says now.
pub(super) async fn key_of(profile: &Arc<Profile>, desk: &Desk) -> Result<HeldKey, Problem> {
    let held = desk.vault.usable_key(profile.name.clone()).await?;
    Ok(exchange::usable_key(profile, held, &desk.surroundings).await?.1)
}
