//! A whole installation in one thread, in which everything that can go wrong does, as a seed draws it: the same every time.
//!
//! [`run`] is one seed. What a program touches is one of the seams; in between are [`wires`], which lose, delay, repeat and cut by the
//! [`faults`] of the seed, and tell the [`story`]. When everything has come to rest, the [`oracle`] says what is wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a simulation that cannot go on must fail and say why")]

pub mod broken;
pub mod cli;
pub mod dice;
pub mod erp;
pub mod faults;
mod many;
pub mod oracle;
pub mod still;
pub mod story;
pub mod wires;
pub mod workload;
pub mod world;

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use towpath_transfer::{Clock as _, clock::ManualClock};

pub use many::run_many;

use crate::{broken::Broken, dice::Draws, faults::Faults, story::Story, workload::Workload, world::World};

/// How a seed is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// At most so many faults, the first ones of the seed: to find which of them it takes.
    pub most_faults: Option<u64>,
    /// Whether the story tells every call across a seam.
    pub traced: bool,
    /// What is wrong with the programs, for tests of the oracle.
    pub broken: Option<Broken>,
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What is wrong; nothing, where all is well.
    pub wrong: Vec<String>,
    /// What happened.
    pub story: String,
    /// How many faults there were.
    pub faults: u64,
    /// How many transfers there were, both ways.
    pub transfers: usize,
    /// How long it was by its own clock.
    pub lasted: Duration,
}

impl Outcome {
    /// The command that runs this seed again.
    #[must_use]
    pub fn replay(&self) -> String {
        format!("cargo xtask simulate --seed {}", self.seed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} with {} faults, {} transfers:", self.seed, self.faults, self.transfers)?;
        f.write_str(&self.story)?;
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        if self.wrong.is_empty() { Ok(()) } else { writeln!(f, "again: {}", self.replay()) }
    }
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    let clock = ManualClock::new(jiff::Timestamp::from_second(1_772_330_400).unwrap());
    let (draws, story) = (Draws(seed), Story::new(clock.clone(), options.traced));
    let faults = Faults::new(draws, story.clone(), options.most_faults);
    let mut workload = Workload::draw(draws);
    workload.add_keys(draws);
    if options.most_faults.is_none() {
        workload.add_outages(draws);
    }
    story.tell(&workload);
    let (told, struck, time) = (story.clone(), faults.clone(), clock.clone());
    let lived = catch_unwind(AssertUnwindSafe(|| {
        still::run(|idle| async move {
            let mut world = World::new(draws, &workload, story, clock, faults, options.broken.clone(), idle).await;
            world.live(workload.window).await;
            if world.wrong.is_empty() {
                world.once_more().await;
            }
            (oracle::ask(&world).await, world.transfers().await)
        })
    }));
    let (wrong, transfers) = lived.unwrap_or_else(|panic| (vec![panicked(&*panic)], 0));
    Outcome { seed, wrong, story: told.text(), faults: struck.struck(), transfers, lasted: time.monotonic() }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the simulation panicked: {}", text.unwrap_or("without a message"))
}
