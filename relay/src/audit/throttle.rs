//! What an end or a stranger does again and again is one row a minute with a count, so that nobody can fill the trail.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use towpath_transfer::public_key::Fingerprint;
use towpath_transport::server::AddressKey;

use super::{Action, Entry, OK, cut};

/// What is alike within this time is one row.
pub const WINDOW: Duration = Duration::from_mins(1);
/// The kinds of entries that are told apart at once.
pub const MOST_WINDOWS: usize = 1_000;
/// Of these, of those who have proven nothing.
pub const MOST_OF_STRANGERS: usize = 100;
/// Of these, refusals of one action of one end or address: further ones are one row for all of them.
pub const MOST_ALIKE: usize = 10;

/// Who counts as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Group {
    End { tenant: String, role: &'static str, name: String },
    Address(AddressKey),
    Everybody,
}

/// What makes entries of one group and action differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    key: Option<Fingerprint>,
    address: Option<AddressKey>,
    transfer: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike {
    action: Action,
    group: Group,
    /// Nothing for all those that are too many to be told apart.
    kind: Option<Kind>,
}

#[derive(Debug)]
struct Window {
    /// When its last row was written, by the monotonic clock.
    opened: Duration,
    held: u64,
    since: Timestamp,
    last: Entry,
}

/// Lets the first of alike entries pass and counts the others.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    windows: HashMap<Alike, Window>,
}

impl Throttle {
    /// The entry, where there was none like it within [`WINDOW`].
    pub(super) fn take(&mut self, entry: Entry, now: Duration) -> Option<Entry> {
        if self.windows.len() >= MOST_WINDOWS {
            self.windows.retain(|_, window| window.held > 0 || now < window.opened + WINDOW);
        }
        let Some(alike) = self.alike(&entry) else { return Some(entry) };
        let entry = plain(entry, &alike);
        if let Some(window) = self.windows.get_mut(&alike) {
            if window.held == 0 {
                window.since = entry.at;
            }
            window.held += 1;
            window.last = entry;
            return if now < window.opened + WINDOW { None } else { window.told(now) };
        }
        let window = Window { opened: now, held: 0, since: entry.at, last: entry.clone() };
        self.windows.insert(alike, window);
        Some(entry)
    }

    /// What was held back for long enough, or all of it.
    pub(super) fn due(&mut self, now: Duration, everything: bool) -> Vec<Entry> {
        let over = |window: &Window| everything || now >= window.opened + WINDOW;
        self.windows.retain(|_, window| window.held > 0 || !over(window));
        let mut due: Vec<Entry> =
            self.windows.values_mut().filter(|window| over(window)).filter_map(|window| window.told(now)).collect();
        due.sort_by_key(|entry| entry.at);
        due
    }

    /// Nothing for what was done and cannot be counted for want of room: it needed real work, which bounds it.
    fn alike(&self, entry: &Entry) -> Option<Alike> {
        let (action, who) = (entry.action, &entry.who);
        let group = match who.address {
            _ if who.is_proven() => Group::End { tenant: entry.tenant.clone(), role: who.role, name: who.name.clone() },
            Some(address) => Group::Address(address.into()),
            None => Group::Everybody,
        };
        let (address, transfer) = (who.address.map(AddressKey::from), entry.transfer.clone());
        let kind = Some(Kind { key: who.key, address, transfer, result: entry.result });
        let exact = Alike { action, group, kind };
        if self.windows.contains_key(&exact) {
            return Some(exact);
        }
        let full = self.windows.len() >= MOST_WINDOWS;
        if entry.result == OK {
            return (!full).then_some(exact);
        }
        let strangers = |alike: &&Alike| !matches!(alike.group, Group::End { .. });
        if full || (!who.is_proven() && self.windows.keys().filter(strangers).count() >= MOST_OF_STRANGERS) {
            return Some(Alike { action, group: Group::Everybody, kind: None });
        }
        let many = self.windows.keys().filter(|known| known.action == action && known.group == exact.group).count();
        if many >= MOST_ALIKE { Some(Alike { kind: None, ..exact }) } else { Some(exact) }
    }
}

impl Window {
    /// One row for everything that was held back.
    fn told(&mut self, now: Duration) -> Option<Entry> {
        if self.held == 0 {
            return None;
        }
        let (held, since, last) = (std::mem::take(&mut self.held), self.since, self.last.clone());
        self.opened = now;
        let room = super::MAX_DETAIL_CHARS / 2;
        let before = if last.detail.is_empty() { String::new() } else { format!("{}; ", cut(&last.detail, room)) };
        Some(last.detail(format!("{before}{held} times since {since}")))
    }
}

/// Without what entries do not have in common that are too many to be told apart.
fn plain(mut entry: Entry, alike: &Alike) -> Entry {
    if alike.kind.is_none() {
        entry.transfer.clear();
        entry.who.key = None;
        entry.detail = "several, too many to be told apart".to_owned();
        if alike.group == Group::Everybody {
            entry.who = super::Who::default();
            entry.tenant.clear();
        }
    }
    entry
}
