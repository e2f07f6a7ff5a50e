//! The place where the agent listens, and that it is the only one there.

use std::path::PathBuf;
use std::time::Duration;

use dph_agent_ipc::{
    Endpoint, EndpointError, Listener, Rule, Surroundings, passed_over, place, prepare_folder,
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::error::Chain;
use crate::only_one::OnlyOne;
use crate::paths::Paths;
use crate::sessions::DRAIN_TIMEOUT;
use crate::{Options, StartError};

/// Pause between two looks at whether an agent that is ending has gone.
const HANDOVER_PAUSE: Duration = Duration::from_millis(20);

/// A listener, and where it was not named the right to be this user's only agent.
pub(crate) type Place = (Listener, Option<OnlyOne>);

/// Takes the place that was named, the one that a supervisor handed over, or the user's own, as soon
/// as an agent that is just ending has gone.
///
/// # Errors
///
/// When there is no place, or somebody else has it.
pub(crate) async fn take_place(options: &Options, paths: &Paths) -> Result<Place, StartError> {
    #[cfg(target_os = "linux")]
    if options.socket.is_none()
        && let Some(place) = activated(paths)?
    {
        return Ok(place);
    }
    let end = Instant::now() + DRAIN_TIMEOUT + Duration::from_secs(1);
    loop {
        match listen(options.socket.clone(), paths).await {
            Err(error) if error.is_handover() && Instant::now() < end => sleep(HANDOVER_PAUSE).await,
            done => return done,
        }
    }
}

/// Returns the place that systemd made for the agent, if it started it for that.
#[cfg(target_os = "linux")]
fn activated(paths: &Paths) -> Result<Option<Place>, StartError> {
    let Some(socket) = crate::notify::activated_socket().map_err(StartError::Activation)? else {
        return Ok(None);
    };
    let listener = Listener::from_fd(socket).map_err(StartError::Activation)?;
    let only_one = OnlyOne::become_it(&paths.lock(), listener.endpoint())?;
    Ok(Some((listener, Some(only_one))))
}

async fn listen(named: Option<PathBuf>, paths: &Paths) -> Result<Place, StartError> {
    if let Some(path) = named {
        let endpoint = Endpoint::new(path)?;
        prepare_folder(&endpoint)?;
        return Ok((Listener::bind(&endpoint).await?, None));
    }
    let endpoint = own_place()?;
    let only_one = OnlyOne::become_it(&paths.lock(), &endpoint)?;
    Ok((Listener::bind(&endpoint).await?, Some(only_one)))
}

/// Returns the first usable place of this user, and says why it is not the one that the environment names.
fn own_place() -> Result<Endpoint, EndpointError> {
    let surroundings = Surroundings::from_env();
    for (rule, error) in passed_over(&surroundings) {
        let error = Chain(&error);
        if rule == Rule::RuntimeDir {
            warn!(%error, "cannot listen below {rule}: trying the next place");
        } else {
            debug!(%error, "cannot listen below {rule}: trying the next place");
        }
    }
    place(&surroundings)
}
