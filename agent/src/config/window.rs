//! Windows of the week: `[days] hh:mm-hh:mm`.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Serialize, Serializer};

use super::{
    cron::{weekday_bit, weekdays},
    local::shown,
    time::time_of_day,
};

/// The most blackouts of a job, and the most windows of the bandwidth.
pub const MAX_WINDOWS: usize = 50;
const MINUTES_OF_A_DAY: usize = 24 * 60;
const MINUTES_OF_A_WEEK: usize = 7 * MINUTES_OF_A_DAY;
/// How many windows may follow each other without a gap: each on every day of a week and a day.
const MAX_IN_A_ROW: usize = MAX_WINDOWS * 8;

/// A time of the week, such as `mon-fri 07:00-18:00`; every day where no day is named. One that ends before it begins ends the next
/// day, and belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    text: String,
    /// By cron's numbers, 0 for Sunday.
    days: u64,
    /// Minutes of the day.
    from: u16,
    /// Minutes of the day, up to 1440.
    to: u16,
}

/// Text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidWindow(String);

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let form =
            || InvalidWindow("a window looks like \"mon-fri 07:00-18:00\", \"sat,sun 00:00-24:00\" or \"22:00-06:00\"".into());
        let mut words = text.split_whitespace();
        let (days, times) = match (words.next(), words.next(), words.next()) {
            (Some(times), None, None) => ("*", times),
            (Some(days), Some(times), None) => (days, times),
            _ => return Err(form()),
        };
        let days = weekdays(days).map_err(InvalidWindow)?;
        let (from, to) = times.split_once('-').ok_or_else(form)?;
        let minutes = |text: &str| time_of_day(text).map(|(hour, minute)| u16::from(hour) * 60 + u16::from(minute));
        let from = minutes(from).ok_or_else(form)?;
        let to = if to == "24:00" { 24 * 60 } else { minutes(to).ok_or_else(form)? };
        if from == to {
            return Err(InvalidWindow("the window ends when it begins; the whole day is 00:00-24:00".into()));
        }
        Ok(Self { text: text.to_owned(), days, from, to })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl Window {
    /// Where it lies over `at`, when it ends.
    #[must_use]
    pub fn covers(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = zone.to_datetime(at).date();
        let days = [today.yesterday().ok(), Some(today)];
        let around = days.into_iter().flatten().filter_map(|date| self.on(date, zone));
        around.filter(|(from, to)| (from..to).contains(&&at)).map(|(_, to)| to).max()
    }

    /// Begin and end of the window that belongs to a date; `None` where it is not on that weekday.
    ///
    /// A time that the clock skips counts as the moment of the change; of one that it shows twice a window begins at the first
    /// and ends at the second.
    #[must_use]
    pub fn on(&self, date: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        if self.days & weekday_bit(date.weekday()) == 0 {
            return None;
        }
        let at = |date: Date, minutes: u16| {
            let time = jiff::civil::Time::new(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0).ok()?;
            shown(date.to_datetime(time), zone)
        };
        let from = at(date, self.from)?.first();
        let to = if usize::from(self.to) == MINUTES_OF_A_DAY {
            // Midnight that comes twice is the end of this day the first time already.
            at(date.tomorrow().ok()?, 0)?.first()
        } else if self.to <= self.from {
            at(date.tomorrow().ok()?, self.to)?.last()
        } else {
            at(date, self.to)?.last()
        };
        Some((from, to))
    }
}

/// The first time at `at` or after that lies in none of the windows.
#[must_use]
pub fn outside(windows: &[Window], at: Timestamp, zone: &TimeZone) -> Timestamp {
    let mut at = at;
    for _ in 0..MAX_IN_A_ROW {
        match windows.iter().filter_map(|window| window.covers(at, zone)).max() {
            Some(end) if end > at => at = end,
            _ => break,
        }
    }
    at
}

/// Whether the windows leave any minute of the week free.
pub(super) fn leave_time(windows: &[Window]) -> bool {
    let mut taken = vec![false; MINUTES_OF_A_WEEK];
    for window in windows {
        for day in (0..7).filter(|day| window.days >> day & 1 == 1) {
            let (from, to) = (usize::from(window.from), usize::from(window.to));
            let length = if to > from { to - from } else { MINUTES_OF_A_DAY + to - from };
            let start = day * MINUTES_OF_A_DAY + from;
            for minute in start..start + length {
                if let Some(taken) = taken.get_mut(minute % MINUTES_OF_A_WEEK) {
                    *taken = true;
                }
            }
        }
    }
    taken.contains(&false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(berlin()).unwrap().timestamp()
    }

    #[test]
    fn a_window_has_days_begin_and_end() {
        let office = window("mon-fri 07:00-18:00");
        // 3 July 2026 is a Friday.
        assert_eq!(office.covers(at("2026-07-03T07:00"), &berlin()), Some(at("2026-07-03T18:00")));
        assert_eq!(office.covers(at("2026-07-03T06:59"), &berlin()), None);
        assert_eq!(office.covers(at("2026-07-03T18:00"), &berlin()), None);
        assert_eq!(office.covers(at("2026-07-04T12:00"), &berlin()), None);
        assert_eq!(window("12:00-13:00").covers(at("2026-07-04T12:30"), &berlin()), Some(at("2026-07-04T13:00")));
    }

    #[test]
    fn over_midnight_it_belongs_to_the_day_it_begins_on() {
        let night = window("fri 22:00-06:00");
        assert_eq!(night.covers(at("2026-07-04T05:59"), &berlin()), Some(at("2026-07-04T06:00")));
        assert_eq!(night.covers(at("2026-07-03T05:59"), &berlin()), None);
        assert_eq!(window("sat,SUN 00:00-24:00").covers(at("2026-07-04T23:59"), &berlin()), Some(at("2026-07-05T00:00")));
    }

    #[test]
    fn the_change_of_clocks_makes_it_shorter_or_longer() {
        let zone = berlin();
        let night = window("01:00-02:30").on(jiff::civil::date(2026, 3, 29), &zone).unwrap();
        assert_eq!(night.1, "2026-03-29T01:00:00Z".parse().unwrap());
        let night = window("01:00-02:30").on(jiff::civil::date(2026, 10, 25), &zone).unwrap();
        assert_eq!(night.1.duration_since(night.0).as_mins(), 150);
    }

    #[test]
    fn what_follows_windows_in_a_row_is_found() {
        let windows =
            [window("mon-fri 07:00-18:00"), window("18:00-20:00"), window("sat,sun 00:00-24:00"), window("fri 20:00-24:00")];
        assert_eq!(outside(&windows, at("2026-07-02T08:00"), &berlin()), at("2026-07-02T20:00"));
        assert_eq!(outside(&windows, at("2026-07-03T08:00"), &berlin()), at("2026-07-06T00:00"));
        assert_eq!(outside(&windows, at("2026-07-06T00:00"), &berlin()), at("2026-07-06T00:00"));
        assert!(leave_time(&windows));
        assert!(!leave_time(&[window("22:00-06:00"), window("06:00-22:00")]));
        assert!(!leave_time(&[window("00:00-24:00")]));
    }

    #[test]
    fn what_is_no_window_is_refused_with_what_one_looks_like() {
        for bad in ["", "mon", "07:00", "mon 7:00-18:00", "mon tue 07:00-18:00", "07:00-25:00", "24:00-07:00", "07:00-18:00:00"] {
            let said = bad.parse::<Window>().unwrap_err().to_string();
            assert!(said.contains("a window looks like"), "{bad}: {said}");
        }
        assert!("mo 07:00-18:00".parse::<Window>().unwrap_err().to_string().contains("\"mo\" is no day of the week"));
        assert!("07:00-07:00".parse::<Window>().unwrap_err().to_string().contains("00:00-24:00"));
    }
}
