//! Accept, check who it is, seat; make the socket anew when somebody removed it.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_ipc::{Connection, Listener, Peer, Uid};
use dph_agent_protocol::{ErrorCode, Failure, Reply};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::field::display;
use tracing::{debug, error, info, warn};

use crate::audit::account::turned_away;
use crate::authorize::admit;
use crate::error::{Chain, Problem};
use crate::handle::Desk;
use crate::refusals::{Refusals, Told};
use crate::session;
use crate::sessions::Sessions;

/// Pause after the system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long somebody who is turned away may take to hear it.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until the agent is stopped, then drains and removes the socket. `reloaded` tells that another
/// configuration may be in force.
pub async fn serve(mut listener: Listener, own: Uid, desk: Arc<Desk>, reloaded: Arc<Notify>) {
    let sessions = Sessions::new(Uid::clone(&own));
    let mut refusals = Refusals::default();
    let mut short = false;
    open_to_guests(&listener, &desk);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, peer)) => {
                    if std::mem::take(&mut short) {
                        info!("connections are accepted again");
                    }
                    welcome(connection, peer, &own, &sessions, &mut refusals, &desk);
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
                    open_to_guests(&listener, &desk);
                }
                Err(error) => {
                    error!(error = %Chain(&error), "the socket was removed and cannot be made anew: stopping");
                    desk.stop.cancel();
                    break;
                }
            },
            () = until(refusals.due()) => tell(refusals.tell(Instant::now()), &desk),
            () = reloaded.notified() => {
                open_to_guests(&listener, &desk);
                part_with_strangers(&own, &sessions, &desk);
            }
            () = desk.stop.cancelled() => {
                listener.close();
                break;
            }
        }
    }
    drain(&sessions, &desk).await;
    tell(refusals.finish(), &desk);
}

/// Waits until then; without a time for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Lets the users of `allow-uid` reach the socket, or us alone where there are none; who they are is
/// checked all the same.
fn open_to_guests(listener: &Listener, desk: &Desk) {
    let has_guests = !desk.vault.in_force().borrow().allow_uid.is_empty();
    if let Err(error) = listener.open_to_others(has_guests) {
        warn!(%error, "cannot open the socket to the users of allow-uid, or close it to them");
    }
}

/// Ends the sessions of users who are not listed any more, also those that wait for an answer. Further requests of
/// theirs are refused without that.
fn part_with_strangers(own: &Uid, sessions: &Sessions, desk: &Desk) {
    let config = Arc::clone(&desk.vault.in_force().borrow());
    sessions.part_with(|uid| admit(&Peer { uid: Uid::clone(uid), pid: None }, own, &config).is_err());
}

fn welcome(
    connection: Connection,
    peer: Peer,
    own: &Uid,
    sessions: &Sessions,
    refusals: &mut Refusals,
    desk: &Arc<Desk>,
) {
    let admitted = admit(&peer, own, &desk.vault.in_force().borrow());
    let seat = admitted.and_then(|()| sessions.take_seat(&peer.uid).ok_or_else(no_room));
    let seat = match seat {
        Ok(seat) => seat,
        Err(problem) => {
            tell(refusals.add(&peer, problem.code, Instant::now()), desk);
            return turn_away(connection, problem, sessions);
        }
    };
    let (own, desk) = (Uid::clone(own), Arc::clone(desk));
    sessions.spawn(async move { session::run(connection, peer, own, seat, &desk).await });
}

fn no_room() -> Problem {
    Problem::new(ErrorCode::BUSY, "the agent has no room for another caller", "try again")
}

/// Tells of connections that were turned away, in the log and in the audit log.
fn tell(all: impl IntoIterator<Item = Told>, desk: &Desk) {
    for told in all {
        let (uid, pid) = told.peer.as_ref().map(|peer| (display(&peer.uid), peer.pid)).unzip();
        let (pid, count) = (pid.flatten(), told.count.unwrap_or(1));
        if told.code == ErrorCode::DENIED {
            warn!(uid, pid, count, "refused a connection of another user");
        } else {
            warn!(uid, pid, count, "no room for another session");
        }
        turned_away(&told, desk);
    }
}

/// Says why, without having read a byte.
fn turn_away(mut connection: Connection, problem: Problem, sessions: &Sessions) {
    sessions.spawn(async move {
        let Ok(frame) = Reply::Failure(Failure::from(problem)).to_frame() else { return };
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
