//! What a journal remembers of sequence numbers once it has forgotten the transfers that had them.

use serde::{Deserialize, Serialize};
use towpath_transfer::Sequence;

use crate::{
    error::{JournalError, Result},
    record::{NewTransfer, SequenceChoice},
};

/// The largest sequence number: what a signed 64-bit column holds.
pub(crate) const MAX_SEQUENCE: u64 = i64::MAX as u64;
/// How many gaps between used numbers are remembered of each tenant, agent and direction. The numbers in older ones count as used.
pub(crate) const MAX_GAPS: usize = 1_000;

/// What a store knows of the sequence numbers of one tenant, agent and direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sequences {
    /// The highest ever seen.
    pub(crate) last: u64,
    /// The highest of a transfer that was pruned. Those below it count as used, but for the gaps.
    pub(crate) floor: u64,
    /// The numbers below `floor` of which no transfer was pruned, in order: that of a return file that many have overtaken must not
    /// count as used when it comes.
    pub(crate) gaps: Vec<Gap>,
}

/// Numbers from the first to the last, both with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap(pub(crate) u64, pub(crate) u64);

impl Gap {
    fn has(self, number: u64) -> bool {
        (self.0..=self.1).contains(&number)
    }

    /// The same without a number that is in it.
    fn without(self, number: u64) -> impl Iterator<Item = Self> {
        let below = (number > self.0).then(|| Self(self.0, number.saturating_sub(1)));
        let above = (number < self.1).then(|| Self(number.saturating_add(1), self.1));
        [below, above].into_iter().flatten()
    }
}

impl Sequences {
    /// The number of a new transfer and what is known afterwards; `taken` says whether a stored transfer has a number.
    pub(crate) fn choose(self, new: &NewTransfer, taken: bool) -> Result<(Option<Sequence>, Self)> {
        let number = match new.sequence {
            SequenceChoice::Given(None) => return Ok((None, self)),
            SequenceChoice::Given(Some(Sequence(number))) => number,
            SequenceChoice::Next | SequenceChoice::NextOfJob => self.last.saturating_add(1),
        };
        if number > MAX_SEQUENCE {
            let key = Box::new(new.key.clone());
            return Err(JournalError::Limit { key, what: "the sequence number", limit: MAX_SEQUENCE });
        }
        if taken || self.is_spent(number) {
            let (key, sequence) = (Box::new(new.key.clone()), Sequence(number));
            return Err(JournalError::SequenceForked { key, direction: new.direction, sequence });
        }
        Ok((Some(Sequence(number)), Self { last: self.last.max(number), ..self }))
    }

    /// Whether a transfer with this number was pruned, as far as that is remembered.
    fn is_spent(&self, number: u64) -> bool {
        number <= self.floor && !self.gaps.iter().any(|gap| gap.has(number))
    }

    /// What is known once the transfer with this number is forgotten.
    #[must_use]
    pub(crate) fn pruned(mut self, number: u64) -> Self {
        if number > self.floor {
            let gap = Gap(self.floor.saturating_add(1), number.saturating_sub(1));
            self.gaps.extend((gap.0 <= gap.1).then_some(gap));
            self.floor = number;
        } else if let Some(at) = self.gaps.iter().position(|gap| gap.has(number)) {
            let gap = self.gaps.remove(at);
            self.gaps.splice(at..at, gap.without(number));
        }
        let surplus = self.gaps.len().saturating_sub(MAX_GAPS);
        self.gaps.drain(..surplus);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use towpath_transfer::{Entropy as _, clock::SeededEntropy};

    use super::*;

    #[test]
    fn what_was_pruned_is_spent_and_nothing_else_is() {
        let dice = SeededEntropy::new(7);
        let (mut known, mut pruned) = (Sequences::default(), BTreeSet::new());
        for _ in 0..2_000 {
            let mut byte = [0];
            dice.fill(&mut byte);
            let number = u64::from(byte[0]) + 1;
            known = known.pruned(number);
            pruned.insert(number);
            for each in 1..=300 {
                assert_eq!(known.is_spent(each), pruned.contains(&each), "{each} after {pruned:?}");
            }
            assert!(known.gaps.windows(2).all(|two| two[0].1 < two[1].0), "{:?}", known.gaps);
        }
    }

    #[test]
    fn so_many_gaps_are_remembered_and_the_oldest_are_given_up() {
        let numbers = (1..=MAX_GAPS as u64 + 5).map(|n| 2 * n);
        let known = numbers.fold(Sequences::default(), Sequences::pruned);
        assert_eq!(known.gaps.len(), MAX_GAPS);
        assert!(known.is_spent(9) && !known.is_spent(11));
        // One that is cut in two is not one more than may be.
        let wide = Sequences { floor: 10_000, gaps: vec![Gap(5_000, 6_000)], ..known.clone() }.pruned(5_500);
        assert_eq!(wide.gaps, [Gap(5_000, 5_499), Gap(5_501, 6_000)]);
        let largest = known.pruned(MAX_SEQUENCE);
        assert!(largest.is_spent(MAX_SEQUENCE) && !largest.is_spent(MAX_SEQUENCE - 1));
        assert_eq!(largest.gaps.len(), MAX_GAPS);
    }
}
