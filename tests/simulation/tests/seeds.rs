//! The seeds that CI runs, and the proof that a seed is the same every time.

use std::collections::BTreeSet;

use towpath_simulation::{Options, Outcome, run, run_many};

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

/// Beyond those of CI, and wrong once: what was mended for them stays mended.
#[test]
fn seeds_that_were_wrong_once_are_clean() {
    clean(
        [682, 692, 1254, 1820, 2972, 3219, 3747, 5339, 12_628, 12_789, 13_131, 13_370, 16_038, 16_257, 16_408, 17_242, 20_099]
            .into_iter(),
    );
}

/// Twenty thousand seeds after those of CI, in four parts, so that each ends within the time that a long test has.
fn clean_on_every_core(part: u64) {
    const PART: u64 = 5_000;
    let mut failed = Vec::new();
    run_many(501 + part * PART..501 + (part + 1) * PART, &Options::default(), |outcome| {
        if !outcome.wrong.is_empty() {
            failed.push(outcome.to_string());
        }
    });
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn long_seeds_501_to_5500_are_clean() {
    clean_on_every_core(0);
}

#[test]
fn long_seeds_5501_to_10500_are_clean() {
    clean_on_every_core(1);
}

#[test]
fn long_seeds_10501_to_15500_are_clean() {
    clean_on_every_core(2);
}

#[test]
fn long_seeds_15501_to_20500_are_clean() {
    clean_on_every_core(3);
}

#[test]
fn a_seed_is_the_same_every_time_and_no_other_is() {
    let traced = Options { traced: true, ..Options::default() };
    let mut stories = BTreeSet::new();
    // Here others run beside it.
    run_many(1..7, &traced, |first| {
        let seed = first.seed;
        assert!(first.story.lines().count() > 1_000, "every call across a seam is in the story");
        let again = run(seed, &traced);
        let differs = first.story.lines().zip(again.story.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert!(first == again, "seed {seed}");
        assert!(stories.insert(first.story), "seed {seed}");
    });
}
