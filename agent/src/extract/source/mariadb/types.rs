//! From the types of MariaDB and MySQL to those of the wire, and values out of the binary protocol.
//!
//! Rows come by the binary protocol, because in the text protocol a `FLOAT` has six digits, and because a row whose first value
//! is longer than 16 MiB looks like the end of the rows there.

use std::fmt::Write as _;

use sqlx::{
    Decode, MySql, Type, TypeInfo as _,
    mysql::{MySqlRow, MySqlTypeInfo, MySqlValueRef},
};
use towpath_transfer::manifest::SqlType;

use crate::extract::source::{RowSink, Value};

/// How the server sends a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Signed,
    /// Also `YEAR`.
    Unsigned,
    /// `BIT(n)`: 1 to 8 bytes, the highest first.
    Bit,
    Float,
    Decimal,
    Date,
    Time,
    DateTime,
    Timestamp,
    Text,
    Bytes,
}

impl Kind {
    pub(super) fn of(column: &MySqlTypeInfo) -> Self {
        let integer = if <u64 as Type<MySql>>::compatible(column) { Self::Unsigned } else { Self::Signed };
        match column.name() {
            // This is what `TINYINT(1)` is called, whatever it holds.
            "BOOLEAN" => integer,
            "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Self::Signed,
            "YEAR" => Self::Unsigned,
            name if name.ends_with(" UNSIGNED") => Self::Unsigned,
            "BIT" => Self::Bit,
            "FLOAT" | "DOUBLE" => Self::Float,
            "DECIMAL" => Self::Decimal,
            "DATE" => Self::Date,
            "TIME" => Self::Time,
            "DATETIME" => Self::DateTime,
            "TIMESTAMP" => Self::Timestamp,
            "GEOMETRY" => Self::Bytes,
            // A column without a value at all, and texts that are no string types.
            "NULL" | "ENUM" | "SET" | "JSON" => Self::Text,
            // Texts with a binary collation have the flag of bytes too; only the character set tells them apart.
            _ if <str as Type<MySql>>::compatible(column) => Self::Text,
            _ => Self::Bytes,
        }
    }

    /// The type on the wire of a column of this kind, which the server calls `name`; `digits` is what is known of a decimal.
    pub(super) fn sql_type(self, name: &str, digits: Option<SqlType>) -> SqlType {
        match self {
            Self::Unsigned if name == "BIGINT UNSIGNED" => UNSIGNED_64,
            Self::Signed | Self::Unsigned => SqlType::BigInt,
            Self::Bit => UNSIGNED_64,
            Self::Float => SqlType::Double,
            Self::Decimal => digits.unwrap_or(SqlType::Text),
            Self::Date => SqlType::Date,
            Self::Time => SqlType::Time,
            Self::DateTime => SqlType::Timestamp,
            Self::Timestamp => SqlType::TimestampTz,
            Self::Text => SqlType::Text,
            Self::Bytes => SqlType::Binary,
        }
    }
}

/// What holds 0 to 2^64-1.
const UNSIGNED_64: SqlType = SqlType::Decimal { precision: 20, scale: 0 };

/// The digits of a column that was declared as, or is shown as, `decimal(p,s)`.
pub(super) fn declared_decimal(declared: &str) -> Option<SqlType> {
    let (digits, _) = declared.trim().strip_prefix("decimal(")?.split_once(')')?;
    let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
    Some(SqlType::Decimal { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? })
}

/// The digits of a column of which this is the greatest value: `99.99` is of a `DECIMAL(4,2)`.
pub(super) fn greatest_decimal(greatest: &str) -> Option<SqlType> {
    let (whole, fraction) = greatest.split_once('.').unwrap_or((greatest, ""));
    let nines = |part: &str| part.bytes().all(|digit| digit == b'9');
    let whole = if whole == "0" { "" } else { whole };
    let precision = u16::try_from(whole.len() + fraction.len()).ok()?;
    let scale = u16::try_from(fraction.len()).ok()?;
    (precision > 0 && nines(whole) && nines(fraction)).then_some(SqlType::Decimal { precision, scale })
}

/// A value whose bytes are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value of {0} bytes is no {1:?} of the binary protocol")]
pub(super) struct Malformed(usize, Kind);

/// Hands the values of a row on. `columns` says for each how it is sent and what it shall become.
pub(super) fn push(
    row: &MySqlRow,
    columns: &[(Kind, SqlType)],
    scratch: &mut String,
    sink: &mut RowSink,
) -> Result<(), sqlx::Error> {
    for (index, (kind, to)) in columns.iter().enumerate() {
        let value = sqlx::Row::try_get_raw(row, index)?;
        match raw(value) {
            None => sink.push(Value::Null),
            Some(bytes) => {
                let value = decode(*kind, *to, bytes, scratch);
                let malformed = |error: Malformed| sqlx::Error::ColumnDecode { index: index.to_string(), source: error.into() };
                sink.push(value.map_err(malformed)?);
            }
        }
    }
    Ok(())
}

/// The bytes of a value; `None` is NULL. What the library itself takes for NULL may be 0000-00-00.
pub(super) fn raw(value: MySqlValueRef<'_>) -> Option<&[u8]> {
    <&[u8] as Decode<MySql>>::decode(value).ok()
}

/// <https://mariadb.com/kb/en/resultset-row/#binary-resultset-row>
fn decode<'a>(kind: Kind, to: SqlType, bytes: &'a [u8], scratch: &'a mut String) -> Result<Value<'a>, Malformed> {
    let malformed = || Malformed(bytes.len(), kind);
    scratch.clear();
    match kind {
        Kind::Text | Kind::Decimal => return Ok(Value::Text(bytes)),
        Kind::Bytes => return Ok(Value::Bytes(bytes)),
        Kind::Signed => return integer(bytes, true).map(|value| Value::Integer(value.cast_signed())).ok_or_else(malformed),
        Kind::Float => return float(bytes).map(Value::Real).ok_or_else(malformed),
        Kind::Unsigned | Kind::Bit => {
            let value = if kind == Kind::Bit { bits(bytes) } else { integer(bytes, false) };
            let value = value.ok_or_else(malformed)?;
            if let Ok(value) = i64::try_from(value) {
                return Ok(Value::Integer(value));
            }
            // Writing into a string does not fail.
            let _ = write!(scratch, "{value}");
        }
        Kind::Date | Kind::DateTime | Kind::Timestamp => {
            date_time(bytes, kind != Kind::Date, scratch).ok_or_else(malformed)?;
            if kind == Kind::Timestamp && to != SqlType::Timestamp {
                // The session is in UTC.
                scratch.push_str("+00:00");
            }
        }
        Kind::Time => time(bytes, scratch).ok_or_else(malformed)?,
    }
    Ok(Value::Text(scratch.as_bytes()))
}

/// A number of 1 to 8 bytes, the lowest first; a negative one as its two's complement.
fn integer(bytes: &[u8], signed: bool) -> Option<u64> {
    let last = *bytes.last()?;
    let fill = if signed && last >= 0x80 { 0xff } else { 0 };
    let mut whole = [fill; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(whole))
}

fn bits(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A `FLOAT` is exactly the double of the same value.
fn float(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        4 => Some(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        8 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// Length, then year (two bytes), month, day, hour, minute, second, microseconds (four bytes); what is 0 at the end is left out.
fn date_time(bytes: &[u8], has_time: bool, out: &mut String) -> Option<()> {
    let fields = counted::<11>(bytes, &[0, 4, 7, 11])?;
    let [y0, y1, month, day, hour, minute, second, micros @ ..] = fields;
    let _ = write!(out, "{:04}-{month:02}-{day:02}", u16::from_le_bytes([y0, y1]));
    if has_time {
        let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
        fraction(u32::from_le_bytes(micros), out);
    }
    Some(())
}

/// Length, then sign, days (four bytes), hours, minutes, seconds, microseconds (four bytes).
fn time(bytes: &[u8], out: &mut String) -> Option<()> {
    let fields = counted::<12>(bytes, &[0, 8, 12])?;
    let [negative, d0, d1, d2, d3, hour, minute, second, micros @ ..] = fields;
    let hours = u64::from(u32::from_le_bytes([d0, d1, d2, d3])) * 24 + u64::from(hour);
    let sign = if negative == 0 { "" } else { "-" };
    let _ = write!(out, "{sign}{hours:02}:{minute:02}:{second:02}");
    fraction(u32::from_le_bytes(micros), out);
    Some(())
}

fn counted<const N: usize>(bytes: &[u8], lengths: &[usize]) -> Option<[u8; N]> {
    let (length, rest) = bytes.split_first()?;
    if usize::from(*length) != rest.len() || !lengths.contains(&rest.len()) {
        return None;
    }
    let mut fields = [0; N];
    fields.get_mut(..rest.len())?.copy_from_slice(rest);
    Some(fields)
}

/// Without the zeros at its end, for the protocol does not say how many digits the column has.
fn fraction(micros: u32, out: &mut String) {
    if micros != 0 {
        let _ = write!(out, ".{micros:06}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(kind: Kind, bytes: &[u8]) -> Result<String, Malformed> {
        let mut scratch = String::new();
        decode(kind, SqlType::TimestampTz, bytes, &mut scratch).map(|value| match value {
            Value::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn values_of_the_binary_protocol() {
        for (kind, bytes, expected) in [
            (Kind::Signed, &[0xff][..], "Integer(-1)"),
            (Kind::Signed, &[0, 0x80], "Integer(-32768)"),
            (Kind::Signed, &[0, 0, 0, 0, 0, 0, 0, 0x80], "Integer(-9223372036854775808)"),
            (Kind::Unsigned, &[0xff], "Integer(255)"),
            (Kind::Unsigned, &[0xff; 8], "18446744073709551615"),
            (Kind::Bit, &[1, 0], "Integer(256)"),
            (Kind::Bit, &[0xff; 8], "18446744073709551615"),
            (Kind::Float, &[0xcd, 0xcc, 0xcc, 0x3d], "Real(0.10000000149011612)"),
            (Kind::Date, &[0], "0000-00-00"),
            (Kind::Date, &[4, 0xe8, 0x07, 2, 29], "2024-02-29"),
            (Kind::Date, &[4, 0xe8, 0x07, 0, 0], "2024-00-00"),
            (Kind::DateTime, &[0], "0000-00-00 00:00:00"),
            (Kind::DateTime, &[4, 0x0f, 0x27, 12, 31], "9999-12-31 00:00:00"),
            (Kind::DateTime, &[7, 0xe8, 0x07, 2, 29, 23, 59, 58], "2024-02-29 23:59:58"),
            (Kind::Timestamp, &[11, 0xe8, 0x07, 2, 29, 1, 2, 3, 0x20, 0xa1, 0x07, 0], "2024-02-29 01:02:03.5+00:00"),
            (Kind::Time, &[0], "00:00:00"),
            (Kind::Time, &[8, 1, 34, 0, 0, 0, 22, 59, 59], "-838:59:59"),
            (Kind::Time, &[12, 0, 0, 0, 0, 0, 1, 2, 3, 1, 0, 0, 0], "01:02:03.000001"),
        ] {
            assert_eq!(decoded(kind, bytes).unwrap(), expected, "{kind:?} {bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        for (kind, bytes) in [
            (Kind::Signed, &[][..]),
            (Kind::Signed, &[0; 9]),
            (Kind::Bit, &[0; 9]),
            (Kind::Float, &[0; 5]),
            (Kind::Date, &[]),
            (Kind::Date, &[4, 1]),
            (Kind::DateTime, &[5, 0, 0, 0, 0, 0]),
            (Kind::Time, &[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(decoded(kind, bytes), Err(Malformed(bytes.len(), kind)));
        }
    }

    #[test]
    fn digits_of_decimals() {
        let shown = |found: Option<SqlType>| found.map(|sql_type| sql_type.to_string());
        for (declared, expected) in [
            ("decimal(12,2)", Some("DECIMAL(12,2)")),
            ("decimal(65,0) unsigned zerofill", Some("DECIMAL(65,0)")),
            ("decimal(5)", Some("DECIMAL(5,0)")),
            ("double", None),
        ] {
            assert_eq!(shown(declared_decimal(declared)).as_deref(), expected, "{declared}");
        }
        for (greatest, expected) in [
            ("99.99", Some("DECIMAL(4,2)")),
            ("999", Some("DECIMAL(3,0)")),
            ("0.99", Some("DECIMAL(2,2)")),
            ("2147", None),
            ("0", None),
        ] {
            assert_eq!(shown(greatest_decimal(greatest)).as_deref(), expected, "{greatest}");
        }
    }
}
