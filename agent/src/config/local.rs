//! What a clock on the wall means in a time zone that puts it forward and back.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// When a clock on the wall shows a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Once.
    Once(Timestamp),
    /// Never, because the clock was put forward over it: the first moment after that.
    Skipped(Timestamp),
    /// Twice, because the clock was put back over it: the first and the second time.
    Twice(Timestamp, Timestamp),
}

impl Shown {
    /// The first moment at which the clock shows at least this time.
    pub(crate) const fn first(self) -> Timestamp {
        match self {
            Self::Once(at) | Self::Skipped(at) | Self::Twice(at, _) => at,
        }
    }

    /// The last moment of that kind.
    pub(crate) const fn last(self) -> Timestamp {
        match self {
            Self::Once(at) | Self::Skipped(at) | Self::Twice(_, at) => at,
        }
    }
}

/// When the clock shows `time`; `None` beyond the years that can be represented.
pub(crate) fn shown(time: DateTime, zone: &TimeZone) -> Option<Shown> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    let (first, second) = (ambiguous.earlier().ok()?, ambiguous.later().ok()?);
    if first == second {
        return Some(Shown::Once(first));
    }
    // Read with the offset from before the change the time lies after the change where the clock was put forward.
    let is_skipped = zone.to_datetime(second) != time;
    if !is_skipped {
        return Some(Shown::Twice(first, second));
    }
    let one_second = jiff::SignedDuration::from_secs(1);
    let change = zone.preceding(second.checked_add(one_second).ok()?).next();
    Some(Shown::Skipped(change.map_or(second, |change| change.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_zone(zone: &str, time: &str) -> Shown {
        shown(time.parse().unwrap(), &TimeZone::get(zone).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_shown_once_never_or_twice() {
        assert_eq!(in_zone("Europe/Berlin", "2026-01-15T02:30"), Shown::Once(at("2026-01-15T01:30:00Z")));
        let change = Shown::Skipped(at("2026-03-29T01:00:00Z"));
        for skipped in ["02:00", "02:30", "02:59"] {
            assert_eq!(in_zone("Europe/Berlin", &format!("2026-03-29T{skipped}")), change);
        }
        assert_eq!(in_zone("Europe/Berlin", "2026-03-29T03:00"), Shown::Once(at("2026-03-29T01:00:00Z")));
        let twice = Shown::Twice(at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z"));
        assert_eq!(in_zone("Europe/Berlin", "2026-10-25T02:30"), twice);
        // Half an hour at Lord Howe Island, and midnight itself in Beirut.
        assert_eq!(in_zone("Australia/Lord_Howe", "2026-10-04T02:15"), Shown::Skipped(at("2026-10-03T15:30:00Z")));
        assert_eq!(in_zone("Asia/Beirut", "2026-03-29T00:30"), Shown::Skipped(at("2026-03-28T22:00:00Z")));
    }
}
