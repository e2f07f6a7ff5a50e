//! Connections that are turned away, counted: whoever may not connect can try as often as it likes, and must neither
//! fill the disk nor push older lines out of the audit log. Pure: events and time in, what is to be told out.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::Duration;

use dph_agent_ipc::{Peer, Uid};
use dph_agent_protocol::ErrorCode;
use tokio::time::Instant;

/// What is counted is told so often.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Users that are counted each for itself; further ones are counted together, without a name.
const MAX_USERS: usize = 32;

/// What is to be told of connections that were turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose they were, where that is known.
    pub peer: Option<Peer>,
    /// Why.
    pub code: ErrorCode,
    /// How many since the last time; absent for a single one that is told at once.
    pub count: Option<u64>,
}

/// The connections that were turned away and not yet told.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<(Option<Uid>, u16), Counted>);

#[derive(Debug)]
struct Counted {
    untold: u64,
    due: Instant,
}

impl Refusals {
    /// Takes one more. The first of a user is told at once, those that follow are counted.
    pub fn add(&mut self, peer: &Peer, code: ErrorCode, now: Instant) -> Option<Told> {
        let key = (Some(Uid::clone(&peer.uid)), code.0);
        if let Some(counted) = self.0.get_mut(&key) {
            counted.untold += 1;
            return None;
        }
        let due = now + TELL_EVERY;
        if self.0.len() >= MAX_USERS {
            let others = self.0.entry((None, code.0)).or_insert(Counted { untold: 0, due });
            others.untold += 1;
            return None;
        }
        self.0.insert(key, Counted { untold: 0, due });
        Some(Told { peer: Some(peer.clone()), code, count: None })
    }

    /// Returns when something is to be told, or to be forgotten.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().map(|counted| counted.due).min()
    }

    /// Returns what is to be told at `now`. Who was quiet since the last time is forgotten.
    pub fn tell(&mut self, now: Instant) -> Vec<Told> {
        self.0.retain(|_, counted| counted.due > now || counted.untold > 0);
        let due = self.0.iter_mut().filter(|(_, counted)| counted.due <= now);
        due.map(|((uid, code), counted)| {
            counted.due = now + TELL_EVERY;
            told(uid.as_ref(), *code, take(&mut counted.untold))
        })
        .collect()
    }

    /// Returns all that was counted, at the end.
    pub fn finish(&mut self) -> Vec<Told> {
        let all = take(&mut self.0).into_iter().filter(|(_, counted)| counted.untold > 0);
        all.map(|((uid, code), counted)| told(uid.as_ref(), code, counted.untold)).collect()
    }
}

fn told(uid: Option<&Uid>, code: u16, count: u64) -> Told {
    let peer = uid.map(|uid| Peer { uid: Uid::clone(uid), pid: None });
    Told { peer, code: ErrorCode(code), count: Some(count) }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: Uid) -> Peer {
        Peer { uid, pid: Some(7) }
    }

    #[test]
    fn a_flood_is_one_line_at_once_and_one_a_minute() {
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let first = refusals.add(&peer(7), ErrorCode::DENIED, begin).unwrap();
        assert_eq!((first.peer, first.count), (Some(peer(7)), None));
        (0..1000).for_each(|_| assert_eq!(refusals.add(&peer(7), ErrorCode::DENIED, at(1)), None));
        assert_eq!((refusals.tell(at(59)), refusals.due()), (Vec::new(), Some(at(60))));
        let [told] = &refusals.tell(at(60))[..] else { panic!("one line") };
        assert_eq!((told.peer.clone(), told.count), (Some(Peer { uid: 7, pid: None }), Some(1000)));
        refusals.add(&peer(7), ErrorCode::DENIED, at(61));
        assert_eq!(refusals.tell(at(120))[0].count, Some(1));
        assert_eq!((refusals.tell(at(180)), refusals.due()), (Vec::new(), None), "quiet is forgotten");
        assert!(refusals.add(&peer(7), ErrorCode::DENIED, at(181)).is_some());
    }

    #[test]
    fn users_and_reasons_are_counted_apart_and_many_users_together() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.add(&peer(1), ErrorCode::DENIED, now).is_some());
        assert!(refusals.add(&peer(1), ErrorCode::BUSY, now).is_some());
        let told = (2..1000).filter_map(|uid| refusals.add(&peer(uid), ErrorCode::DENIED, now)).count();
        assert_eq!(told, MAX_USERS - 2);
        let [others] = &refusals.finish()[..] else { panic!("one line for all others") };
        assert_eq!((&others.peer, others.count), (&None, Some(998 - told as u64)));
        assert_eq!(refusals.finish(), []);
    }
}
