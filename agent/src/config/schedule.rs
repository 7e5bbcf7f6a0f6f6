//! When a job is due: a time of day or a cron expression, in a time zone.

use std::{collections::VecDeque, fmt, ops::Range, time::Duration};

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::{Serialize, Serializer};

use super::{
    cron::{Cron, Mistake},
    local::{Shown, shown},
    time::time_of_day,
};

/// The longest jitter.
pub const MAX_JITTER: Duration = Duration::from_secs(12 * 3_600);

/// When a job is due: every day at a time of day (`"02:00"`), or by a cron expression of five fields (`"0 2 * * mon-fri"`).
///
/// **When clocks change.** With hours that are named each run is due once: one in the skipped hour right after the change, one in the
/// hour that comes twice the first time. Where every hour counts (`"*/15 * * * *"`, `"0 */6 * * *"`) it is due whenever the clock
/// shows such a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidSchedule {
    /// Which bytes of the text are wrong.
    pub place: Range<usize>,
    /// What is wrong, and what is right.
    pub problem: String,
}

/// One time at which a schedule is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// When.
    pub at: Timestamp,
    /// The time of the clock on the wall that is meant; it may be one that the clock skips.
    pub local: DateTime,
}

impl std::str::FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let cron = if text.contains(':') {
            let told = || Mistake {
                place: 0..text.len(),
                problem: format!(
                    "{text:?} is no time of day, which goes from \"00:00\" to \"23:59\" with two digits each; more is said by five \
                     fields, as in \"0 2 * * *\""
                ),
            };
            time_of_day(text).map(|(hour, minute)| Cron::daily(hour, minute)).ok_or_else(told)
        } else {
            Cron::parse(text)
        };
        let cron = cron.map_err(|Mistake { place, problem }| InvalidSchedule { place, problem })?;
        Ok(Self { text: text.to_owned(), cron })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl Schedule {
    /// When it is due after `after`, soonest first.
    #[must_use]
    pub fn after(&self, after: Timestamp, zone: &TimeZone) -> Occurrences {
        self.from(after, zone, true)
    }

    /// When it was due at `until` and before, latest first.
    #[must_use]
    pub fn until(&self, until: Timestamp, zone: &TimeZone) -> Occurrences {
        self.from(until, zone, false)
    }

    /// Whether it goes by intervals, so that the same time of day may count twice when clocks are put back.
    #[must_use]
    pub const fn is_interval(&self) -> bool {
        self.cron.is_every_hour()
    }

    fn from(&self, bound: Timestamp, zone: &TimeZone, forward: bool) -> Occurrences {
        // A run of the day before may come only today, where the change of clocks skips midnight.
        let today = zone.to_datetime(bound).date();
        let day = if forward { today.yesterday() } else { today.tomorrow() };
        Occurrences {
            cron: self.cron.clone(),
            zone: zone.clone(),
            day: day.ok(),
            bound,
            first: !forward,
            forward,
            found: VecDeque::new(),
        }
    }
}

/// The times at which a schedule is due, one after the other, without end.
#[derive(Debug, Clone)]
pub struct Occurrences {
    cron: Cron,
    zone: TimeZone,
    /// The next day to look at.
    day: Option<Date>,
    /// What comes next lies beyond this time, or at it at the `first` step backwards.
    bound: Timestamp,
    first: bool,
    forward: bool,
    found: VecDeque<Occurrence>,
}

impl Occurrences {
    fn on(&self, date: Date) -> VecDeque<Occurrence> {
        let mut found = Vec::new();
        if !self.cron.is_on(date) {
            return found.into();
        }
        for time in self.cron.times() {
            let local = date.to_datetime(time);
            let Some(shown) = shown(local, &self.zone) else { continue };
            let (first, second) = match shown {
                Shown::Skipped(_) if self.cron.is_every_hour() => (None, None),
                Shown::Twice(first, second) if self.cron.is_every_hour() => (Some(first), Some(second)),
                shown => (Some(shown.first()), None),
            };
            found.extend(first.into_iter().chain(second).map(|at| Occurrence { at, local }));
        }
        found.sort_by_key(|occurrence| occurrence.at);
        if !self.forward {
            found.reverse();
        }
        found.into()
    }

    fn is_beyond(&self, at: Timestamp) -> bool {
        if self.forward { at > self.bound } else { at < self.bound || self.first && at == self.bound }
    }
}

impl Iterator for Occurrences {
    type Item = Occurrence;

    fn next(&mut self) -> Option<Occurrence> {
        loop {
            while let Some(next) = self.found.pop_front() {
                if self.is_beyond(next.at) {
                    (self.bound, self.first) = (next.at, false);
                    return Some(next);
                }
            }
            let date = self.day?;
            self.found = self.on(date);
            self.day = if self.forward { date.tomorrow() } else { date.yesterday() }.ok();
        }
    }
}

/// An IANA time zone by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl std::str::FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        TimeZone::get(name).map(Self).map_err(|_| {
            let asked = name.to_ascii_lowercase().replace([' ', '-'], "_");
            let near =
                |known: &str| !asked.is_empty() && known.to_ascii_lowercase().rsplit('/').next() == asked.rsplit('/').next();
            let meant = jiff::tz::db().available().map(|known| known.to_string()).find(|known| near(known));
            let hint = meant.map_or_else(String::new, |meant| format!(" - did you mean `{meant}`?"));
            format!("there is no time zone {name:?}; zones have names such as \"Europe/Berlin\"{hint}")
        })
    }
}

impl Zone {
    /// The zone.
    #[must_use]
    pub const fn get(&self) -> &TimeZone {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests;
