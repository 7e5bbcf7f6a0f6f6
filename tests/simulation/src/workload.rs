//! What people and the ERP do in a simulation, drawn from the seed before it begins.

use std::{fmt, time::Duration};

use towpath_testkit::seams::Host;
use towpath_transfer::{TenantName, state::Place};

use crate::{
    dice::{Dice, Draws},
    faults::Loss,
};

/// The tenants; a seed has the first two or all three. Their ends have the same names.
const TENANTS: [&str; 3] = ["acme", "bolt", "crane"];
/// The time in which things are done and go wrong.
const WINDOW: std::ops::Range<Duration> = Duration::from_secs(30)..Duration::from_secs(240);
/// By how much a clock is set at most, either way.
const MOST_SKEW: Duration = Duration::from_hours(24);

/// What happens from outside.
#[derive(Debug, Clone)]
pub enum Act {
    /// The rows of a tenant's ERP change, by these dice.
    ChangeErp(usize),
    /// A tenant's agent is to send.
    Plan {
        /// The tenant.
        tenant: usize,
        /// Everything, and not only what has changed.
        full: bool,
    },
    /// A tenant's app sends files back.
    Send(usize),
    /// A machine stops.
    Stop(Host, Loss),
    /// A disk is as good as full, for a while.
    Fill(Host, Duration),
    /// A clock is set, by so many milliseconds from the right time.
    SetClock(Host, i64),
    /// A machine is switched on.
    Start(Host),
    /// A disk has room again.
    Empty(Host),
}

/// What the ERP does with the files it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// It leaves them where they are.
    Leaves,
    /// It takes each as soon as it sees it.
    Takes,
}

/// Everything that is done in a seed.
#[derive(Debug)]
pub struct Workload {
    /// The tenants.
    pub tenants: Vec<TenantName>,
    /// What each tenant's ERP does.
    pub habits: Vec<Habit>,
    /// Whether rows of the incremental table are deleted.
    pub deletes: bool,
    /// When everything is done that is done.
    pub window: Duration,
    /// What is done when, in no order.
    pub acts: Vec<(Duration, Act)>,
}

impl Workload {
    /// Draws what is done.
    ///
    /// # Panics
    /// Never: the tenants' names are names.
    #[must_use]
    pub fn draw(draws: Draws) -> Self {
        let mut dice = draws.of("the workload", 0);
        let count = if dice.chance(1, 6) { 3 } else { 2 };
        let tenants: Vec<TenantName> = TENANTS.iter().take(count).map(|name| name.parse().unwrap()).collect();
        let window = dice.time(WINDOW);
        let mut acts = Vec::new();
        for tenant in 0..count {
            let mut some = |most: u64, dice: &mut Dice, act: &dyn Fn(&mut Dice) -> Act| {
                for _ in 0..dice.within(1..most + 1) {
                    acts.push((dice.time(Duration::ZERO..window * 4 / 5), act(dice)));
                }
            };
            some(3, &mut dice, &|_| Act::ChangeErp(tenant));
            some(3, &mut dice, &|dice| Act::Plan { tenant, full: dice.chance(1, 5) });
            some(3, &mut dice, &|_| Act::Send(tenant));
        }
        let habits = tenants.iter().map(|_| dice.pick(&[Habit::Leaves, Habit::Takes])).collect();
        let deletes = dice.chance(1, 2);
        Self { tenants, habits, deletes, window, acts }
    }

    /// Draws what happens to whole machines: outages, full disks, and clocks that are set.
    pub fn add_outages(&mut self, draws: Draws) {
        let mut dice = draws.of("outages", 0);
        let mut hosts = vec![Host { place: Place::Relay, tenant: None }];
        for tenant in &self.tenants {
            hosts.extend([Place::Agent, Place::Receiver].map(|place| Host { place, tenant: Some(tenant.clone()) }));
        }
        let window = self.window;
        if dice.chance(1, 2) {
            for _ in 0..dice.within(1..4) {
                let loss = dice.pick(&[Loss::Program, Loss::Power]);
                // Sometimes everything stops at once.
                let all = dice.chance(1, 4);
                let (at, one) = (dice.time(Duration::ZERO..window), dice.below(hosts.len() as u64));
                let hit = hosts.iter().enumerate().filter(|(number, _)| all || *number as u64 == one);
                self.acts.extend(hit.map(|(_, host)| (at, Act::Stop(host.clone(), loss))));
            }
        }
        let one_of = |dice: &mut Dice| hosts.get(usize::try_from(dice.below(hosts.len() as u64)).unwrap_or(0)).cloned();
        if dice.chance(1, 3)
            && let Some(host) = one_of(&mut dice)
        {
            self.acts.push((dice.time(Duration::ZERO..window), Act::Fill(host, dice.time(Duration::from_secs(1)..window))));
        }
        if dice.chance(1, 3) {
            for _ in 0..dice.within(1..4) {
                let most = i64::try_from(MOST_SKEW.as_millis()).unwrap_or(0);
                let by = i64::try_from(dice.below(most.unsigned_abs() * 2 + 1)).unwrap_or(0) - most;
                let by = dice.pick(&[by, by, by / 1_000, 0]);
                if let Some(host) = one_of(&mut dice) {
                    self.acts.push((dice.time(Duration::ZERO..window), Act::SetClock(host, by)));
                }
            }
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let habits: Vec<String> =
            self.tenants.iter().zip(&self.habits).map(|(tenant, habit)| format!("{tenant} ({habit:?})")).collect();
        let (tenants, acts, window) = (habits.join(", "), self.acts.len(), self.window.as_secs());
        write!(f, "tenants {tenants}; {acts} acts in {window} s; rows are {}deleted", if self.deletes { "" } else { "not " })
    }
}
