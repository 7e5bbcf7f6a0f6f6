//! Failed logins by address, and how long an address is refused for them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use towpath_transfer::Clock;

use super::{address::AddressKey, limits::Limits};

const MINUTE: Duration = Duration::from_mins(1);

/// Remembers failed logins. A refusal concerns unknown keys only: a valid key gets in from a refused address too, so
/// that nobody can lock out a neighbour behind the same address translation.
#[derive(Debug)]
pub struct Attempts {
    clock: Arc<dyn Clock>,
    per_minute: usize,
    refusal: Duration,
    refusal_longest: Duration,
    remembered: usize,
    records: Mutex<HashMap<AddressKey, Record>>,
}

#[derive(Debug, Default)]
struct Record {
    failures: VecDeque<Duration>,
    refusals: u32,
    refused_until: Duration,
    last: Duration,
}

impl Attempts {
    /// None yet.
    pub(super) fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            per_minute: limits.failures_per_minute.max(1),
            refusal: limits.refusal,
            refusal_longest: limits.refusal_longest,
            remembered: limits.remembered_addresses.max(1),
            records: Mutex::default(),
        }
    }

    /// Notes one failed attempt; the one that fills the minute's measure starts a refusal.
    pub fn failed(&self, address: IpAddr) {
        let now = self.clock.monotonic();
        let address = AddressKey::from(address);
        let mut records = self.lock();
        if !records.contains_key(&address) {
            self.make_room(&mut records, now);
        }
        let record = records.entry(address).or_default();
        record.last = now;
        record.failures.retain(|at| *at + MINUTE > now);
        record.failures.push_back(now);
        if record.failures.len() >= self.per_minute {
            record.failures.clear();
            let doubled = self.refusal.saturating_mul(1u32.checked_shl(record.refusals).unwrap_or(u32::MAX));
            record.refused_until = now + doubled.min(self.refusal_longest);
            record.refusals = record.refusals.saturating_add(1).min(u32::BITS - 1);
        }
    }

    /// Takes back failures of a connection that logged in after all: its first keys were simply not the right ones.
    pub(super) fn forgive(&self, address: IpAddr, failures: usize) {
        if let Some(record) = self.lock().get_mut(&AddressKey::from(address)) {
            for _ in 0..failures {
                record.failures.pop_back();
            }
        }
    }

    /// Whether unknown keys from `address` are refused now.
    pub(super) fn refuses(&self, address: IpAddr) -> bool {
        self.refused_for(address).is_some()
    }

    /// For how long yet what is unknown and comes from `address` is refused at once.
    #[must_use]
    pub fn refused_for(&self, address: IpAddr) -> Option<Duration> {
        let now = self.clock.monotonic();
        let until = self.lock().get(&AddressKey::from(address))?.refused_until;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// A record is of no more use when its address was quiet for as long as the longest refusal.
    fn make_room(&self, records: &mut HashMap<AddressKey, Record>, now: Duration) {
        if records.len() < self.remembered {
            return;
        }
        records.retain(|_, record| record.last + self.refusal_longest > now);
        if records.len() >= self.remembered
            && let Some(oldest) = records.iter().min_by_key(|(_, record)| record.last).map(|(address, _)| *address)
        {
            records.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AddressKey, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn fail(attempts: &Attempts, times: usize) {
        for _ in 0..times {
            attempts.failed(HERE);
        }
    }

    #[test]
    fn ten_a_minute_start_a_refusal_that_grows() {
        let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
        let attempts = Attempts::new(&Limits::default(), Arc::new(clock.clone()));
        fail(&attempts, 9);
        assert!(!attempts.refuses(HERE));
        clock.advance(MINUTE);
        fail(&attempts, 9);
        assert!(!attempts.refuses(HERE), "failures older than a minute do not count");
        fail(&attempts, 1);
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(attempts.refuses(HERE));
            clock.advance(MINUTE * minutes - Duration::from_secs(1));
            assert!(attempts.refuses(HERE), "{minutes} minutes");
            clock.advance(Duration::from_secs(1));
            assert!(!attempts.refuses(HERE), "{minutes} minutes");
            fail(&attempts, 10);
        }
    }

    #[test]
    fn a_login_forgives_the_keys_tried_before_it() {
        let attempts = Attempts::new(&Limits::default(), Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)));
        for _ in 0..100 {
            fail(&attempts, 4);
            attempts.forgive(HERE, 4);
        }
        assert!(!attempts.refuses(HERE));
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let clock = ManualClock::new(jiff::Timestamp::UNIX_EPOCH);
        let limits = Limits { remembered_addresses: 3, ..Limits::default() };
        let attempts = Attempts::new(&limits, Arc::new(clock.clone()));
        for last in 0..50 {
            clock.advance(Duration::from_secs(1));
            attempts.failed(IpAddr::from([192, 0, 2, last]));
        }
        assert_eq!(attempts.lock().len(), 3);
    }
}
