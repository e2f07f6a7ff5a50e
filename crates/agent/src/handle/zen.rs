//! `zen`: the key itself, in the header that Software Hub takes it in, where the configuration allows it.

use dph_agent_platform::{Kind, zen_header};
use dph_agent_protocol::{ErrorCode, Reply, Secret, Zen, ZenHeader};
use tokio::time::Instant;
use tracing::info;

use super::current_key::key_of;
use super::gate::{Wanted, permitted};
use super::{Desk, left_ms, limit, named, within};
use crate::caller::Asker;
use crate::config::Profile;
use crate::error::Problem;

/// Returns the header, once the configuration, the profile's policy and whoever is asked let it go.
pub(super) async fn zen(request: Zen, asker: &Asker, desk: &Desk) -> Result<Reply, Problem> {
    let end = Instant::now() + limit(request.deadline_ms);
    // Nobody is asked to confirm what cannot be had.
    user(&*desk.vault.select(request.selector.clone()).await?)?;
    let name = permitted(request.selector, Wanted::Key, end, asker, desk).await?;
    let header = async {
        let profile = desk.vault.select(named(&name)).await?;
        // The configuration may have changed while the request waited.
        let username = user(&profile)?;
        // A key that is being made invalid goes to nobody any more.
        desk.changes.none_for(&profile.name)?;
        let held = key_of(&profile, desk).await?;
        let header = zen_header(username, &held.key.expose());
        Ok(ZenHeader {
            header: Secret::new(header.expose().to_owned()),
            profile: profile.name.to_string(),
            url: profile.url.to_string(),
        })
    };
    let header = within(left_ms(end), header, "reading the key", desk).await?;
    info!(profile = header.profile, "a header that contains the key was handed out");
    Ok(Reply::Zen(header))
}

/// Returns whose key is in the header, where the profile's platform takes one and the configuration allows it.
fn user(profile: &Profile) -> Result<&str, Problem> {
    let no_header = |why: &str| {
        let message = format!("profile `{}` has no ZenApiKey header: {why}", profile.name);
        Err(Problem::new(ErrorCode::UNSUPPORTED, message, "use a bearer token: --format header"))
    };
    match &profile.kind {
        Kind::IbmCloud | Kind::Mcsp { .. } => no_header("only software-hub takes them"),
        Kind::SoftwareHub { instance: Some(_), .. } => no_header("its tokens are for one service instance"),
        Kind::SoftwareHub { .. } if !profile.allow_zen => Err(Problem::new(
            ErrorCode::DENIED,
            format!("profile `{}` allows no ZenApiKey header, which contains the key", profile.name),
            "use a bearer token, or write `allow-zen = true` into the profile and have the agent read it",
        )),
        Kind::SoftwareHub { username, .. } => Ok(username),
    }
}
