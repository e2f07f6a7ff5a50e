//! Who is connected: a bounded number, where the longest idle makes room for the next, and guests leave room
//! for the agent's own user.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dph_agent_ipc::Uid;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once.
const MAX_SESSIONS: usize = 512;
/// Of these, those that other users than the agent's own may have in all; the rest is kept for that one.
const MAX_OF_GUESTS: usize = 384;
/// Of these, those that one of them may have.
const MAX_OF_GUEST: usize = 128;
/// How long open sessions may go on when the agent stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// All sessions.
#[derive(Clone, Debug)]
pub struct Sessions {
    own: Uid,
    room: Arc<Mutex<Room>>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Room {
    seats: Vec<Taken>,
    next_number: u64,
    closing: bool,
}

#[derive(Debug)]
struct Taken {
    user: Uid,
    leave: CancellationToken,
    idle_since: Option<Instant>,
    number: u64,
}

/// The place of one session; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    room: Arc<Mutex<Room>>,
    leave: CancellationToken,
    number: u64,
}

/// Keeps a session from being asked to leave.
#[derive(Debug)]
pub struct Busy<'a>(&'a Seat);

impl Sessions {
    /// Returns none yet, of an agent that runs as `own`.
    pub fn new(own: Uid) -> Self {
        Self { own, room: Arc::default(), tasks: TaskTracker::new() }
    }

    /// Takes a seat for a new session of `user`. Where all that it may have are taken, the one that was idle longest
    /// has to go; where all are busy, there is none. A guest takes none from the agent's own user.
    pub fn take_seat(&self, user: &Uid) -> Option<Seat> {
        let mut room = lock(&self.room);
        let is_guest = |seat: &Taken| seat.user != self.own;
        if *user == self.own {
            room.make_room(MAX_SESSIONS, |_| true, |_| true)?;
        } else {
            let is_same = |seat: &Taken| seat.user == *user;
            room.make_room(MAX_OF_GUEST, is_same, is_same)?;
            room.make_room(MAX_OF_GUESTS, is_guest, is_guest)?;
            room.make_room(MAX_SESSIONS, |_| true, is_guest)?;
        }
        let (number, leave) = (room.next_number, CancellationToken::new());
        room.next_number += 1;
        let idle_since = Some(Instant::now());
        room.seats.push(Taken { user: Uid::clone(user), leave: leave.clone(), idle_since, number });
        Some(Seat { room: Arc::clone(&self.room), leave, number })
    }

    /// Ends the sessions of users that `goes` names, busy or not.
    pub fn part_with(&self, goes: impl Fn(&Uid) -> bool) {
        let room = lock(&self.room);
        room.seats.iter().filter(|seat| goes(&seat.user)).for_each(|seat| seat.leave.cancel());
    }

    /// Runs a session.
    pub fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(session);
    }

    /// Asks every session to leave, once it is idle; waits a while, and returns how many were left.
    pub async fn drain(&self) -> usize {
        self.close();
        self.tasks.close();
        let _too_late = timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err();
        self.tasks.len()
    }
}

impl Sessions {
    fn close(&self) {
        let mut room = lock(&self.room);
        room.closing = true;
        room.seats.iter().filter(|seat| seat.idle_since.is_some()).for_each(|seat| seat.leave.cancel());
    }
}

impl Room {
    /// Makes sure that fewer than `limit` seats are `counted`, by having the one go that was idle longest of those
    /// that are `sheddable`.
    fn make_room(
        &mut self,
        limit: usize,
        counted: impl Fn(&Taken) -> bool,
        sheddable: impl Fn(&Taken) -> bool,
    ) -> Option<()> {
        if self.seats.iter().filter(|seat| counted(seat)).count() < limit {
            return Some(());
        }
        let seats = self.seats.iter().enumerate().filter(|(_, seat)| sheddable(seat));
        let idlest = seats.filter_map(|(at, seat)| Some((seat.idle_since?, at))).min()?.1;
        self.seats.swap_remove(idlest).leave.cancel();
        Some(())
    }
}

impl Seat {
    /// Waits until the session has to make room.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// Marks the session busy until the returned value is dropped.
    pub fn busy(&self) -> Busy<'_> {
        self.set_idle_since(None);
        Busy(self)
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        let mut room = lock(&self.room);
        if room.closing && since.is_some() {
            self.leave.cancel();
        }
        if let Some(taken) = room.seats.iter_mut().find(|taken| taken.number == self.number) {
            taken.idle_since = since;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set_idle_since(Some(Instant::now()));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.room).seats.retain(|taken| taken.number != self.number);
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Uid = 1000;

    fn take(sessions: &Sessions, user: Uid, count: usize) -> Vec<Seat> {
        (0..count).filter_map(|_| sessions.take_seat(&user)).collect()
    }

    #[tokio::test]
    async fn the_longest_idle_session_makes_room_and_a_busy_one_does_not() {
        let sessions = Sessions::new(OWN);
        let seats = take(&sessions, OWN, MAX_SESSIONS);
        let _busy = seats[0].busy();
        let new = sessions.take_seat(&OWN).unwrap();
        seats[1].asked_to_leave().await;
        assert!(!seats[0].leave.is_cancelled() && !seats[2].leave.is_cancelled());
        drop(new);
    }

    #[tokio::test]
    async fn there_is_no_seat_when_everybody_is_busy() {
        let sessions = Sessions::new(OWN);
        let seats = take(&sessions, OWN, MAX_SESSIONS);
        let busy: Vec<_> = seats.iter().map(Seat::busy).collect();
        assert!(sessions.take_seat(&OWN).is_none());
        drop(busy);
        assert!(sessions.take_seat(&OWN).is_some());
    }

    #[tokio::test]
    async fn one_guest_leaves_room_for_others_and_all_leave_room_for_the_own_user() {
        let sessions = Sessions::new(OWN);
        let mut seats = take(&sessions, 1, MAX_OF_GUEST);
        let first: Vec<_> = seats.iter().map(Seat::busy).collect();
        assert!(sessions.take_seat(&1).is_none(), "all of its own are busy");
        drop(first);
        (2..10).for_each(|guest| seats.extend(take(&sessions, guest, MAX_OF_GUEST)));
        let busy: Vec<_> = seats.iter().map(Seat::busy).collect();
        assert!(sessions.take_seat(&20).is_none(), "guests have all that they may have");
        assert_eq!(take(&sessions, OWN, MAX_SESSIONS).len(), MAX_SESSIONS);
        drop(busy);
    }

    #[tokio::test]
    async fn a_guest_makes_none_of_the_own_users_sessions_leave() {
        let sessions = Sessions::new(OWN);
        let seats = take(&sessions, OWN, MAX_SESSIONS);
        assert!(sessions.take_seat(&1).is_none());
        assert!(seats.iter().all(|seat| !seat.leave.is_cancelled()));
    }

    #[tokio::test]
    async fn sessions_of_users_who_are_not_listed_any_more_end_busy_or_not() {
        let sessions = Sessions::new(OWN);
        let (own, guests) = (take(&sessions, OWN, 1), take(&sessions, 1, 2));
        let _busy = guests[0].busy();
        sessions.part_with(|uid| *uid == 1);
        assert!(guests.iter().all(|seat| seat.leave.is_cancelled()) && !own[0].leave.is_cancelled());
    }
}
