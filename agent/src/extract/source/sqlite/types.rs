//! From the type a column was declared with to the type on the wire.

use towpath_transfer::manifest::{MAX_DECIMAL_DIGITS, SqlType};

/// By the names that SQL and its dialects use, then by SQLite's rules of affinity
/// (<https://www.sqlite.org/datatype3.html#determination_of_column_affinity>). What is left, also a `DECIMAL` that does
/// not say its digits, is text: nothing is lost that way, and the configuration can say better.
pub(in crate::extract::source) fn of_declared(declared: &str) -> SqlType {
    let declared = declared.trim().to_ascii_uppercase();
    let (name, arguments) = match declared.split_once('(') {
        Some((name, rest)) => (name.trim_end(), rest.split_once(')')),
        None => (declared.as_str(), None),
    };
    let with_zone = name.ends_with("WITH TIME ZONE") || arguments.is_some_and(|(_, rest)| rest.trim() == "WITH TIME ZONE");
    match name {
        "DECIMAL" | "NUMERIC" | "DEC" | "NUMBER" => arguments.and_then(|(digits, _)| decimal(digits)).unwrap_or(SqlType::Text),
        "BOOLEAN" | "BOOL" => SqlType::Boolean,
        "DATE" => SqlType::Date,
        "TIMESTAMPTZ" | "DATETIMEOFFSET" | "TIMESTAMP WITH TIME ZONE" => SqlType::TimestampTz,
        "TIMESTAMP" | "DATETIME" | "DATETIME2" | "TIMESTAMP WITHOUT TIME ZONE" if !with_zone => SqlType::Timestamp,
        "TIMESTAMP" => SqlType::TimestampTz,
        "TIME" if !with_zone => SqlType::Time,
        _ => by_affinity(name),
    }
}

fn by_affinity(name: &str) -> SqlType {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let is_integer = |word: &str| {
        // INT2 and INT8 are whole numbers; a POINT is none, though SQLite takes it for one.
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        word == "INTEGER" || (word.ends_with("INT") && !word.ends_with("POINT"))
    };
    if name.split(|c: char| !c.is_ascii_alphanumeric()).any(is_integer) {
        SqlType::BigInt
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        SqlType::Text
    } else if has(&["BLOB", "BINARY", "BYTEA"]) {
        SqlType::Binary
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        SqlType::Double
    } else {
        SqlType::Text
    }
}

fn decimal(digits: &str) -> Option<SqlType> {
    let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|n| *n <= MAX_DECIMAL_DIGITS);
    let (precision, scale) = (number(precision)?, number(scale)?);
    (precision > 0 && scale <= precision).then_some(SqlType::Decimal { precision, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_by_name_and_affinity() {
        for (declared, expected) in [
            ("DECIMAL(12,2)", "DECIMAL(12,2)"),
            ("numeric ( 10 , 4 )", "DECIMAL(10,4)"),
            ("NUMBER(8)", "DECIMAL(8,0)"),
            ("DECIMAL", "TEXT"),
            ("DECIMAL(2,3)", "TEXT"),
            ("DECIMAL(5000,2)", "TEXT"),
            ("NUM", "TEXT"),
            ("BOOLEAN", "BOOLEAN"),
            ("date", "DATE"),
            ("TIME(3)", "TIME"),
            ("DATETIME", "TIMESTAMP"),
            ("TIMESTAMP(6)", "TIMESTAMP"),
            ("TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP"),
            ("TIMESTAMP(6) WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"),
            ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"),
            ("INTEGER", "BIGINT"),
            ("tinyint(1)", "BIGINT"),
            ("UNSIGNED BIG INT", "BIGINT"),
            ("INT8", "BIGINT"),
            ("POINT", "TEXT"),
            ("VARCHAR(255)", "TEXT"),
            ("NVARCHAR", "TEXT"),
            ("CLOB", "TEXT"),
            ("BLOB", "BINARY"),
            ("VARBINARY(16)", "BINARY"),
            ("DOUBLE PRECISION", "DOUBLE PRECISION"),
            ("FLOAT", "DOUBLE PRECISION"),
            ("REAL", "DOUBLE PRECISION"),
            ("MONEY", "TEXT"),
            ("", "TEXT"),
        ] {
            assert_eq!(of_declared(declared).to_string(), expected, "{declared}");
        }
    }
}
