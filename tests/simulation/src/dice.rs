//! Chance that can be had again: every draw is named by what it is for and how often that was drawn before, so that one more draw
//! somewhere changes nothing anywhere else.

use std::{fmt::Display, ops::Range, time::Duration};

use towpath_transfer::{Entropy as _, clock::SeededEntropy};

/// Everything a seed stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws(pub u64);

impl Draws {
    /// The dice for the `nth` time of something.
    #[must_use]
    pub fn of(self, what: impl Display, nth: u64) -> Dice {
        // FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/: few bits are enough to tell names apart.
        let name = format!("{what}\0{nth}\0{}", self.0);
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Dice(SeededEntropy::new(hash))
    }
}

/// A sequence of draws.
#[derive(Debug)]
pub struct Dice(SeededEntropy);

impl Dice {
    fn bits(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// An even number from 0 to below `limit`, which is 0 where the limit is.
    pub fn below(&mut self, limit: u64) -> u64 {
        u64::try_from((u128::from(self.bits()) * u128::from(limit)) >> 64).unwrap_or(0)
    }

    /// An even number of a range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// An even time of a range, in whole milliseconds.
    pub fn time(&mut self, range: Range<Duration>) -> Duration {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.within(millis(range.start)..millis(range.end)))
    }

    /// Whether something happens that happens `chances` times in `of`.
    pub fn chance(&mut self, chances: u64, of: u64) -> bool {
        self.below(of) < chances
    }

    /// One of some things, of which there is at least one.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_name_and_number_only() {
        let three = |draws: Draws, what: &str, nth| {
            let mut dice = draws.of(what, nth);
            [dice.below(1_000), dice.below(1_000), dice.within(5..9)]
        };
        assert_eq!(three(Draws(1), "a", 1), three(Draws(1), "a", 1));
        for other in [three(Draws(2), "a", 1), three(Draws(1), "b", 1), three(Draws(1), "a", 2)] {
            assert_ne!(three(Draws(1), "a", 1), other);
        }
    }

    #[test]
    fn draws_are_even_and_within_their_limits() {
        let mut dice = Draws(7).of("even", 0);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[usize::try_from(dice.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!((dice.below(0), dice.within(3..3), dice.pick(&[8])), (0, 3, 8));
        assert!((0..1_000).all(|_| !dice.chance(0, 5)) && dice.chance(5, 5));
        let second = Duration::from_secs(1);
        assert!((0..100).all(|_| (second..second * 2).contains(&dice.time(second..second * 2))));
    }
}
