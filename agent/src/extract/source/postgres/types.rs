//! From PostgreSQL's types to those of the wire.

use towpath_transfer::manifest::{MAX_DECIMAL_DIGITS, SqlType};

/// Object ids of built-in types; they never change (`pg_type.dat` in PostgreSQL's source).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const OID: u32 = 26;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const NUMERIC: u32 = 1700;
}

/// What a column holds, as far as reading it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Boolean,
    Integer,
    Numeric,
    Float,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    /// Text, and everything that PostgreSQL writes as a text of its own.
    Other,
}

impl Held {
    pub(super) const fn of(type_oid: u32) -> Self {
        match type_oid {
            oid::BOOL => Self::Boolean,
            oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => Self::Integer,
            oid::NUMERIC => Self::Numeric,
            oid::FLOAT4 | oid::FLOAT8 => Self::Float,
            oid::BYTEA => Self::Bytes,
            oid::DATE => Self::Date,
            oid::TIME => Self::Time,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::TimestampTz,
            _ => Self::Other,
        }
    }

    /// The type on the wire. `modifier` is the column's `atttypmod`, -1 where it has none or nobody knows.
    pub(super) fn sql_type(self, modifier: i32) -> SqlType {
        match self {
            Self::Boolean => SqlType::Boolean,
            Self::Integer => SqlType::BigInt,
            // Without its digits text is what loses nothing; the configuration can say better.
            Self::Numeric => decimal(modifier).unwrap_or(SqlType::Text),
            Self::Float => SqlType::Double,
            Self::Bytes => SqlType::Binary,
            Self::Date => SqlType::Date,
            Self::Time => SqlType::Time,
            Self::Timestamp => SqlType::Timestamp,
            Self::TimestampTz => SqlType::TimestampTz,
            Self::Other => SqlType::Text,
        }
    }
}

/// `numeric(precision, scale)`: four more than the precision in the upper 16 bits and the scale in the lower 11, which is signed
/// since PostgreSQL 15 (`numeric.c`).
fn decimal(modifier: i32) -> Option<SqlType> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    // With a negative scale whole numbers end in so many zeros; with one above the precision, zeros stand after the point.
    let whole = i32::from(precision) - scale;
    let (precision, scale) = if scale < 0 { (whole, 0) } else { (i32::from(precision).max(scale), scale) };
    let digits = |n: i32| u16::try_from(n).ok().filter(|n| *n <= MAX_DECIMAL_DIGITS);
    Some(SqlType::Decimal { precision: digits(precision).filter(|n| *n > 0)?, scale: digits(scale)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_has_the_digits_that_it_says() {
        for (precision, scale, expected) in [
            (12, 2, "DECIMAL(12,2)"),
            (38, 0, "DECIMAL(38,0)"),
            (1000, 1000, "DECIMAL(1000,1000)"),
            (3, -2, "DECIMAL(5,0)"),
            (2, 5, "DECIMAL(5,5)"),
            (1000, -1000, "TEXT"),
        ] {
            let modifier = ((precision << 16) | (scale & 0x7ff)) + 4;
            assert_eq!(Held::Numeric.sql_type(modifier).to_string(), expected, "numeric({precision},{scale})");
        }
        assert_eq!(Held::Numeric.sql_type(-1), SqlType::Text);
        assert_eq!(Held::Numeric.sql_type(i32::MIN), SqlType::Text);
    }

    #[test]
    fn what_is_not_known_is_text() {
        assert_eq!(Held::of(2950), Held::Other);
        assert_eq!(Held::of(oid::OID), Held::Integer);
    }
}
