//! Accept, check who it is, seat; make the socket anew when somebody removed it.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_ipc::{Accepted, Connection, Listener, Peer, Uid};
use dph_agent_protocol::{ErrorCode, Failure, Reply};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::audit::account::turned_away;
use crate::error::Chain;
use crate::handle::Desk;
use crate::session;
use crate::sessions::Sessions;

/// Pause after the system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long somebody who is turned away may take to hear it.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until the agent is stopped, then drains and removes the socket. `reloaded` tells that another
/// configuration may be in force.
pub async fn serve(mut listener: Listener, own: Uid, desk: Arc<Desk>, reloaded: Arc<Notify>) {
    let sessions = Sessions::default();
    let mut short = false;
    open_to_guests(&listener, &desk).await;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, peer)) => {
                    if std::mem::take(&mut short) {
                        info!("connections are accepted again");
                    }
                    welcome(connection, peer, &own, &sessions, &desk).await;
                }
                Err(error) => {
                    if std::mem::replace(&mut short, true) {
                        debug!(%error, "still cannot accept a connection");
                    } else {
                        warn!(%error, "cannot accept a connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = listener.removed() => match listener.rebind().await {
                Ok(anew) => {
                    info!(socket = desk.endpoint, "the socket was removed: made it anew");
                    listener = anew;
                    open_to_guests(&listener, &desk).await;
                }
                Err(error) => {
                    error!(error = %Chain(&error), "the socket was removed and cannot be made anew: stopping");
                    desk.stop.cancel();
                    break drain(&sessions, &desk).await;
                }
            },
            () = reloaded.notified() => open_to_guests(&listener, &desk).await,
            () = desk.stop.cancelled() => {
                listener.close();
                break drain(&sessions, &desk).await;
            }
        }
    }
}

/// Lets the users of `allow-uid` reach the socket, or us alone where there are none; who they are is
/// checked all the same.
async fn open_to_guests(listener: &Listener, desk: &Desk) {
    let Ok(config) = desk.vault.config().await else { return };
    if let Err(error) = listener.open_to_others(!config.allow_uid.is_empty()) {
        warn!(%error, "cannot open the socket to the users of allow-uid, or close it to them");
    }
}

#[cfg_attr(unix, expect(clippy::clone_on_copy, reason = "on Windows a user is a text"))]
async fn welcome(connection: Connection, peer: Peer, own: &Uid, sessions: &Sessions, desk: &Arc<Desk>) {
    let allowed = desk.vault.config().await.map(|config| config.allow_uid.clone()).unwrap_or_default();
    if !Accepted::new(own.clone(), guests(&allowed)).permits(&peer) {
        warn!(uid = %peer.uid, pid = peer.pid, "refused a connection of another user");
        turned_away(&peer, ErrorCode::DENIED, desk);
        let what = format!("the agent serves user {own}, not user {}", peer.uid);
        return turn_away(
            connection,
            ErrorCode::DENIED,
            what,
            "run your own agent: dph-agent start",
            sessions,
        );
    }
    let Some(seat) = sessions.take_seat() else {
        debug!("no room for another session");
        turned_away(&peer, ErrorCode::BUSY, desk);
        let what = "the agent has no room for another caller".to_owned();
        return turn_away(connection, ErrorCode::BUSY, what, "try again", sessions);
    };
    let (own, desk) = (own.clone(), Arc::clone(desk));
    sessions.spawn(async move { session::run(connection, peer, own, seat, &desk).await });
}

#[cfg(unix)]
pub(crate) fn guests(allowed: &[u32]) -> Vec<Uid> {
    allowed.to_vec()
}

/// User numbers mean nothing on Windows.
#[cfg(windows)]
pub(crate) fn guests(_allowed: &[u32]) -> Vec<Uid> {
    Vec::new()
}

/// Says why, without having read a byte.
fn turn_away(mut connection: Connection, code: ErrorCode, message: String, hint: &str, sessions: &Sessions) {
    let failure = Failure { code, message, hint: hint.to_owned(), retry_after_ms: None };
    sessions.spawn(async move {
        let Ok(frame) = Reply::Failure(failure).to_frame() else { return };
        // Somebody who does not listen misses only a courtesy.
        let _unheard = timeout(TURN_AWAY_TIMEOUT, connection.write_all(&frame)).await.is_err();
    });
}

async fn drain(sessions: &Sessions, desk: &Desk) {
    desk.vault.end().await;
    let open = sessions.drain().await;
    if open > 0 {
        warn!(open, "stopped with sessions still open");
    }
}
