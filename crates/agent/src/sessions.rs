//! Who is connected: a bounded number, where the longest idle makes room for the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once.
const MAX_SESSIONS: usize = 512;
/// How long open sessions may go on when the agent stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// All sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
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
    /// Takes a seat for a new session. Where all are taken, the one that was idle longest has to go;
    /// where all are busy, there is none.
    pub fn take_seat(&self) -> Option<Seat> {
        let mut room = lock(&self.room);
        if room.seats.len() >= MAX_SESSIONS {
            let seats = room.seats.iter().enumerate();
            let idlest = seats.filter_map(|(at, seat)| Some((seat.idle_since?, at))).min()?.1;
            room.seats.swap_remove(idlest).leave.cancel();
        }
        let (number, leave) = (room.next_number, CancellationToken::new());
        room.next_number += 1;
        room.seats.push(Taken { leave: leave.clone(), idle_since: Some(Instant::now()), number });
        Some(Seat { room: Arc::clone(&self.room), leave, number })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_session_makes_room_and_a_busy_one_does_not() {
        let sessions = Sessions::default();
        let seats: Vec<_> = (0..MAX_SESSIONS).filter_map(|_| sessions.take_seat()).collect();
        let _busy = seats[0].busy();
        let new = sessions.take_seat().unwrap();
        seats[1].asked_to_leave().await;
        assert!(!seats[0].leave.is_cancelled() && !seats[2].leave.is_cancelled());
        drop(new);
    }

    #[tokio::test]
    async fn there_is_no_seat_when_everybody_is_busy() {
        let sessions = Sessions::default();
        let seats: Vec<_> = (0..MAX_SESSIONS).filter_map(|_| sessions.take_seat()).collect();
        let busy: Vec<_> = seats.iter().map(Seat::busy).collect();
        assert!(sessions.take_seat().is_none());
        drop(busy);
        assert!(sessions.take_seat().is_some());
    }
}
