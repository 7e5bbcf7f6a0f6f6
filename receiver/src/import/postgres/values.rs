//! Columns and values as PostgreSQL keeps them, and the text form of `COPY`
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format"): columns end with a tab and rows with a line feed, a
//! backslash escapes, and `\N` is NULL, so that no text can be taken for NULL, for the end of a row or for that of the data.

use base64::{Engine, engine::general_purpose::STANDARD};
use towpath_transfer::{
    Code, Failure,
    manifest::{Column, SqlType, Table},
};

use super::super::{RowBatch, names::quote};

/// The digits after the point of a second that PostgreSQL keeps.
const FRACTION_DIGITS: usize = 6;
/// The hours of a time zone's offset that PostgreSQL reads at most.
const MAX_OFFSET_HOURS: u8 = 15;
/// How much of a value a message shows, in characters.
const SHOWN_CHARS: usize = 40;

/// Definitions of columns, as `CREATE TABLE` has them.
pub(super) fn definitions(columns: &[Column]) -> String {
    let definition = |column: &Column| {
        let null = if column.nullable { "" } else { " NOT NULL" };
        format!("{} {}{null}", quote(column.name.as_str()), type_name(column.sql_type))
    };
    columns.iter().map(definition).collect::<Vec<_>>().join(", ")
}

fn type_name(sql_type: SqlType) -> String {
    match sql_type {
        SqlType::BigInt => "bigint".to_owned(),
        SqlType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        SqlType::Double => "double precision".to_owned(),
        SqlType::Text => "text".to_owned(),
        SqlType::Boolean => "boolean".to_owned(),
        SqlType::Date => "date".to_owned(),
        SqlType::Time => "time".to_owned(),
        SqlType::Timestamp => "timestamp".to_owned(),
        SqlType::TimestampTz => "timestamptz".to_owned(),
        SqlType::Binary => "bytea".to_owned(),
    }
}

/// Appends rows in the form of `COPY`.
///
/// # Errors
/// `import-refused` for a value that PostgreSQL would change or refuse; `content-invalid` for one that is not of its type.
pub(super) fn encode(batch: &RowBatch, table: &Table, into: &mut Vec<u8>) -> Result<(), Failure> {
    let mut fields = batch.fields();
    for _ in 0..batch.rows() {
        for (at, column) in table.columns.iter().enumerate() {
            if at > 0 {
                into.push(b'\t');
            }
            match fields.next().flatten() {
                None => into.extend_from_slice(b"\\N"),
                Some(text) => value(column.sql_type, text, into).map_err(|why| why.failure(table, column, text))?,
            }
        }
        into.push(b'\n');
    }
    Ok(())
}

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is none of its type.
    Type,
    /// PostgreSQL has no such value.
    NoPlace(&'static str),
}

impl Refused {
    fn failure(self, table: &Table, column: &Column, text: &str) -> Failure {
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let of = format!("column {:?} of table {} has the value {shown:?}", column.name.as_str(), table.table);
        match self {
            Self::Type => Failure::park(Code::ContentInvalid, format!("{of}, which is not a {}", column.sql_type)),
            Self::NoPlace(why) => {
                let told = format!("{of}: {why}; let the agent's query change it, or send the column as TEXT");
                Failure::park(Code::ImportRefused, told)
            }
        }
    }
}

fn value(sql_type: SqlType, text: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    match sql_type {
        SqlType::Text => return escaped(text, into),
        SqlType::Binary => return bytes(text, into),
        SqlType::Date => year(text)?,
        SqlType::Time => return seconds(text, "", into),
        SqlType::Timestamp => {
            year(text)?;
            return seconds(text, "", into);
        }
        SqlType::TimestampTz => {
            year(text)?;
            let at = text.len().checked_sub("+00:00".len()).ok_or(Refused::Type)?;
            let (civil, offset) = text.split_at_checked(at).ok_or(Refused::Type)?;
            let hours: u8 = offset.get(1..3).and_then(|hours| hours.parse().ok()).ok_or(Refused::Type)?;
            if hours > MAX_OFFSET_HOURS {
                return Err(Refused::NoPlace("PostgreSQL knows no time zone that far from UTC"));
            }
            return seconds(civil, offset, into);
        }
        SqlType::BigInt | SqlType::Decimal { .. } | SqlType::Double | SqlType::Boolean => {}
    }
    plain(text, into)
}

/// A value that has nothing to escape; whatever else has come here is none.
fn plain(text: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(Refused::Type);
    }
    into.extend_from_slice(text.as_bytes());
    Ok(())
}

/// PostgreSQL's calendar goes from 1 BC to AD 1; the wire's has a year 0, as ISO 8601.
fn year(text: &str) -> Result<(), Refused> {
    if text.starts_with("0000") { Err(Refused::NoPlace("PostgreSQL has no year 0")) } else { Ok(()) }
}

/// A point in time, without digits that PostgreSQL would round away; zeros there are no loss.
fn seconds(text: &str, offset: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    let cut = match text.split_once('.') {
        Some((whole, fraction)) if fraction.len() > FRACTION_DIGITS => {
            let end = whole.len() + 1 + FRACTION_DIGITS;
            let (kept, rest) = text.split_at_checked(end).ok_or(Refused::Type)?;
            if rest.bytes().any(|digit| digit != b'0') {
                return Err(Refused::NoPlace("PostgreSQL keeps six digits of a second"));
            }
            kept
        }
        _ => text,
    };
    plain(cut, into)?;
    plain(offset, into)
}

fn escaped(text: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r' | 0)) {
        let (before, from) = rest.split_at(at);
        into.extend_from_slice(before);
        let Some((special, after)) = from.split_first() else { break };
        into.extend_from_slice(match special {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            _ => return Err(Refused::NoPlace("PostgreSQL has no character NUL in a text")),
        });
        rest = after;
    }
    into.extend_from_slice(rest);
    Ok(())
}

fn bytes(text: &str, into: &mut Vec<u8>) -> Result<(), Refused> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let decoded = STANDARD.decode(text).map_err(|_| Refused::Type)?;
    into.extend_from_slice(b"\\\\x");
    for byte in decoded {
        for half in [byte >> 4, byte & 0xf] {
            into.extend(DIGITS.get(usize::from(half)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(sql_type: SqlType, text: &str) -> Result<String, Refused> {
        let mut into = Vec::new();
        value(sql_type, text, &mut into)?;
        Ok(String::from_utf8(into).unwrap())
    }

    #[test]
    fn what_means_something_to_copy_is_escaped() {
        for (text, copied) in
            [("\\N", "\\\\N"), ("\\.", "\\\\."), ("a\tb\r\nc\\", "a\\tb\\r\\nc\\\\"), ("", ""), ("ä\u{1f6a2}", "ä\u{1f6a2}")]
        {
            assert_eq!(encoded(SqlType::Text, text).unwrap(), copied);
        }
        assert_eq!(encoded(SqlType::Binary, "AAH/").unwrap(), "\\\\x0001ff");
        let table = Table::whole(
            "t".parse().unwrap(),
            ["a", "b"].map(|name| Column { name: name.parse().unwrap(), sql_type: SqlType::Text, nullable: true }).to_vec(),
            0,
            Vec::new(),
        );
        let mut batch = RowBatch::new(2);
        [None, Some(""), Some("x"), None].into_iter().for_each(|field| batch.push(field));
        let mut into = Vec::new();
        encode(&batch, &table, &mut into).unwrap();
        assert_eq!(into, b"\\N\t\nx\t\\N\n");
    }

    #[test]
    fn nothing_is_rounded_and_nothing_has_another_year() {
        use SqlType::{Date, Text, Time, Timestamp, TimestampTz};
        for (sql_type, text, copied) in [
            (Time, "00:00:00.123456000", "00:00:00.123456"),
            (Timestamp, "2024-01-02T03:04:05.1234560", "2024-01-02T03:04:05.123456"),
            (TimestampTz, "2024-01-02T03:04:05.123456000+15:59", "2024-01-02T03:04:05.123456+15:59"),
            (TimestampTz, "2024-01-02T03:04:05-00:00", "2024-01-02T03:04:05-00:00"),
            (Date, "0001-01-01", "0001-01-01"),
        ] {
            assert_eq!(encoded(sql_type, text).unwrap(), copied);
        }
        for (sql_type, text) in [
            (Time, "00:00:00.1234567"),
            (Timestamp, "2024-01-02T03:04:05.000000001"),
            (TimestampTz, "2024-01-02T03:04:05.1234567+00:00"),
            (TimestampTz, "2024-01-02T03:04:05+16:00"),
            (TimestampTz, "0000-01-02T03:04:05+00:00"),
            (Timestamp, "0000-01-02T03:04:05"),
            (Date, "0000-12-31"),
            (Text, "a\0b"),
        ] {
            assert!(matches!(encoded(sql_type, text), Err(Refused::NoPlace(_))), "{text}");
        }
        for (sql_type, text) in [(SqlType::BigInt, "1\t2"), (SqlType::Boolean, "\\N"), (TimestampTz, "x"), (SqlType::Binary, "%")]
        {
            assert_eq!(encoded(sql_type, text), Err(Refused::Type), "{text}");
        }
    }
}
