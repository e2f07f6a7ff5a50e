//! Requests that wait to be confirmed: who they are from, and the one answer that each gets.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dph_agent_ipc::Uid;
use dph_agent_protocol::{ErrorCode, PAGE_LEN, PendingList, PendingRequest, Process};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::caller::{Caller, shown};
use crate::error::{Problem, millis};

/// Requests that wait at once.
const MAX_WAITING: usize = 64;
/// Of these, those of other users than the agent's own in all; the rest is kept for that one.
const MAX_OF_GUESTS: usize = 48;
/// Of these, those of one of them.
const MAX_OF_GUEST: usize = 16;
/// Characters of an identifier: few enough to type, too many to hit one by a slip or a guess.
const ID_LEN: usize = 6;
/// What identifiers are made of: nothing that looks like something else.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The requests that wait.
#[derive(Clone, Debug)]
pub struct Pending {
    own: Uid,
    waiting: Arc<Mutex<BTreeMap<String, Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    profile: String,
    caller: Arc<Caller>,
    since: i64,
    until: Instant,
    answer: oneshot::Sender<bool>,
}

/// The place of a request among those that wait; free again when dropped.
#[derive(Debug)]
pub struct Place {
    pending: Pending,
    /// What the request is called.
    pub id: String,
    answer: oneshot::Receiver<bool>,
}

impl Pending {
    /// Returns none yet, of an agent that runs as `own`.
    pub fn new(own: Uid) -> Self {
        Self { own, waiting: Arc::default() }
    }

    /// Whether the agent's own user asks, and none of its guests.
    pub fn is_own(&self, caller: &Caller) -> bool {
        caller.uid == self.own
    }

    /// Lets a request wait, from `since` (seconds since 1970) to `until`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::BUSY`] when too many wait already, or too many of that user.
    pub fn enter(
        &self,
        profile: &str,
        caller: Arc<Caller>,
        since: i64,
        until: Instant,
    ) -> Result<Place, Problem> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING || self.has_its_share(&caller, &waiting) {
            return Err(busy());
        }
        let mut id = new_id()?;
        while waiting.contains_key(&id) {
            id = new_id()?;
        }
        let (answer, answered) = oneshot::channel();
        waiting.insert(id.clone(), Waiting { profile: profile.to_owned(), caller, since, until, answer });
        Ok(Place { pending: self.clone(), id, answer: answered })
    }

    /// Returns the requests behind the identifier `after`, one page of them.
    pub fn list(&self, after: &str) -> PendingList {
        let waiting = self.waiting();
        let mut behind = waiting.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let page = behind.by_ref().take(PAGE_LEN).map(|(id, waiting)| waiting.entry(id)).collect();
        PendingList { requests: page, more: behind.next().is_some() }
    }

    /// Whether a request of that name waits.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn find(&self, id: &str) -> Result<(), Problem> {
        if self.waiting().contains_key(id) { Ok(()) } else { Err(nothing_waits()) }
    }

    /// Answers a request, which waits no longer then, and returns its profile.
    ///
    /// # Errors
    ///
    /// When none of that name waits.
    pub fn answer(&self, id: &str, yes: bool) -> Result<String, Problem> {
        let waiting = self.waiting().remove(id).ok_or_else(nothing_waits)?;
        waiting.answer.send(yes).map_err(|_gone| nothing_waits())?;
        Ok(waiting.profile)
    }

    /// Whether a guest has all the places that it may have.
    fn has_its_share(&self, caller: &Caller, waiting: &BTreeMap<String, Waiting>) -> bool {
        let guests = waiting.values().filter(|waiting| !self.is_own(&waiting.caller));
        let same = guests.clone().filter(|waiting| waiting.caller.uid == caller.uid);
        !self.is_own(caller) && (guests.count() >= MAX_OF_GUESTS || same.count() >= MAX_OF_GUEST)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn entry(&self, id: &str) -> PendingRequest {
        PendingRequest {
            id: id.to_owned(),
            profile: self.profile.clone(),
            process: process(&self.caller),
            since: self.since,
            expires_in_ms: millis(self.until.saturating_duration_since(Instant::now())),
        }
    }
}

impl Place {
    /// Waits until somebody answers.
    pub async fn answered(&mut self) -> bool {
        // The sender goes only with an answer, or with this place.
        (&mut self.answer).await.unwrap_or(false)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.waiting().remove(&self.id);
    }
}

/// Returns a caller as clients see it.
pub fn process(caller: &Caller) -> Process {
    Process {
        pid: caller.pid,
        exe: caller.exe.as_deref().map(shown),
        unit: caller.unit.clone(),
        parent: caller.parent.as_deref().map(shown),
    }
}

fn new_id() -> Result<String, Problem> {
    let mut bytes = [0; ID_LEN];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| {
        Problem::new(ErrorCode::FAILED, "the system has no random numbers", "look at the system")
    })?;
    let digit = |byte: u8| DIGITS.get(usize::from(byte) % DIGITS.len()).copied().map(char::from);
    Ok(bytes.into_iter().filter_map(digit).collect())
}

fn nothing_waits() -> Problem {
    Problem::new(
        ErrorCode::FAILED,
        "no request of that name waits: it was answered, its time is over, or whoever asked has gone",
        "see dph-agent-client pending",
    )
}

fn busy() -> Problem {
    Problem::new(
        ErrorCode::BUSY,
        "too many requests wait to be confirmed",
        "answer some of them: dph-agent-client pending",
    )
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep_until, timeout};

    use super::*;
    use crate::caller::Doubt;

    fn caller() -> Arc<Caller> {
        let file = Err(Doubt::Closed);
        Arc::new(Caller {
            uid: 1000,
            pid: Some(7),
            exe: Some("/bin/x".into()),
            unit: None,
            parent: None,
            file,
        })
    }

    fn enter(pending: &Pending, profile: &str) -> Place {
        pending.enter(profile, caller(), 0, Instant::now() + Duration::from_secs(60)).unwrap()
    }

    fn ids(pending: &Pending) -> Vec<String> {
        pending.list("").requests.into_iter().map(|request| request.id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_two_gets_its_own_answer_once() {
        let pending = Pending::new(1000);
        let (mut first, mut second) = (enter(&pending, "a"), enter(&pending, "b"));
        assert_eq!(ids(&pending).len(), 2);
        assert_eq!(pending.answer(&second.id, true).unwrap(), "b");
        assert_eq!(ids(&pending), [first.id.as_str()]);
        assert_eq!(pending.answer(&second.id, false).unwrap_err().code, ErrorCode::FAILED);
        assert!(second.answered().await);
        assert!(timeout(Duration::from_secs(3600), first.answered()).await.is_err(), "it still waits");
        pending.answer(&first.id, false).unwrap();
        assert!(!first.answered().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_shows_how_long_it_waits_and_is_gone_with_who_asked() {
        let pending = Pending::new(1000);
        let begin = Instant::now();
        let place = enter(&pending, "a");
        sleep_until(begin + Duration::from_secs(45)).await;
        let shown = pending.list("").requests.remove(0);
        assert_eq!((shown.expires_in_ms, shown.process.pid), (15_000, Some(7)));
        let id = place.id.clone();
        drop(place);
        assert!(pending.find(&id).is_err() && ids(&pending).is_empty());
        assert!(pending.answer(&id, true).is_err());
    }

    #[test]
    fn the_list_is_bounded_and_shown_in_pages_that_fit_into_a_frame() {
        let pending = Pending::new(1000);
        let wide: String = "\u{10400}".repeat(4000);
        let caller = Arc::new(Caller {
            parent: Some(wide.clone().into()),
            exe: Some(wide.into()),
            ..(*caller()).clone()
        });
        let until = Instant::now() + Duration::from_secs(60);
        let enter = || pending.enter(&"p".repeat(64), Arc::clone(&caller), 0, until);
        let places: Vec<_> = (0..MAX_WAITING).map(|_| enter().unwrap()).collect();
        assert_eq!(enter().unwrap_err().code, ErrorCode::BUSY);
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = pending.list(&after);
            dph_agent_protocol::Reply::PendingList(page.clone()).to_frame().unwrap();
            seen.extend(page.requests.into_iter().map(|request| request.id));
            after = seen.last().unwrap().clone();
            if !page.more {
                break;
            }
        }
        let mut entered: Vec<_> = places.iter().map(|place| place.id.clone()).collect();
        entered.sort();
        assert_eq!(seen, entered);
    }

    #[test]
    fn guests_leave_places_for_each_other_and_for_the_own_user() {
        let (pending, until) = (Pending::new(1000), Instant::now() + Duration::from_secs(60));
        let enter = |uid| pending.enter("a", Arc::new(Caller { uid, ..(*caller()).clone() }), 0, until);
        let mut places: Vec<_> = (0..MAX_OF_GUEST).map(|_| enter(1).unwrap()).collect();
        assert_eq!(enter(1).unwrap_err().code, ErrorCode::BUSY);
        places.extend((0..MAX_OF_GUEST).flat_map(|_| [2, 3]).map(|uid| enter(uid).unwrap()));
        assert_eq!(enter(4).unwrap_err().code, ErrorCode::BUSY, "guests have all that they may have");
        places.extend((MAX_OF_GUESTS..MAX_WAITING).map(|_| enter(1000).unwrap()));
        assert_eq!(enter(1000).unwrap_err().code, ErrorCode::BUSY);
    }

    #[test]
    fn identifiers_are_short_and_easy_to_type() {
        let id = new_id().unwrap();
        assert!(id.len() == ID_LEN && id.bytes().all(|byte| DIGITS.contains(&byte)), "{id}");
        assert_ne!(id, new_id().unwrap());
    }
}
