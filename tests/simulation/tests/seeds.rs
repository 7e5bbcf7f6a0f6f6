//! The seeds that CI runs, and the proof that a seed is the same every time.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use towpath_simulation::{Options, Outcome, run};

/// Runs seeds one after the other and fails with the stories of those with which something is wrong.
fn clean(seeds: impl Iterator<Item = u64>) {
    let wrong = |outcome: &Outcome| !outcome.wrong.is_empty();
    let failed: Vec<String> = seeds.map(|seed| run(seed, &Options::default())).filter(wrong).map(|o| o.to_string()).collect();
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn seeds_1_to_125_are_clean() {
    clean(1..=125);
}

#[test]
fn seeds_126_to_250_are_clean() {
    clean(126..=250);
}

#[test]
fn seeds_251_to_375_are_clean() {
    clean(251..=375);
}

#[test]
fn seeds_376_to_500_are_clean() {
    clean(376..=500);
}

#[test]
fn long_twenty_thousand_seeds_are_clean() {
    let next = AtomicU64::new(501);
    let seeds = || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::SeqCst)).filter(|seed| *seed <= 20_500));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| clean(seeds()));
        }
    });
}

#[test]
fn a_seed_is_the_same_every_time_and_no_other_is() {
    let traced = Options { traced: true, ..Options::default() };
    let mut stories = BTreeSet::new();
    for seed in 1..=6 {
        let first = run(seed, &traced);
        assert!(first.story.lines().count() > 1_000, "every call across a seam is in the story");
        assert_eq!(first, run(seed, &traced), "seed {seed}");
        assert!(stories.insert(first.story), "seed {seed}");
    }
}
