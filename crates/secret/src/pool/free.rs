//! Which parts of a mapping are free.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free parts, none of which touches another.
#[derive(Debug)]
pub(super) struct Free {
    /// Where each ends, by where it starts.
    parts: BTreeMap<usize, usize>,
}

impl Free {
    /// Everything in `whole` is free.
    pub(super) fn new(whole: Range<usize>) -> Self {
        Self { parts: BTreeMap::from([(whole.start, whole.end)]) }
    }

    /// Takes the first `len` bytes that are free in one piece.
    pub(super) fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let (start, end) =
            self.parts.iter().map(|(start, end)| (*start, *end)).find(|it| it.1 - it.0 >= len)?;
        self.parts.remove(&start);
        if start + len < end {
            self.parts.insert(start + len, end);
        }
        Some(start..start + len)
    }

    /// Gives back what was taken, joined with what is free beside it.
    pub(super) fn give(&mut self, part: Range<usize>) {
        let before = self.parts.range(..part.start).next_back().map(|(start, end)| (*start, *end));
        let start = before.filter(|it| it.1 == part.start).map_or(part.start, |it| it.0);
        let end = self.parts.remove(&part.end).unwrap_or(part.end);
        self.parts.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_has_no_room_until_enough_is_given_back_in_one_piece() {
        let mut free = Free::new(0..192);
        let parts = [64, 64, 64].map(|len| free.take(len).unwrap());
        assert_eq!(free.take(1), None);
        free.give(parts[0].clone());
        free.give(parts[2].clone());
        assert_eq!(free.take(128), None);
        free.give(parts[1].clone());
        assert_eq!(free.take(192), Some(0..192));
    }

    proptest! {
        #[test]
        fn parts_never_overlap_and_all_comes_back_as_one(steps in vec((1..200_usize, any::<prop::sample::Index>()), 1..200)) {
            let mut free = Free::new(64..4096);
            let mut taken: Vec<Range<usize>> = Vec::new();
            for (len, which) in steps {
                if let Some(part) = free.take(len) {
                    prop_assert!(part.start >= 64 && part.end <= 4096 && part.len() == len);
                    prop_assert!(taken.iter().all(|other| other.end <= part.start || part.end <= other.start));
                    taken.push(part);
                }
                if len % 2 == 0 && !taken.is_empty() {
                    free.give(taken.swap_remove(which.index(taken.len())));
                }
            }
            taken.into_iter().for_each(|part| free.give(part));
            prop_assert_eq!(free.parts, BTreeMap::from([(64, 4096)]));
        }
    }
}
