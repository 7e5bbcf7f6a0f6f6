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

/// How long a replaced key stays good, as it is asked for; the first is less than there is.
const OVERLAPS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(90), Duration::from_secs(60 * 60), Duration::from_secs(12 * 60 * 60)];
/// How long after its revocation an agent is replaced.
const REPLACED_AFTER: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(60);

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
    /// A tenant's agent changes its key; the old one is to be good for so long.
    Rotate(usize, Duration),
    /// A tenant's agent is revoked, and perhaps another takes its place after a while.
    Revoke(usize, Option<Duration>),
    /// What was open to a revoked agent is closed; by its number.
    EndSessions(usize),
    /// A tenant's ERP host is enrolled anew.
    Replace(usize),
    /// A tenant's receiver is revoked.
    RevokeReceiver(usize),
    /// A tenant's receiver does not believe its agent any more.
    Disapprove(usize),
    /// It is approved again.
    Approve(usize),
    /// Whatever waits for a person at a tenant's agent is tried again.
    Retry(usize),
}

impl Act {
    /// Whether somebody does it in the end, even where everything else is called off.
    #[must_use]
    pub const fn is_owed(&self) -> bool {
        matches!(self, Self::EndSessions(_) | Self::Replace(_) | Self::Approve(_))
    }
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

    /// Draws what becomes of keys and rights, and when somebody tries again what was stuck.
    pub fn add_keys(&mut self, draws: Draws) {
        let (mut dice, window) = (draws.of("keys", 0), self.window);
        let count = self.tenants.len() as u64;
        let one = |dice: &mut Dice| usize::try_from(dice.below(count)).unwrap_or(0);
        let at = |dice: &mut Dice| dice.time(Duration::ZERO..window);
        if dice.chance(1, 2) {
            for _ in 0..dice.within(1..5) {
                let act = Act::Rotate(one(&mut dice), dice.pick(&OVERLAPS));
                self.acts.push((at(&mut dice), act));
            }
        }
        match dice.below(8) {
            0 => {
                let again = dice.chance(1, 2).then(|| dice.time(REPLACED_AFTER));
                self.acts.push((at(&mut dice), Act::Revoke(one(&mut dice), again)));
            }
            1 if dice.chance(1, 2) => self.acts.push((at(&mut dice), Act::RevokeReceiver(one(&mut dice)))),
            2 => {
                let (tenant, from) = (one(&mut dice), at(&mut dice));
                self.acts.push((from, Act::Disapprove(tenant)));
                self.acts.push((from + dice.time(Duration::ZERO..window), Act::Approve(tenant)));
            }
            _ => {}
        }
        for tenant in 0..self.tenants.len() {
            if dice.chance(1, 2) {
                self.acts.push((at(&mut dice), Act::Retry(tenant)));
            }
        }
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
