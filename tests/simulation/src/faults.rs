//! What goes wrong, and where: drawn from the seed for the n-th call of each kind on each machine, never by real time.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use towpath_testkit::seams::{Host, Life};

use crate::{
    dice::{Dice, Draws},
    story::Story,
};

/// A trouble that is drawn for one call in so many.
const ONE_IN: u64 = 1_000_000;
/// The most faults of one seed.
const MOST_FAULTS: u64 = 40;
/// Of so many seeds one has no faults at all.
const CALM_SEEDS: u64 = 16;

/// Where a program touches the rest of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// A call of the relay.
    Call,
    /// A connection to far files.
    Connect,
    /// An operation on far files.
    Far,
    /// An operation that changes a file of its own.
    File,
    /// An operation that only looks at one.
    Look,
    /// A change of the journal.
    Journal,
    /// A look at the journal.
    JournalLook,
    /// An extract of the ERP's tables.
    Erp,
    /// A statement in the app's database.
    App,
    /// The end of an import.
    Commit,
    /// A point of a stage.
    Stage,
}

/// What goes wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It takes seconds, and others overtake it.
    Slow,
    /// Nothing happens, and the caller is told of an error.
    Refused,
    /// It happens, and the caller is told of an error.
    Unanswered,
    /// It happens twice at once.
    Doubled,
    /// It happens once more, much later.
    Echoed,
    /// The connection is cut in the middle of a file.
    Cut,
    /// The disk is full.
    Full,
    /// The program is killed before it happens.
    Killed,
    /// The machine loses its power before it happens.
    PowerLost,
    /// It is refused in a way that only a person can mend.
    Stuck,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Slow,
    Trouble::Refused,
    Trouble::Unanswered,
    Trouble::Doubled,
    Trouble::Echoed,
    Trouble::Cut,
    Trouble::Full,
    Trouble::Killed,
    Trouble::PowerLost,
    Trouble::Stuck,
];

/// How often each trouble comes where it can, in a million calls, before a seed's own factor.
const fn chances(site: Site) -> &'static [(Trouble, u64)] {
    use Trouble::{Cut, Doubled, Echoed, Full, Killed, PowerLost, Refused, Slow, Stuck, Unanswered};
    match site {
        Site::Call => &[
            (Slow, 20_000),
            (Refused, 10_000),
            (Unanswered, 10_000),
            (Doubled, 10_000),
            (Echoed, 10_000),
            (Killed, 2_000),
            (PowerLost, 2_000),
        ],
        Site::Connect => &[(Slow, 20_000), (Refused, 20_000), (Killed, 2_000), (PowerLost, 2_000), (Stuck, 5_000)],
        Site::Far => &[(Refused, 5_000), (Unanswered, 5_000), (Cut, 20_000), (Killed, 2_000), (PowerLost, 2_000)],
        Site::File => &[(Refused, 1_000), (Unanswered, 1_000), (Full, 1_000), (Killed, 1_000), (PowerLost, 1_000)],
        Site::Look => &[(Refused, 300)],
        Site::Journal => &[(Refused, 2_000), (Unanswered, 2_000), (Killed, 1_500), (PowerLost, 1_500)],
        Site::JournalLook => &[(Refused, 500)],
        Site::Erp => &[(Refused, 30_000), (Killed, 5_000), (PowerLost, 5_000), (Stuck, 20_000)],
        Site::App => &[(Refused, 5_000), (Killed, 2_000), (PowerLost, 2_000)],
        Site::Commit => &[(Refused, 30_000), (Unanswered, 30_000), (Killed, 10_000), (PowerLost, 10_000)],
        Site::Stage => &[(Killed, 5_000), (PowerLost, 5_000)],
    }
}

/// What a machine loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its program.
    Program,
    /// Its power, and with it whatever was not synced.
    Power,
}

/// A program that has ended and must be cleared away.
#[derive(Debug, Clone)]
pub struct Death {
    /// The machine.
    pub host: Host,
    /// What it has lost.
    pub loss: Loss,
}

/// The faults of one seed. Clones share them.
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    draws: Draws,
    story: Story,
    /// By what each trouble is more frequent in this seed; those that are not here do not come.
    factors: BTreeMap<Trouble, u64>,
    state: Mutex<State>,
    died: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    left: u64,
    calls: BTreeMap<(Host, Site), u64>,
    deaths: VecDeque<Death>,
    struck: u64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({:?})", self.0.draws)
    }
}

impl Faults {
    /// The faults of a seed, at most `most` of them; none comes before [`Faults::begin`].
    #[must_use]
    pub fn new(draws: Draws, story: Story, most: Option<u64>) -> Self {
        let mut dice = draws.of("the kinds of faults", 0);
        let calm = dice.chance(1, CALM_SEEDS);
        let factors = TROUBLES.iter().filter_map(|trouble| {
            let (comes, factor) = (dice.chance(1, 2), dice.pick(&[1, 3, 10]));
            comes.then_some((*trouble, factor))
        });
        let factors = factors.collect();
        let drawn = if calm { 0 } else { dice.within(1..MOST_FAULTS + 1) };
        let left = most.map_or(drawn, |most| drawn.min(most));
        let state = Mutex::new(State { left, ..State::default() });
        Self(Arc::new(Shared { draws, story, factors, state, died: Notify::new() }))
    }

    /// Everything that is drawn here.
    #[must_use]
    pub fn draws(&self) -> Draws {
        self.0.draws
    }

    /// Faults may come from now on.
    pub fn begin(&self) {
        self.lock().open = true;
    }

    /// No fault comes from now on.
    pub fn end(&self) {
        self.lock().open = false;
    }

    /// Keeps faults away for what a person does, or lets them come again; returns whether they could come before.
    pub fn may_come(&self, open: bool) -> bool {
        std::mem::replace(&mut self.lock().open, open)
    }

    /// How many faults there were.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// What goes wrong with this call, and the dice for the rest of it. Where the program dies, it is over when this returns.
    pub fn strike(&self, host: &Host, life: &Life, site: Site, what: impl fmt::Display) -> Option<(Trouble, Dice)> {
        if life.is_over() {
            return None;
        }
        let (trouble, dice) = self.draw(host, site)?;
        let loss = match trouble {
            Trouble::Killed => Some(Loss::Program),
            Trouble::PowerLost => Some(Loss::Power),
            _ => None,
        };
        match loss {
            None => self.0.story.tell(format_args!("{host}: {trouble:?}: {what}")),
            Some(loss) => self.die(host, life, loss, format_args!("before {what}")),
        }
        Some((trouble, dice))
    }

    fn draw(&self, host: &Host, site: Site) -> Option<(Trouble, Dice)> {
        let mut state = self.lock();
        if !state.open || state.left == 0 {
            return None;
        }
        let nth = state.calls.entry((host.clone(), site)).or_default();
        *nth += 1;
        let mut dice = self.0.draws.of(format_args!("{host} {site:?}"), *nth);
        let mut rolled = dice.below(ONE_IN);
        for (trouble, chances) in chances(site) {
            let Some(factor) = self.0.factors.get(trouble) else { continue };
            let chances = chances.saturating_mul(*factor);
            if rolled < chances {
                state.left -= 1;
                state.struck += 1;
                return Some((*trouble, dice));
            }
            rolled -= chances;
        }
        None
    }

    /// The program is over from here on.
    pub fn die(&self, host: &Host, life: &Life, loss: Loss, at: impl fmt::Display) {
        if life.is_over() {
            return;
        }
        life.end();
        let what = match loss {
            Loss::Program => "the program is killed",
            Loss::Power => "the power goes",
        };
        self.0.story.tell(format_args!("{host}: {what} {at}"));
        self.lock().deaths.push_back(Death { host: host.clone(), loss });
        self.0.died.notify_one();
    }

    /// Waits until a program has died.
    pub async fn death(&self) {
        self.0.died.notified().await;
    }

    /// The programs that have died since this was asked.
    #[must_use]
    pub fn deaths(&self) -> Vec<Death> {
        self.lock().deaths.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long something slow takes.
pub fn slowness(dice: &mut Dice) -> Duration {
    dice.time(Duration::from_millis(100)..Duration::from_secs(20))
}
