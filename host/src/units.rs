//! Lengths of time and amounts of data, as people write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pause(pub Duration);

/// An amount of data: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Pause {
    /// So many days.
    #[must_use]
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 24 * 60 * 60))
    }
}

impl Bytes {
    /// So many times 2³⁰ bytes.
    #[must_use]
    pub const fn gib(gib: u64) -> Self {
        Self(gib * 1024 * 1024 * 1024)
    }

    /// As a person reads an amount that nobody has written: in the largest unit of which there is one, cut to one digit behind the
    /// point.
    #[must_use]
    pub fn rounded(self) -> String {
        let Self(bytes) = self;
        let Some((unit, shift)) = UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) else { return self.to_string() };
        let tenths = (u128::from(bytes) * 10) >> shift;
        match tenths % 10 {
            0 => format!("{}{unit}", tenths / 10),
            tenth => format!("{}.{tenth}{unit}", tenths / 10),
        }
    }
}

/// The units above one byte, the largest first, each with the power of two that it stands for.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// How many there are of something, such as `1 delivery` and `2 deliveries`.
#[must_use]
pub fn counted(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

impl std::str::FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = split(text.trim()).and_then(|(number, unit)| match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "h" => number.checked_mul(60 * 60).map(Duration::from_secs),
            "d" => number.checked_mul(24 * 60 * 60).map(Duration::from_secs),
            _ => None,
        });
        // A century is more than any clock arithmetic here has to bear.
        let sane = parsed.filter(|pause| *pause <= Self::days(36_525).0);
        sane.map(Self).ok_or_else(|| format!("{text:?} is not a length of time such as 500ms, 30s, 15m, 24h or 7d"))
    }
}

impl std::str::FromStr for Bytes {
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
        parsed.map(Self).ok_or_else(|| format!("{text:?} is not an amount of data such as 512MiB, 20GiB or 2TiB"))
    }
}

impl std::fmt::Display for Pause {
    /// In the largest unit that gives a whole number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, one) = units.into_iter().find(|(_, one)| millis != 0 && millis.is_multiple_of(*one)).unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / one)
    }
}

impl std::fmt::Display for Bytes {
    /// In the largest unit that gives a whole number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, shift) =
            UNITS.into_iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift).unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_several() {
        let told = [0, 1, 2].map(|number| counted(number, "delivery", "deliveries"));
        assert_eq!(told, ["0 deliveries", "1 delivery", "2 deliveries"]);
    }

    #[test]
    fn amounts_are_rounded_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (50 << 30, "50GiB"),
            ((1 << 40) - 1, "1023.9GiB"),
            (u64::MAX, "16777215.9TiB"),
        ] {
            assert_eq!(Bytes(bytes).rounded(), text);
        }
    }

    #[test]
    fn units_are_exact_and_nothing_else_is_understood() {
        assert_eq!("24h".parse(), Ok(Pause::days(1)));
        assert_eq!("0s".parse(), Ok(Pause(Duration::ZERO)));
        assert_eq!("2 GiB".parse(), Ok(Bytes::gib(2)));
        for text in ["0ms", "1500ms", "90s", "90m", "36h", "30d"] {
            assert_eq!(text.parse::<Pause>().unwrap().to_string(), text);
        }
        for text in ["0B", "1B", "1025B", "64KiB", "10MiB", "3TiB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        for bad in ["", "s", "5", "-1s", "1.5h", "1 week", "99999999999999999999s", "99999999999d"] {
            assert!(bad.parse::<Pause>().is_err(), "{bad:?}");
        }
        for bad in ["", "GiB", "5", "5GB", "5gib", "99999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
    }
}
