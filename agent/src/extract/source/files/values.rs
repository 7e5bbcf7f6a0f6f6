//! From the text of a field, as its ERP writes it, to a value that has the form every database gives.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::fmt::strtime::BrokenDownTime;
use towpath_transfer::manifest::{Column, SqlType};

use super::super::Value;
use crate::{
    config::{CsvConfig, NulPolicy, TableConfig},
    extract::value::to_wire,
};

/// The most characters of a refused field that a message shows.
const SHOWN_CHARS: usize = 60;

/// The values of one column.
#[derive(Debug)]
pub(super) struct Converter<'a> {
    csv: &'a CsvConfig,
    column: &'a Column,
    nul: NulPolicy,
    /// Whether no message may show a value.
    secret: bool,
    /// The value in its new form.
    bytes: Vec<u8>,
    text: String,
    scratch: String,
}

impl<'a> Converter<'a> {
    pub(super) fn new(table: &'a TableConfig, column: &'a Column) -> Self {
        let (bytes, text, scratch) = Default::default();
        let secret = table.pseudonymise.iter().any(|name| name == column.name.as_str());
        Self { csv: &table.csv, column, nul: table.nul, secret, bytes, text, scratch }
    }

    /// The value of a field, or why it is none.
    pub(super) fn convert<'b>(&'b mut self, field: &'b str, quoted: bool) -> Result<Value<'b>, String> {
        let sql_type = self.column.sql_type;
        if is_null(self.csv, sql_type, field, quoted) {
            return if self.column.nullable {
                Ok(Value::Null)
            } else {
                Err("it is empty, but no row may be without it".to_owned())
            };
        }
        let secret = self.secret;
        let wrong =
            |what: &str| Err(if secret { format!("a value is not {what}") } else { format!("{} is not {what}", shown(field)) });
        self.text.clear();
        match sql_type {
            SqlType::Text if self.nul == NulPolicy::Stop && field.contains('\0') => {
                return Err("the text holds a NUL character".to_owned());
            }
            SqlType::Text => return Ok(Value::Text(field.as_bytes())),
            SqlType::Binary => {
                self.bytes.clear();
                return match BASE64_STANDARD.decode_vec(field, &mut self.bytes) {
                    Ok(()) => Ok(Value::Bytes(&self.bytes)),
                    Err(_) => wrong("BASE64, in which binary values stand in files"),
                };
            }
            SqlType::Boolean => {
                let (yes, no) = &self.csv.booleans;
                return match field.trim_matches(' ') {
                    word if word == yes => Ok(Value::Boolean(true)),
                    word if word == no => Ok(Value::Boolean(false)),
                    _ => wrong(&format!("{yes:?} or {no:?}")),
                };
            }
            SqlType::BigInt | SqlType::Decimal { .. } | SqlType::Double => {
                if number(field, self.csv, sql_type == SqlType::Double, &mut self.text).is_none() {
                    return wrong(&self.number_form());
                }
            }
            SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz => {
                let format = format_of(self.csv, sql_type);
                if moment(field, format, sql_type, &mut self.text).is_none() {
                    return wrong(&format!("of the form {format:?}"));
                }
            }
        }
        let wire = to_wire(Value::Text(self.text.as_bytes()), sql_type, &mut self.scratch)
            .map_err(|why| if secret { why.without_value() } else { why }.to_string())?;
        Ok(wire.map_or(Value::Null, |text| Value::Text(text.as_bytes())))
    }

    fn number_form(&self) -> String {
        let thousands = self.csv.thousands.map_or_else(String::new, |mark| format!(", {mark:?} between thousands"));
        format!("a number with {:?} before the fraction{thousands}", self.csv.decimal)
    }
}

/// Whether a field is NULL: by its text, where it has no quotes; of a type that has no empty text also within quotes, since some
/// programs put everything into quotes.
pub(super) fn is_null(csv: &CsvConfig, sql_type: SqlType, field: &str, quoted: bool) -> bool {
    field == csv.null && (!quoted || !matches!(sql_type, SqlType::Text | SqlType::Binary))
}

/// How values of the type are written.
pub(super) fn format_of(csv: &CsvConfig, sql_type: SqlType) -> &str {
    match sql_type {
        SqlType::Date => &csv.date,
        SqlType::Time => &csv.time,
        _ => &csv.timestamp,
    }
}

/// `[spaces][+-]digits[decimal digits][-][spaces]`; the digits before the decimal mark may be in groups of three. A floating-point
/// number may have an exponent. Appends it with a point and without groups.
fn number(field: &str, csv: &CsvConfig, floating: bool, out: &mut String) -> Option<()> {
    let text = field.trim_matches(' ');
    let (negative, size) = match (text.strip_prefix('-'), text.strip_suffix('-')) {
        (Some(size), _) => (true, size),
        // As ERPs of the mainframe's tradition write it.
        (None, Some(size)) if !text.starts_with('+') => (true, size),
        _ => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match size.split_once(['e', 'E']).filter(|_| floating) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (size, None),
    };
    let (whole, fraction) = mantissa.split_once(csv.decimal).unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if negative {
        out.push('-');
    }
    match csv.thousands.filter(|mark| whole.contains(*mark)) {
        Some(mark) => {
            for (at, group) in whole.split(mark).enumerate() {
                let long = if at == 0 { (1..=3).contains(&group.len()) } else { group.len() == 3 };
                (long && digits(group)).then(|| out.push_str(group))?;
            }
        }
        None => digits(whole).then(|| out.push_str(whole))?,
    }
    if (whole.is_empty() && fraction.is_empty()) || !digits(fraction) {
        return None;
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    if let Some(exponent) = exponent {
        let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        (!power.is_empty() && digits(power)).then_some(())?;
        out.push('e');
        out.push_str(exponent);
    }
    Some(())
}

/// Appends a date or time in the form of ISO 8601. The format must give exactly the same text back: a year of two digits where
/// four are expected, a day without its zero or a 61st second is no value of it.
pub(super) fn moment(field: &str, format: &str, sql_type: SqlType, out: &mut String) -> Option<()> {
    let text = field.trim_matches(' ');
    let parsed = BrokenDownTime::parse(format, text).ok()?;
    let again = parsed.to_string(format).ok()?;
    again.trim_matches(' ').eq_ignore_ascii_case(text).then_some(())?;
    let offset = parsed.offset();
    match sql_type {
        SqlType::Date => out.push_str(&parsed.to_date().ok()?.to_string()),
        SqlType::Time => out.push_str(&parsed.to_time().ok()?.to_string()),
        SqlType::Timestamp => out.push_str(&parsed.to_datetime().ok().filter(|_| offset.is_none())?.to_string()),
        SqlType::TimestampTz => {
            let seconds = offset?.seconds();
            (seconds % 60 == 0).then_some(())?;
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
            out.push_str(&parsed.to_datetime().ok()?.to_string());
            out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        _ => return None,
    }
    Some(())
}

pub(super) fn shown(field: &str) -> String {
    let mut start: String = field.chars().take(SHOWN_CHARS).collect();
    if start.len() < field.len() {
        start.push('…');
    }
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn german() -> CsvConfig {
        CsvConfig {
            decimal: ',',
            thousands: Some('.'),
            date: "%d.%m.%Y".to_owned(),
            time: "%H:%M".to_owned(),
            timestamp: "%d.%m.%Y %H:%M:%S%.f".to_owned(),
            booleans: ("J".to_owned(), "N".to_owned()),
            ..CsvConfig::default()
        }
    }

    /// The wire's text, `NULL`, or why not.
    fn convert(csv: CsvConfig, sql_type: &str, field: &str, quoted: bool) -> String {
        let table = TableConfig { csv, ..TableConfig::whole("t".parse().unwrap()) };
        let column = Column { name: "c".parse().unwrap(), sql_type: sql_type.parse().unwrap(), nullable: true };
        let mut converter = Converter::new(&table, &column);
        let mut scratch = String::new();
        match converter.convert(field, quoted) {
            Ok(value) => to_wire(value, column.sql_type, &mut scratch).unwrap().unwrap_or("NULL").to_owned(),
            Err(why) => format!("refused: {why}"),
        }
    }

    #[test]
    fn numbers_of_the_dialect_and_no_others() {
        for (field, expected) in [
            ("1.234.567,89", "1234567.89"),
            ("1234567,8", "1234567.8"),
            ("-0,05", "-0.05"),
            (",5", "0.5"),
            ("5,", "5"),
            ("1.234-", "-1234"),
            ("+7", "7"),
            ("  12,50 ", "12.50"),
            ("007", "7"),
        ] {
            assert_eq!(convert(german(), "DECIMAL(12,2)", field, false), expected, "{field}");
        }
        for field in
            ["1,234.56", "1.23", "12.34.567", "1234.567", ".123", "1.234,5.6", "--1", "-1-", "1 000", "0x1", "1e3", "-", ","]
        {
            let said = convert(german(), "DECIMAL(12,2)", field, false);
            assert!(said.ends_with("is not a number with ',' before the fraction, '.' between thousands"), "{field}: {said}");
        }
        assert!(
            convert(CsvConfig::default(), "DECIMAL(12,2)", "1,5", false)
                .ends_with("is not a number with '.' before the fraction")
        );
        assert!(convert(german(), "DECIMAL(12,2)", "1,234", false).contains("more digits after the point"));
        assert!(convert(german(), "DECIMAL(5,2)", "1.234", false).contains("more digits before the point"));
        assert_eq!(convert(german(), "BIGINT", "9.223.372.036.854.775.807", false), "9223372036854775807");
        assert!(convert(german(), "BIGINT", "9.223.372.036.854.775.808", false).starts_with("refused"));
        assert_eq!(convert(german(), "DOUBLE PRECISION", "-1,5E+300", false), "-1.5e300");
        assert!(convert(german(), "DOUBLE PRECISION", "1,5E", false).starts_with("refused"));
        let swiss = CsvConfig { thousands: Some('’'), ..CsvConfig::default() };
        assert_eq!(convert(swiss, "DECIMAL(12,2)", "1’234’567.80", false), "1234567.80");
        let digits = "9".repeat(38);
        assert_eq!(convert(german(), "DECIMAL(38,0)", &digits, false), digits);
    }

    #[test]
    fn dates_and_times_of_the_format_and_no_others() {
        for (sql_type, field, expected) in [
            ("DATE", "31.12.1899", "1899-12-31"),
            ("DATE", "31.12.9999", "9999-12-31"),
            ("DATE", "29.02.2024", "2024-02-29"),
            ("DATE", " 01.01.0001 ", "0001-01-01"),
            ("TIME", "23:59", "23:59:00"),
            ("TIMESTAMP", "01.02.2024 03:04:05", "2024-02-01T03:04:05"),
            ("TIMESTAMP", "01.02.2024 03:04:05.123456789", "2024-02-01T03:04:05.123456789"),
        ] {
            assert_eq!(convert(german(), sql_type, field, false), expected);
        }
        for (sql_type, field) in [
            ("DATE", "29.02.2023"),
            ("DATE", "1.2.2024"),
            ("DATE", "01.02.24"),
            ("DATE", "2024-02-01"),
            ("DATE", "00.00.0000"),
            ("DATE", "01.02.2024 00:00"),
            ("TIME", "24:00"),
            ("TIMESTAMP", "01.02.2024 03:04:60"),
            ("TIMESTAMP", "01.02.2024"),
        ] {
            let said = convert(german(), sql_type, field, false);
            assert!(said.starts_with("refused: ") && said.contains("is not of the form \"%"), "{field}: {said}");
        }
        let of = |date: &str| CsvConfig { date: date.to_owned(), ..CsvConfig::default() };
        assert_eq!(convert(of("%-d.%-m.%Y"), "DATE", "1.2.2024", false), "2024-02-01");
        assert_eq!(convert(of("%Y%m%d"), "DATE", "18991230", false), "1899-12-30");
        assert!(convert(of("%Y%m%d"), "DATE", "2024105", false).starts_with("refused"));
        assert_eq!(convert(of("%d-%b-%y"), "DATE", "05-FEB-69", false), "1969-02-05");
        let zoned = CsvConfig { timestamp: "%Y-%m-%dT%H:%M:%S%:z".to_owned(), ..CsvConfig::default() };
        let zoned = |sql_type, field| convert(zoned.clone(), sql_type, field, false);
        assert_eq!(zoned("TIMESTAMP WITH TIME ZONE", "2024-02-01T03:04:05-03:30"), "2024-02-01T03:04:05-03:30");
        assert!(zoned("TIMESTAMP", "2024-02-01T03:04:05-03:30").starts_with("refused"));
        assert!(zoned("TIMESTAMP WITH TIME ZONE", "2024-02-01T03:04:05").starts_with("refused"));
    }

    #[test]
    fn null_is_a_text_without_quotes_and_not_the_empty_text() {
        assert_eq!(convert(german(), "TEXT", "", false), "NULL");
        assert_eq!(convert(german(), "TEXT", "", true), "");
        assert_eq!(convert(german(), "DATE", "", true), "NULL");
        let spelled = CsvConfig { null: "\\N".to_owned(), ..german() };
        assert_eq!(convert(spelled.clone(), "TEXT", "\\N", false), "NULL");
        assert_eq!(convert(spelled.clone(), "TEXT", "\\N", true), "\\N");
        assert_eq!(convert(spelled.clone(), "TEXT", "", false), "");
        assert!(convert(spelled, "BIGINT", "", false).starts_with("refused: \"\" is not a number"));
        let table = TableConfig::whole("t".parse().unwrap());
        let column = Column { name: "c".parse().unwrap(), sql_type: SqlType::Text, nullable: false };
        assert!(Converter::new(&table, &column).convert("", false).is_err());
    }

    #[test]
    fn texts_truth_values_and_bytes() {
        assert_eq!(convert(german(), "TEXT", " 1.5 ", false), " 1.5 ");
        assert_eq!(convert(german(), "BOOLEAN", "J", false), "true");
        assert_eq!(convert(german(), "BOOLEAN", "N", true), "false");
        assert!(convert(german(), "BOOLEAN", "true", false).ends_with("\"true\" is not \"J\" or \"N\""));
        assert_eq!(convert(german(), "BINARY", "AAH/", false), "AAH/");
        assert_eq!(convert(german(), "BINARY", "", true), "");
        assert!(convert(german(), "BINARY", "00 FF", false).contains("BASE64"));
        assert!(convert(german(), "TEXT", "a\0b", false).contains("NUL"));
        let long = "x".repeat(100);
        assert!(convert(german(), "BIGINT", &long, false).contains(&format!("\"{}…\"", "x".repeat(SHOWN_CHARS))));
    }
}
