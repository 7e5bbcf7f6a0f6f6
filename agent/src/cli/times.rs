//! Times as people type and read them.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};
use towpath_transfer::{Code, Failure, failure::Result};

/// Reads a time: with a zone or an offset, or by the clock of `zone` as a date, a date and a time, or a time of day, which is the next
/// one after `now`.
///
/// # Errors
/// `request-invalid` with what a time looks like.
pub(super) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let wrong = || {
        let told =
            format!("{text:?} is no time; write 18:00, \"2026-07-03 18:00\", 2026-07-03, or with a zone 2026-07-03T18:00Z");
        Failure::park(Code::RequestInvalid, told)
    };
    let local = |time: DateTime| zone.to_timestamp(time).map_err(|_| wrong());
    if let Ok(zoned) = text.parse::<jiff::Zoned>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return local(time);
    }
    if let Ok(date) = text.parse::<Date>() {
        return local(date.to_datetime(Time::midnight()));
    }
    let time = text.parse::<Time>().map_err(|_| wrong())?;
    let today = zone.to_datetime(now).date();
    let next = local(today.to_datetime(time))?;
    if next > now {
        return Ok(next);
    }
    local(today.checked_add(1.day()).map_err(|_| wrong())?.to_datetime(time))
}

/// A time for people, by the clock of `zone`.
pub(super) fn told(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_type_them() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now: Timestamp = "2026-07-03T16:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-07-03T18:30Z", "2026-07-03T18:30:00Z"),
            ("2026-07-03T18:30+02:00", "2026-07-03T16:30:00Z"),
            ("2026-07-03T18:30[America/New_York]", "2026-07-03T22:30:00Z"),
            ("2026-07-03 18:30", "2026-07-03T16:30:00Z"),
            ("2026-07-04", "2026-07-03T22:00:00Z"),
            ("18:30", "2026-07-03T16:30:00Z"),
            ("18:00", "2026-07-04T16:00:00Z"),
            ("06:00", "2026-07-04T04:00:00Z"),
        ] {
            assert_eq!(parse(text, now, &zone).unwrap(), expected.parse::<Timestamp>().unwrap(), "{text}");
        }
        for bad in ["", "soon", "25:00", "2026-13-01", "2h"] {
            assert_eq!(parse(bad, now, &zone).unwrap_err().code(), Code::RequestInvalid, "{bad}");
        }
        assert_eq!(told(now, &zone), "Fri 2026-07-03 18:00 CEST");
    }
}
