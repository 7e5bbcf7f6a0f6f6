//! Many seeds, on every core.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{Options, Outcome, run};

/// Outcomes on their way to whoever is told of them.
struct Told<F> {
    /// The next one that is told.
    due: u64,
    /// The next one that is run.
    next: u64,
    end: u64,
    waiting: BTreeMap<u64, Outcome>,
    tell: F,
}

/// Runs seeds in as many threads as there are cores, and tells each outcome, in the order of the seeds. A seed is the same whatever
/// else runs beside it.
pub fn run_many(seeds: Range<u64>, options: &Options, tell: impl FnMut(Outcome) + Send) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let told = Mutex::new(Told { due: seeds.start, next: seeds.start, end: seeds.end, waiting: BTreeMap::new(), tell });
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = next(&told) {
                    done(&told, run(seed, options));
                }
            });
        }
    });
}

fn next<F>(told: &Mutex<Told<F>>) -> Option<u64> {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = told.next;
    told.next += u64::from(seed < told.end);
    (seed < told.end).then_some(seed)
}

fn done<F: FnMut(Outcome)>(told: &Mutex<Told<F>>, outcome: Outcome) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.waiting.insert(outcome.seed, outcome);
    loop {
        let due = told.due;
        let Some(outcome) = told.waiting.remove(&due) else { return };
        told.due += 1;
        (told.tell)(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_told_of_once_and_in_order() {
        let (mut told, options) = (Vec::new(), Options { most_faults: Some(0), ..Options::default() });
        run_many(7..12, &options, |outcome| told.push(outcome.seed));
        assert_eq!(told, [7, 8, 9, 10, 11]);
        run_many(7..7, &options, |_| unreachable!());
    }
}
