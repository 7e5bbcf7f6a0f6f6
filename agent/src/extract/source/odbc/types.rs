//! From what a driver says of a column to the type on the wire, and to the form in which its values are fetched.

use odbc_api::{DataType, buffers::BufferDesc};
use towpath_transfer::manifest::{MAX_DECIMAL_DIGITS, SqlType};

use super::dbms::Dbms;

/// Characters up to which a column's texts are fetched many rows at once.
pub(super) const MAX_BULK_CHARS: usize = 1_024;
/// Bytes up to which a column's binary values are fetched many rows at once.
pub(super) const MAX_BULK_BYTES: usize = 4_096;
/// The longest text of a number without digits of its own, a date or a time; drivers say less than they send.
const SHORT_CHARS: usize = 64;
/// Sign, point, and the zero before it.
const DECIMAL_MARKS: usize = 3;

/// Types that ODBC does not know, from the headers of their drivers.
mod vendor {
    pub(super) const GUID: i16 = -11;
    pub(super) const SS_UDT: i16 = -151;
    pub(super) const SS_TIME2: i16 = -154;
    pub(super) const SS_TIMESTAMPOFFSET: i16 = -155;
    pub(super) const DB2_BLOB: i16 = -98;
    pub(super) const ORACLE_TIMESTAMP_TZ: i16 = -101;
    pub(super) const ORACLE_TIMESTAMP_LTZ: i16 = -102;
}

/// What psqlodbc says of a `numeric` without digits.
const PG_NUMERIC: DataType = DataType::Numeric { precision: 28, scale: 6 };
/// What psqlodbc says of `money`, whose text has a currency sign.
const PG_MONEY: DataType = DataType::Float { precision: 10 };

/// The form in which a value is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As UTF-16.
    Text,
    /// As the driver's own truth value.
    Bit,
    /// As 32-bit floating point.
    Real,
    /// As 64-bit floating point.
    Double,
    /// As bytes.
    Binary,
}

/// A column as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Typed {
    /// Its type on the wire.
    pub(super) sql_type: SqlType,
    /// How its values are fetched.
    pub(super) form: Form,
    /// The most UTF-16 units or bytes of a value, where the database keeps to it.
    pub(super) at_most: Option<usize>,
    /// Whether letters are made small: PostgreSQL writes a `uuid` so, its driver does not.
    pub(super) lower: bool,
}

impl Typed {
    /// The buffer of such a column for many rows; `None` where its values can be of any length.
    pub(super) fn bulk(self) -> Option<BufferDesc> {
        Some(match self.form {
            Form::Text => BufferDesc::WText { max_str_len: self.at_most? },
            Form::Bit => BufferDesc::Bit { nullable: true },
            Form::Real => BufferDesc::F32 { nullable: true },
            Form::Double => BufferDesc::F64 { nullable: true },
            Form::Binary => BufferDesc::Binary { max_bytes: self.at_most? },
        })
    }
}

/// What to make of a column. `unsigned` says that a whole number has no sign.
pub(super) fn of(dbms: &Dbms, data_type: DataType, unsigned: bool) -> Typed {
    let (sql_type, form) = match data_type {
        PG_NUMERIC | PG_MONEY if *dbms == Dbms::PostgreSql => (SqlType::Text, Form::Text),
        DataType::Decimal { precision, scale } | DataType::Numeric { precision, scale } => {
            (decimal(precision, scale), Form::Text)
        }
        DataType::BigInt if unsigned => (SqlType::Decimal { precision: 20, scale: 0 }, Form::Text),
        DataType::Integer | DataType::SmallInt | DataType::TinyInt | DataType::BigInt => (SqlType::BigInt, Form::Text),
        // FLOAT is a decimal number of Oracle; whoever gives it another type has all its digits.
        DataType::Float { .. } if *dbms == Dbms::Oracle => (SqlType::Double, Form::Text),
        DataType::Real => (SqlType::Double, Form::Real),
        DataType::Float { .. } | DataType::Double => (SqlType::Double, Form::Double),
        DataType::Date => (SqlType::Date, Form::Text),
        DataType::Time { .. } => (SqlType::Time, Form::Text),
        DataType::Timestamp { .. } => (SqlType::Timestamp, Form::Text),
        DataType::Bit => (SqlType::Boolean, Form::Bit),
        DataType::Binary { .. } | DataType::Varbinary { .. } | DataType::LongVarbinary { .. } => (SqlType::Binary, Form::Binary),
        DataType::Other { data_type, .. } => match data_type.0 {
            vendor::SS_TIMESTAMPOFFSET | vendor::ORACLE_TIMESTAMP_TZ | vendor::ORACLE_TIMESTAMP_LTZ => {
                (SqlType::TimestampTz, Form::Text)
            }
            vendor::SS_TIME2 => (SqlType::Time, Form::Text),
            vendor::SS_UDT | vendor::DB2_BLOB => (SqlType::Binary, Form::Binary),
            _ => (SqlType::Text, Form::Text),
        },
        DataType::Unknown
        | DataType::Char { .. }
        | DataType::WChar { .. }
        | DataType::Varchar { .. }
        | DataType::WVarchar { .. }
        | DataType::LongVarchar { .. }
        | DataType::WLongVarchar { .. } => (SqlType::Text, Form::Text),
    };
    let is_guid = matches!(data_type, DataType::Other { data_type, .. } if data_type.0 == vendor::GUID);
    Typed { sql_type, form, at_most: at_most(dbms, data_type), lower: is_guid && *dbms == Dbms::PostgreSql }
}

/// How a column of SQLite is read, where each value has a type of its own whatever the driver says.
pub(super) fn of_sqlite(sql_type: SqlType) -> Typed {
    let form = match sql_type {
        SqlType::Binary => Form::Binary,
        SqlType::Double => Form::Double,
        _ => Form::Text,
    };
    Typed { sql_type, form, at_most: None, lower: false }
}

fn decimal(precision: usize, scale: i16) -> SqlType {
    let number = |digits: usize| u16::try_from(digits).ok().filter(|digits| *digits <= MAX_DECIMAL_DIGITS);
    let found = number(precision).zip(u16::try_from(scale).ok());
    match found {
        Some((precision, scale)) if precision > 0 && scale <= precision => SqlType::Decimal { precision, scale },
        // Digits that are not said are not guessed.
        _ => SqlType::Text,
    }
}

fn at_most(dbms: &Dbms, data_type: DataType) -> Option<usize> {
    let text = |length: Option<std::num::NonZeroUsize>| {
        // A character can take two units.
        length.map(|length| length.get()).filter(|chars| dbms.keeps_lengths() && *chars <= MAX_BULK_CHARS).map(|chars| chars * 2)
    };
    match data_type {
        DataType::Char { length } | DataType::WChar { length } | DataType::Varchar { length } | DataType::WVarchar { length } => {
            text(length)
        }
        DataType::Binary { length } | DataType::Varbinary { length } => {
            length.map(|length| length.get()).filter(|bytes| dbms.keeps_lengths() && *bytes <= MAX_BULK_BYTES)
        }
        PG_NUMERIC | PG_MONEY if *dbms == Dbms::PostgreSql => None,
        DataType::Decimal { precision, .. } | DataType::Numeric { precision, .. } if dbms.keeps_types() && precision > 0 => {
            Some((precision + DECIMAL_MARKS).max(SHORT_CHARS))
        }
        DataType::Integer
        | DataType::SmallInt
        | DataType::TinyInt
        | DataType::BigInt
        | DataType::Date
        | DataType::Time { .. }
        | DataType::Timestamp { .. }
            if dbms.keeps_types() =>
        {
            Some(SHORT_CHARS)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use odbc_api::sys::SqlDataType;

    use super::*;

    fn other(code: i16) -> DataType {
        DataType::Other { data_type: SqlDataType(code), column_size: None, decimal_digits: 0 }
    }

    #[test]
    fn types_of_the_wire() {
        let length = NonZeroUsize::new(40);
        for (data_type, expected, form) in [
            (DataType::Decimal { precision: 19, scale: 4 }, "DECIMAL(19,4)", Form::Text),
            (DataType::Numeric { precision: 38, scale: 0 }, "DECIMAL(38,0)", Form::Text),
            (DataType::Decimal { precision: 38, scale: -127 }, "TEXT", Form::Text),
            (DataType::Decimal { precision: 0, scale: 0 }, "TEXT", Form::Text),
            (DataType::TinyInt, "BIGINT", Form::Text),
            (DataType::Bit, "BOOLEAN", Form::Bit),
            (DataType::Real, "DOUBLE PRECISION", Form::Real),
            (DataType::Float { precision: 53 }, "DOUBLE PRECISION", Form::Double),
            (DataType::Timestamp { precision: 7 }, "TIMESTAMP", Form::Text),
            (DataType::WVarchar { length }, "TEXT", Form::Text),
            (DataType::WLongVarchar { length: None }, "TEXT", Form::Text),
            (DataType::LongVarbinary { length: None }, "BINARY", Form::Binary),
            (other(-155), "TIMESTAMP WITH TIME ZONE", Form::Text),
            (other(-154), "TIME", Form::Text),
            (other(-152), "TEXT", Form::Text),
            (other(-151), "BINARY", Form::Binary),
            (other(-11), "TEXT", Form::Text),
            (DataType::Unknown, "TEXT", Form::Text),
        ] {
            let found = of(&Dbms::SqlServer, data_type, false);
            assert_eq!((found.sql_type.to_string().as_str(), found.form), (expected, form), "{data_type:?}");
        }
        assert_eq!(of(&Dbms::MySql, DataType::BigInt, true).sql_type.to_string(), "DECIMAL(20,0)");
        assert_eq!(of(&Dbms::PostgreSql, PG_NUMERIC, false).sql_type, SqlType::Text);
        assert_eq!(of(&Dbms::PostgreSql, PG_MONEY, false).form, Form::Text);
        assert_eq!(of(&Dbms::Oracle, DataType::Float { precision: 126 }, false).form, Form::Text);
    }

    #[test]
    fn only_what_a_database_keeps_to_is_fetched_in_bulk() {
        let char_of = |n| DataType::WVarchar { length: NonZeroUsize::new(n) };
        let bulk = |dbms: &Dbms, data_type| of(dbms, data_type, false).bulk();
        assert_eq!(bulk(&Dbms::SqlServer, char_of(40)), Some(BufferDesc::WText { max_str_len: 80 }));
        assert!(bulk(&Dbms::SqlServer, char_of(MAX_BULK_CHARS)).is_some());
        assert_eq!(bulk(&Dbms::SqlServer, char_of(MAX_BULK_CHARS + 1)), None);
        assert_eq!(bulk(&Dbms::PostgreSql, char_of(255)), None);
        assert_eq!(bulk(&Dbms::PostgreSql, DataType::Date), Some(BufferDesc::WText { max_str_len: SHORT_CHARS }));
        assert_eq!(bulk(&Dbms::Other("X".to_owned()), DataType::Integer), None);
        assert_eq!(bulk(&Dbms::Other("X".to_owned()), DataType::Double), Some(BufferDesc::F64 { nullable: true }));
        let binary = |n| DataType::Varbinary { length: NonZeroUsize::new(n) };
        assert!(bulk(&Dbms::MySql, binary(MAX_BULK_BYTES)).is_some() && bulk(&Dbms::MySql, binary(MAX_BULK_BYTES + 1)).is_none());
    }
}
