//! Repeatable draws: the same seed gives the same company, on every machine.

/// SplitMix64. Not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// One stream of draws for each topic, so that a change in one table leaves the others as they were.
    pub(super) fn new(seed: u64, company: u32, topic: &str) -> Self {
        // FNV-1a of the topic, started from seed and company.
        let start = 0xcbf2_9ce4_8422_2325 ^ seed.rotate_left(32) ^ u64::from(company).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(topic.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 ≤ draw < `end`; 0 where `end` is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// `low` ≤ draw ≤ `high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).unsigned_abs().saturating_add(1);
        low.saturating_add_unsigned(self.below(width))
    }

    /// True in `percent` of 100 draws.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `from`; the default where there is none.
    pub(super) fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied().unwrap_or_default()
    }

    /// A position below `end` that prefers the low ones, as few items make most of the turnover.
    pub(super) fn skewed(&mut self, end: u64) -> u64 {
        self.below(end).min(self.below(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_stay_in_their_range_and_differ_by_seed_company_and_topic() {
        let draws = |seed, company, topic| {
            let mut random = Random::new(seed, company, topic);
            (0..100).map(|_| random.between(-3, 3)).collect::<Vec<_>>()
        };
        let first = draws(1, 1, "items");
        assert_eq!(first, draws(1, 1, "items"));
        assert!(first.iter().all(|draw| (-3..=3).contains(draw)));
        for at in -3..=3 {
            assert!(first.contains(&at), "{at} never came");
        }
        for other in [draws(2, 1, "items"), draws(1, 2, "items"), draws(1, 1, "stock")] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn an_empty_range_is_zero() {
        let mut random = Random::new(1, 1, "");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<i64>(&[]), 0);
        assert_eq!(random.between(i64::MAX, i64::MAX), i64::MAX);
    }
}
