//! When the user dropped secrets, for what was begun before that and ends after it.

use std::collections::BTreeMap;

use crate::config::ProfileName;

/// A moment among the drops. What was begun at one is not undone by drops before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The drops so far.
#[derive(Debug, Default)]
pub(super) struct Drops {
    now: Moment,
    all: Moment,
    of: BTreeMap<ProfileName, Moment>,
}

impl Drops {
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Those of a profile were dropped.
    pub(super) fn note(&mut self, name: &ProfileName) {
        self.now.0 += 1;
        self.of.insert(name.clone(), self.now);
    }

    /// Those of all were, also of profiles that are only about to be made.
    pub(super) fn note_all(&mut self) {
        self.now.0 += 1;
        self.all = self.now;
    }

    /// Whether those of a profile were dropped after `began`.
    pub(super) fn came_after(&self, began: Moment, name: &ProfileName) -> bool {
        self.all > began || self.of.get(name).is_some_and(|at| *at > began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_before_a_drop_is_told_from_what_was_begun_after_it() {
        let (mut drops, [mine, other]) =
            (Drops::default(), ["mine", "other"].map(|name| name.parse().unwrap()));
        let first = drops.now();
        drops.note(&mine);
        let second = drops.now();
        assert_eq!((drops.came_after(first, &mine), drops.came_after(second, &mine)), (true, false));
        assert!(!drops.came_after(first, &other), "another profile's key is none of its business");
        drops.note_all();
        assert!(drops.came_after(second, &mine) && drops.came_after(second, &other));
        assert!(!drops.came_after(drops.now(), &mine));
    }
}
