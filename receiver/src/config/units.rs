//! Lengths of time and amounts of data, as people write them.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// The longest configurable time.
const MAX_PAUSE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pause(pub Duration);

/// An amount of data: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u64);

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split(text.trim()).and_then(|(number, unit)| {
            let milliseconds = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60 * 1_000,
                "h" => 60 * 60 * 1_000,
                "d" => 24 * 60 * 60 * 1_000,
                _ => return None,
            };
            number.checked_mul(milliseconds).map(Duration::from_millis)
        });
        let sane = parsed.filter(|pause| *pause <= MAX_PAUSE);
        sane.map(Self).ok_or_else(|| format!("{text:?} is not a length of time such as \"500ms\", \"5s\" or \"1h\""))
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split(text.trim()).and_then(|(number, unit)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                "TiB" => 40,
                _ => return None,
            };
            number.checked_mul(1u64 << shift)
        });
        parsed.map(Self).ok_or_else(|| format!("{text:?} is not an amount of data such as \"512MiB\" or \"20GiB\""))
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!("5s".parse(), Ok(Pause(Duration::from_secs(5))));
        assert_eq!("2 d".parse(), Ok(Pause(Duration::from_secs(172_800))));
        assert_eq!("20GiB".parse(), Ok(Amount(20 << 30)));
        for bad in ["", "5", "s", "-5s", "5 weeks", "99999999999999999999s", "400d"] {
            assert!(bad.parse::<Pause>().is_err(), "{bad}");
        }
        for bad in ["", "5", "GiB", "5GB", "99999999999TiB"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }
}
