//! `[bandwidth]`: how much of the line the agent takes, by time of day.

use std::{num::NonZeroU64, ops::Range};

use jiff::{Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_host::{ConfigMistake, Spanned};

use super::window::{MAX_WINDOWS, Window};

/// Within so many days every window of a week begins and ends, also one over midnight.
const DAYS_AHEAD: i32 = 8;

/// `[bandwidth]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BandwidthConfig {
    /// The most bytes a second of files, both ways together, where no window counts; 0 for no limit.
    pub max_bytes_per_second: u64,
    /// What counts at times of the week; the first window that fits.
    #[serde(rename = "window", skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<BandwidthWindow>,
}

/// One `[[bandwidth.window]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BandwidthWindow {
    /// When it counts.
    pub during: Window,
    /// The most bytes a second then; 0 for no limit.
    pub max_bytes_per_second: u64,
}

/// What counts at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BandwidthLimit {
    /// The most bytes a second; `None` for no limit.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Until when; `None` where it does not change.
    pub until: Option<Timestamp>,
}

impl BandwidthConfig {
    /// The most bytes a second at a time; `None` for no limit.
    #[must_use]
    pub fn rate(&self, now: Timestamp, zone: &TimeZone) -> Option<NonZeroU64> {
        let window = self.windows.iter().find(|window| window.during.covers(now, zone).is_some());
        NonZeroU64::new(window.map_or(self.max_bytes_per_second, |window| window.max_bytes_per_second))
    }

    /// What counts at a time, and until when.
    #[must_use]
    pub fn limit(&self, now: Timestamp, zone: &TimeZone) -> BandwidthLimit {
        let bytes_per_second = self.rate(now, zone);
        let today = zone.to_datetime(now).date();
        let days = (-1..=DAYS_AHEAD).filter_map(|day| today.checked_add(jiff::Span::new().days(day)).ok());
        let edges = days.flat_map(|date| self.windows.iter().filter_map(move |window| window.during.on(date, zone)));
        let mut edges: Vec<Timestamp> = edges.flat_map(|(from, to)| [from, to]).filter(|edge| *edge > now).collect();
        edges.sort_unstable();
        edges.dedup();
        let until = edges.into_iter().find(|edge| self.rate(*edge, zone) != bytes_per_second);
        BandwidthLimit { bytes_per_second, until }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Bandwidth")]
pub(super) struct RawBandwidth {
    /// The most bytes a second of files to and from the relay, both ways together; 0 for no limit.
    max_bytes_per_second: u64,
    /// Other limits at times of the week; the first that fits counts.
    #[serde(rename = "window")]
    windows: Vec<RawWindow>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BandwidthWindow")]
struct RawWindow {
    /// When it counts, such as mon-fri 07:00-18:00.
    during: Spanned<String>,
    /// The most bytes a second then; 0 for no limit.
    max_bytes_per_second: u64,
}

impl RawBandwidth {
    /// The settings, checked; `at` makes a mistake at a place.
    pub(super) fn check(
        self,
        at: impl Fn(Option<Range<usize>>, String) -> ConfigMistake,
    ) -> Result<BandwidthConfig, ConfigMistake> {
        let mut windows = Vec::new();
        for RawWindow { during, max_bytes_per_second } in self.windows {
            let wrong = |problem: String| at(Some(during.span()), problem);
            if windows.len() >= MAX_WINDOWS {
                return Err(wrong(format!("there are more than {MAX_WINDOWS} windows")));
            }
            let during = during.get_ref().parse().map_err(|error| wrong(format!("{error}")))?;
            windows.push(BandwidthWindow { during, max_bytes_per_second });
        }
        Ok(BandwidthConfig { max_bytes_per_second: self.max_bytes_per_second, windows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(during: &str, max_bytes_per_second: u64) -> BandwidthWindow {
        BandwidthWindow { during: during.parse().unwrap(), max_bytes_per_second }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_window_that_fits_counts_until_the_rate_changes() {
        let windows = vec![window("12:00-13:00", 0), window("mon-fri 07:00-18:00", 100), window("18:00-20:00", 100)];
        let config = BandwidthConfig { max_bytes_per_second: 500, windows };
        let limit = |time: &str| {
            let limit = config.limit(at(time), &TimeZone::UTC);
            (limit.bytes_per_second.map(NonZeroU64::get), limit.until)
        };
        // 3 July 2026 is a Friday.
        assert_eq!(limit("2026-07-03T06:00:00Z"), (Some(500), Some(at("2026-07-03T07:00:00Z"))));
        assert_eq!(limit("2026-07-03T07:00:00Z"), (Some(100), Some(at("2026-07-03T12:00:00Z"))));
        assert_eq!(limit("2026-07-03T12:00:00Z"), (None, Some(at("2026-07-03T13:00:00Z"))));
        assert_eq!(limit("2026-07-03T14:00:00Z"), (Some(100), Some(at("2026-07-03T20:00:00Z"))), "two windows of one rate");
        assert_eq!(limit("2026-07-04T11:00:00Z"), (Some(500), Some(at("2026-07-04T12:00:00Z"))));
    }

    #[test]
    fn a_rate_that_never_changes_has_no_end() {
        let limit = |max, windows| {
            BandwidthConfig { max_bytes_per_second: max, windows }.limit(at("2026-07-03T06:00:00Z"), &TimeZone::UTC)
        };
        assert_eq!(limit(0, Vec::new()), BandwidthLimit { bytes_per_second: None, until: None });
        assert_eq!(limit(7, vec![window("00:00-24:00", 7)]).until, None);
        assert_eq!(limit(7, vec![window("thu 22:00-21:00", 9)]).until, Some(at("2026-07-03T21:00:00Z")));
    }
}
