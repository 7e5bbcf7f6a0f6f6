//! Times of day and durations in their configured form.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads `hh:mm`, two digits each, as hour and minute; `None` where it is not that.
pub(super) fn time_of_day(text: &str) -> Option<(u8, u8)> {
    let number = |t: &str| t.parse::<u8>().ok().filter(|_| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()));
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some((hour, minute))
}

/// Reads `"30s"`, `"5 minutes"`, `"7d"` (days of 24 hours) or ISO 8601's `"PT5M"`.
///
/// # Errors
/// What a duration looks like, where this is none.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let form = "a duration looks like \"30s\", \"5m\", \"1h 30m\" or \"7d\"";
    let (days, rest) = leading_days(text);
    if rest.trim().is_empty() {
        return days.ok_or(form);
    }
    let signed: SignedDuration = rest.trim().parse().map_err(|_| form)?;
    let rest = Duration::try_from(signed).map_err(|_| "a duration cannot be negative")?;
    days.unwrap_or_default().checked_add(rest).ok_or(form)
}

/// The days that a text begins with, and what follows; jiff leaves them out, because a day of a calendar may have another length.
fn leading_days(text: &str) -> (Option<Duration>, &str) {
    let trimmed = text.trim_start();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let Some((number, rest)) = trimmed.split_at_checked(digits) else { return (None, text) };
    let unit = ["days", "day", "d"].into_iter().find_map(|unit| rest.trim_start().strip_prefix(unit));
    let seconds = number.parse::<u64>().ok().and_then(|days| days.checked_mul(24 * 3_600));
    match (seconds, unit) {
        (Some(seconds), Some(rest)) if !rest.starts_with(|c: char| c.is_alphanumeric()) => {
            (Some(Duration::from_secs(seconds)), rest)
        }
        _ => (None, text),
    }
}

fn show_duration(duration: Duration) -> String {
    format!("{:#}", SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}

pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::show_duration(*duration))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A duration in the file, of which the place may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Long(pub(super) Duration);

impl schemars::JsonSchema for Long {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^\\s*[Pp0-9].*[A-Za-z]\\s*$", "description": "Such as 30s, 5m or 1h 30m." })
    }
}

impl<'de> serde::Deserialize<'de> for Long {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration::deserialize(from).map(Self)
    }
}

pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in super::super) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_have_one_form() {
        assert_eq!(time_of_day("02:05"), Some((2, 5)));
        for bad in ["2:00", "24:00", "02:60", "02:00:00", "0200", "+2:00", ""] {
            assert_eq!(time_of_day(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration(&show_duration(Duration::from_secs(95))), Ok(Duration::from_secs(95)));
        for (text, seconds) in [("7d", 604_800), ("1 day", 86_400), ("2 days 3h", 183_600), ("PT5M", 300), ("5 minutes", 300)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", " ", "d", "7dx", "7d x", "-1d", "99999999999999999999d", "300000000000000d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("-5s").is_err());
        assert!(parse_duration("5").is_err());
    }
}
