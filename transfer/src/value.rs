//! The text forms of values on the wire, one for each [`SqlType`]. The origin writes them, the receiver checks them.

use jiff::civil;

use crate::manifest::SqlType;

/// The most digits after the decimal point of a second.
pub const MAX_FRACTION_DIGITS: usize = 9;

/// Whether `text` is a value of `sql_type` in the form the wire has for it.
#[must_use]
pub fn fits(sql_type: SqlType, text: &str) -> bool {
    match sql_type {
        SqlType::Text => true,
        SqlType::BigInt => is_big_int(text),
        SqlType::Decimal { precision, scale } => is_decimal(text, precision.into(), scale.into()),
        SqlType::Double => is_double(text),
        SqlType::Boolean => matches!(text, "true" | "false"),
        SqlType::Date => is_date(text),
        SqlType::Time => is_time(text),
        SqlType::Timestamp => is_timestamp(text),
        SqlType::TimestampTz => is_timestamp_tz(text),
        SqlType::Binary => is_base64(text),
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_big_int(text: &str) -> bool {
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let canonical = magnitude == "0" || !magnitude.starts_with('0');
    digits(magnitude) && canonical && text != "-0" && text.parse::<i64>().is_ok()
}

fn is_decimal(text: &str, precision: usize, scale: usize) -> bool {
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let has_point = magnitude.len() > whole.len();
    let canonical = whole == "0" || !whole.starts_with('0');
    let significant = if whole == "0" { 0 } else { whole.len() };
    digits(whole)
        && canonical
        && digits(fraction) == has_point
        && fraction.len() <= scale
        && significant <= precision - scale.min(precision)
}

fn is_double(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    matches!(text, "NaN" | "Infinity" | "-Infinity") || (plain && text.parse::<f64>().is_ok_and(f64::is_finite))
}

/// Whether `text` has digits exactly where `form` has `0` and otherwise the same characters.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(|(t, f)| if f == b'0' { t.is_ascii_digit() } else { t == f })
}

fn is_date(text: &str) -> bool {
    has_form(text, "0000-00-00") && text.parse::<civil::Date>().is_ok()
}

fn is_time(text: &str) -> bool {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction_fits = digits(fraction) && fraction.len() <= MAX_FRACTION_DIGITS;
    // A leap second has no civil time of its own, and no database writes one.
    has_form(seconds, "00:00:00") && fraction_fits && !seconds.ends_with(":60") && seconds.parse::<civil::Time>().is_ok()
}

fn is_timestamp(text: &str) -> bool {
    text.split_once('T').is_some_and(|(date, time)| is_date(date) && is_time(time))
}

fn is_timestamp_tz(text: &str) -> bool {
    let Some(at) = text.len().checked_sub(6) else { return false };
    let Some((civil, offset)) = text.split_at_checked(at) else { return false };
    let sign = offset.starts_with(['+', '-']);
    let parts = offset.get(1..).and_then(|hhmm| hhmm.split_once(':'));
    let in_range = parts
        .is_some_and(|(hours, minutes)| has_form(hours, "00") && has_form(minutes, "00") && hours <= "23" && minutes <= "59");
    sign && in_range && is_timestamp(civil)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let alphabet = body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    text.len().is_multiple_of(4) && padding <= 2 && alphabet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_form() {
        let decimal = SqlType::Decimal { precision: 5, scale: 2 };
        let cases: &[(SqlType, &[&str], &[&str])] = &[
            (
                SqlType::BigInt,
                &["0", "-1", "9223372036854775807", "-9223372036854775808"],
                &["", "-0", "01", "+1", "1.0", "9223372036854775808", " 1", "١"],
            ),
            (
                decimal,
                &["0", "-0.5", "999.99", "0.00", "1.5", "-999"],
                &["1000", "1.234", ".5", "5.", "01", "1e2", "", "-", "1,5"],
            ),
            (SqlType::Double, &["1.5", "-0", "1e300", "NaN", "-Infinity"], &["inf", "nan", "0x1", "", "1e999"]),
            (SqlType::Boolean, &["true", "false"], &["1", "TRUE", ""]),
            (
                SqlType::Date,
                &["1899-12-31", "9999-12-31", "2024-02-29"],
                &["2023-02-29", "24-01-01", "2024-1-1", "20240101", "0000-13-01"],
            ),
            (SqlType::Time, &["00:00:00", "23:59:59.123456789"], &["24:00:00", "23:59:60", "1:00:00", "00:00", "00:00:00."]),
            (
                SqlType::Timestamp,
                &["2024-01-02T03:04:05", "1753-01-01T00:00:00.5"],
                &["2024-01-02 03:04:05", "2024-01-02T03:04:05Z"],
            ),
            (
                SqlType::TimestampTz,
                &["2024-01-02T03:04:05.5+02:00", "2024-01-02T03:04:05-00:00"],
                &["2024-01-02T03:04:05", "2024-01-02T03:04:05Z", "+02:00"],
            ),
            (SqlType::Binary, &["", "AAE=", "AA==", "AAEC"], &["A", "AA=", "A===", "AA-_", "=AAA"]),
            (SqlType::Text, &["", "anything\r\n"], &[]),
        ];
        for (sql_type, good, bad) in cases {
            good.iter().for_each(|text| assert!(fits(*sql_type, text), "{sql_type} {text:?}"));
            bad.iter().for_each(|text| assert!(!fits(*sql_type, text), "{sql_type} {text:?}"));
        }
    }
}
