//! What a column of a table is called and what type it has.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest table or column name, in characters.
pub const MAX_LABEL_CHARS: usize = 128;
/// The largest precision and scale of a `DECIMAL` column, in digits.
pub const MAX_DECIMAL_DIGITS: u16 = 1_000;

/// A table or column name: 1 to [`MAX_LABEL_CHARS`] characters of any script, no control characters. Hostile input all
/// the same: whoever puts it into SQL quotes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// A table or column name that is empty, too long or holds control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a table or column name has 1 to {MAX_LABEL_CHARS} characters and no control characters")]
pub struct InvalidLabel;

impl Label {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let length = text.chars().take(MAX_LABEL_CHARS + 1).count();
        let good = (1..=MAX_LABEL_CHARS).contains(&length) && !text.chars().any(char::is_control);
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidLabel) }
    }
}

impl TryFrom<String> for Label {
    type Error = InvalidLabel;

    fn try_from(text: String) -> Result<Self, InvalidLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The types a column can have on the wire, with the text form of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SqlType {
    /// Whole numbers of 64 bits, signed.
    BigInt,
    /// Exact decimals: `-?digits[.digits]`, at most `scale` digits after the point.
    Decimal {
        /// Digits in all.
        precision: u16,
        /// Digits after the point.
        scale: u16,
    },
    /// IEEE 754 double; the shortest text that reads back as the same value.
    Double,
    /// Text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// `hh:mm:ss[.fraction]`.
    Time,
    /// `YYYY-MM-DDThh:mm:ss[.fraction]`, without zone.
    Timestamp,
    /// `YYYY-MM-DDThh:mm:ss[.fraction]±hh:mm`.
    TimestampTz,
    /// Bytes in base64.
    Binary,
}

impl SqlType {
    /// Whether a column of this type carries a control total. Doubles do not: their sum is not exact.
    #[must_use]
    pub const fn has_total(self) -> bool {
        matches!(self, Self::BigInt | Self::Decimal { .. })
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BigInt => f.write_str("BIGINT"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Double => f.write_str("DOUBLE PRECISION"),
            Self::Text => f.write_str("TEXT"),
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Date => f.write_str("DATE"),
            Self::Time => f.write_str("TIME"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::TimestampTz => f.write_str("TIMESTAMP WITH TIME ZONE"),
            Self::Binary => f.write_str("BINARY"),
        }
    }
}

/// Text that is not one of the types of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a column type: use BIGINT, DECIMAL(p,s), DOUBLE PRECISION, TEXT, BOOLEAN, DATE, TIME, TIMESTAMP, TIMESTAMP WITH TIME ZONE or BINARY"
)]
pub struct InvalidType(String);

impl FromStr for SqlType {
    type Err = InvalidType;

    fn from_str(text: &str) -> Result<Self, InvalidType> {
        let invalid = || InvalidType(text.chars().take(64).collect());
        Ok(match text {
            "BIGINT" => Self::BigInt,
            "DOUBLE PRECISION" => Self::Double,
            "TEXT" => Self::Text,
            "BOOLEAN" => Self::Boolean,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "TIMESTAMP" => Self::Timestamp,
            "TIMESTAMP WITH TIME ZONE" => Self::TimestampTz,
            "BINARY" => Self::Binary,
            _ => {
                let inner = text.strip_prefix("DECIMAL(").and_then(|t| t.strip_suffix(')')).ok_or_else(invalid)?;
                let (precision, scale) = inner.split_once(',').ok_or_else(invalid)?;
                let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n <= MAX_DECIMAL_DIGITS && n.to_string() == t);
                let precision = number(precision).filter(|p| *p > 0).ok_or_else(invalid)?;
                let scale = number(scale).filter(|s| *s <= precision).ok_or_else(invalid)?;
                Self::Decimal { precision, scale }
            }
        })
    }
}

impl TryFrom<String> for SqlType {
    type Error = InvalidType;

    fn try_from(text: String) -> Result<Self, InvalidType> {
        text.parse()
    }
}

impl From<SqlType> for String {
    fn from(sql_type: SqlType) -> Self {
        sql_type.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_one_spelling() {
        for text in ["BIGINT", "DECIMAL(12,2)", "DOUBLE PRECISION", "TIMESTAMP WITH TIME ZONE", "BINARY"] {
            assert_eq!(text.parse::<SqlType>().unwrap().to_string(), text);
        }
        for bad in ["bigint", "DECIMAL(2,3)", "DECIMAL(0,0)", "DECIMAL(012,2)", "DECIMAL(12, 2)", "DECIMAL(1001,0)", ""] {
            assert!(bad.parse::<SqlType>().is_err(), "{bad}");
        }
    }
}
