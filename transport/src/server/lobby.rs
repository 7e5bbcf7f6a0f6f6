//! The connections that have not logged in yet: few, and the oldest makes room.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, clock::Sleep};

use super::{address::AddressKey, limits::Limits};

/// Counts unauthenticated connections, over all addresses and per address.
///
/// A full table drops its oldest connection instead of refusing the newest: a login takes a fraction of a second, so a
/// neighbour behind the same address gets in while a flood only pushes itself out.
#[derive(Debug)]
pub(super) struct Lobby {
    most: usize,
    most_per_address: usize,
    grace: Duration,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    address: AddressKey,
    displaced: CancellationToken,
}

/// A place among the unauthenticated connections; dropping it gives the place back.
#[derive(Debug)]
pub struct Ticket {
    lobby: Arc<Lobby>,
    number: u64,
    displaced: CancellationToken,
    grace: Grace,
}

/// The grace of a login: it counts from the place on, whatever is spoken before SSH or HTTP. Clones are the same.
#[derive(Debug, Clone)]
pub struct Grace {
    clock: Arc<dyn Clock>,
    /// By its monotonic time.
    until: Duration,
}

impl Lobby {
    pub(super) fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (most, most_per_address) = (limits.unauthenticated.max(1), limits.unauthenticated_per_address.max(1));
        Arc::new(Self { most, most_per_address, grace: limits.login_grace, clock, waiting: Mutex::default() })
    }

    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Ticket {
        let address = AddressKey::from(address);
        let displaced = CancellationToken::new();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        let of_address = waiting.entries.iter().filter(|entry| entry.address == address).count();
        let oldest = if of_address >= self.most_per_address {
            waiting.entries.iter().position(|entry| entry.address == address)
        } else if waiting.entries.len() >= self.most {
            Some(0)
        } else {
            None
        };
        let dropped = oldest.and_then(|index| waiting.entries.remove(index));
        waiting.entries.push_back(Entry { number, address, displaced: displaced.clone() });
        drop(waiting);
        if let Some(dropped) = dropped {
            dropped.displaced.cancel();
        }
        let grace = Grace { clock: Arc::clone(&self.clock), until: self.clock.monotonic().saturating_add(self.grace) };
        Ticket { lobby: Arc::clone(self), number, displaced, grace }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Completes when the holder must hang up: a newer connection has taken this place, or the grace of its login is over.
    pub async fn expired(&self) {
        tokio::select! {
            () = self.displaced.cancelled() => {}
            () = self.grace.over() => {}
        }
    }

    /// By when the login must have happened.
    #[must_use]
    pub fn grace(&self) -> Grace {
        self.grace.clone()
    }

    /// Is cancelled when a newer connection has taken this place.
    #[must_use]
    pub fn displacement(&self) -> CancellationToken {
        self.displaced.clone()
    }
}

impl Grace {
    /// Completes when it is over.
    #[must_use]
    pub fn over(&self) -> Sleep {
        self.clock.sleep(self.until.saturating_sub(self.clock.monotonic()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lobby.lock().entries.retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn a_place_expires_with_the_grace_or_when_it_is_taken() {
        let clock = clock();
        let lobby = Lobby::new(&Limits { unauthenticated: 1, ..Limits::default() }, clock.clone());
        clock.advance(Duration::from_hours(1));
        let ticket = lobby.enter(address(1));
        clock.advance(Duration::from_millis(29_999));
        let mut expired = Box::pin(ticket.expired());
        assert!(futures::poll!(&mut expired).is_pending());
        clock.advance(Duration::from_millis(1));
        expired.await;
        let ticket = lobby.enter(address(1));
        let mut expired = Box::pin(ticket.expired());
        assert!(futures::poll!(&mut expired).is_pending());
        let _newer = lobby.enter(address(2));
        expired.await;
    }

    #[test]
    fn a_full_address_and_a_full_table_drop_their_oldest() {
        let lobby = Lobby::new(&Limits::default(), clock());
        let first = lobby.enter(address(1));
        let second = lobby.enter(address(2));
        let flood: Vec<_> = (0..20).map(|_| lobby.enter(address(2))).collect();
        assert!(second.displaced.is_cancelled(), "the twenty-first of an address drops that address's oldest");
        assert!(!first.displaced.is_cancelled(), "another address is not touched by it");
        assert!(flood.iter().all(|ticket| !ticket.displaced.is_cancelled()));
        let others: Vec<_> = (3..82).map(|last| lobby.enter(address(last))).collect();
        assert!(!first.displaced.is_cancelled(), "a hundred fit");
        let newest = lobby.enter(address(90));
        assert!(first.displaced.is_cancelled(), "one more drops the oldest of all");
        drop((newest, others, flood, first, second));
        assert!(lobby.lock().entries.is_empty());
    }
}
