//! Times of day and durations in their configured form.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, civil::Time};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A time of day, `hh:mm` in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DailyTime(Time);

/// Text that is not a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a schedule is a time of day such as \"02:00\", in local time")]
pub struct InvalidDailyTime;

impl DailyTime {
    /// The time of day.
    #[must_use]
    pub const fn time(self) -> Time {
        self.0
    }
}

impl FromStr for DailyTime {
    type Err = InvalidDailyTime;

    fn from_str(text: &str) -> Result<Self, InvalidDailyTime> {
        let number = |t: &str| t.parse::<i8>().ok().filter(|_| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()));
        let (hour, minute) = text.split_once(':').ok_or(InvalidDailyTime)?;
        let (hour, minute) = (number(hour).ok_or(InvalidDailyTime)?, number(minute).ok_or(InvalidDailyTime)?);
        Time::new(hour, minute, 0, 0).map(Self).map_err(|_| InvalidDailyTime)
    }
}

impl TryFrom<String> for DailyTime {
    type Error = InvalidDailyTime;

    fn try_from(text: String) -> Result<Self, InvalidDailyTime> {
        text.parse()
    }
}

impl From<DailyTime> for String {
    fn from(time: DailyTime) -> Self {
        time.to_string()
    }
}

impl fmt::Display for DailyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

/// Reads `"30s"`, `"5 minutes"` or ISO 8601's `"PT5M"`.
///
/// # Errors
/// What a duration looks like, where this is none.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let signed: SignedDuration = text.parse().map_err(|_| "a duration looks like \"30s\", \"5m\" or \"1h 30m\"")?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative")
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
        assert_eq!("02:05".parse::<DailyTime>().unwrap().to_string(), "02:05");
        for bad in ["2:00", "24:00", "02:60", "02:00:00", "0200", "+2:00", ""] {
            assert!(bad.parse::<DailyTime>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration(&show_duration(Duration::from_secs(95))), Ok(Duration::from_secs(95)));
        assert!(parse_duration("-5s").is_err());
        assert!(parse_duration("5").is_err());
    }
}
