//! From a value as a database holds it to its one text form on the wire. Nothing is rounded and nothing is guessed: what
//! does not fit is refused.

mod calendar;
mod number;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;
use towpath_transfer::manifest::SqlType;

use super::source::Value;

/// The most characters of a refused value that a message shows.
const SHOWN_CHARS: usize = 60;

/// Why a value has no text form of its column's type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("the text holds a NUL character")]
    Nul,
    #[error("{0} is not a {1}")]
    Form(String, SqlType),
    #[error("{0} has more digits after the point than a {1} has")]
    TooFine(String, SqlType),
    #[error("{0} has more digits before the point than a {1} has")]
    TooLarge(String, SqlType),
    #[error("{0} is floating-point and too large to be exact")]
    Inexact(String),
    #[error("NULL stands in a column that has none")]
    UnexpectedNull,
    #[error("NULL stands in a column of the key")]
    NullInKey,
}

impl Refused {
    /// The same without showing the value.
    pub(super) fn without_value(self) -> Self {
        let hidden = || "a value that is not shown".to_owned();
        match self {
            Self::Form(_, to) => Self::Form(hidden(), to),
            Self::TooFine(_, to) => Self::TooFine(hidden(), to),
            Self::TooLarge(_, to) => Self::TooLarge(hidden(), to),
            Self::Inexact(_) => Self::Inexact(hidden()),
            other @ (Self::NotUtf8 | Self::Nul | Self::UnexpectedNull | Self::NullInKey) => other,
        }
    }
}

/// The wire's text for `value`; `None` is NULL. `scratch` holds the text where it is not the value's own.
pub(super) fn to_wire<'a>(value: Value<'a>, to: SqlType, scratch: &'a mut String) -> Result<Option<&'a str>, Refused> {
    if let Value::Text(bytes) = value {
        let text = std::str::from_utf8(bytes).map_err(|_| Refused::NotUtf8)?;
        if to != SqlType::Binary && bytes.contains(&0) {
            return Err(Refused::Nul);
        }
        if to == SqlType::Text {
            return Ok(Some(text));
        }
    }
    scratch.clear();
    let refused = || Refused::Form(shown(value), to);
    match (to, value) {
        (_, Value::Null) => return Ok(None),
        (SqlType::Text, value) => plain_text(value, scratch).ok_or_else(refused)?,
        (SqlType::BigInt, value) => number::big_int(value, scratch).map_err(|why| why.told(value, to))?,
        (SqlType::Decimal { precision, scale }, value) => {
            number::decimal(value, precision.into(), scale.into(), scratch).map_err(|why| why.told(value, to))?;
        }
        (SqlType::Double, value) => number::double(value, scratch).ok_or_else(refused)?,
        (SqlType::Boolean, value) => scratch.push_str(boolean(value).ok_or_else(refused)?),
        (SqlType::Binary, Value::Bytes(bytes) | Value::Text(bytes)) => BASE64_STANDARD.encode_string(bytes, scratch),
        (SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz, Value::Text(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Refused::NotUtf8)?;
            calendar::normalise(text, to, scratch).ok_or_else(refused)?;
        }
        _ => return Err(refused()),
    }
    Ok(Some(scratch))
}

/// The text of a value with each NUL character replaced by U+FFFD.
pub(super) fn nul_replaced<'a>(bytes: &[u8], scratch: &'a mut String) -> Result<&'a str, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::NotUtf8)?;
    scratch.clear();
    scratch.extend(text.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }));
    Ok(scratch)
}

/// Numbers in a column of text: databases without strict types have them.
fn plain_text(value: Value<'_>, out: &mut String) -> Option<()> {
    match value {
        Value::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Integer(value) => number::push(out, value),
        Value::Real(_) => number::double(value, out)?,
        Value::Null | Value::Text(_) | Value::Bytes(_) => return None,
    }
    Some(())
}

fn boolean(value: Value<'_>) -> Option<&'static str> {
    let truth = match value {
        Value::Boolean(truth) => truth,
        Value::Integer(0) => false,
        Value::Integer(1) => true,
        Value::Real(0.0) => false,
        Value::Real(1.0) => true,
        Value::Text(text) => match text.trim_ascii() {
            b"0" | b"f" | b"F" => false,
            b"1" | b"t" | b"T" => true,
            word if word.eq_ignore_ascii_case(b"false") => false,
            word if word.eq_ignore_ascii_case(b"true") => true,
            _ => return None,
        },
        _ => return None,
    };
    Some(if truth { "true" } else { "false" })
}

/// A value for a message, shortened.
fn shown(value: Value<'_>) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Bytes(bytes) => format!("a binary value of {} bytes", bytes.len()),
        Value::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let mut start: String = text.chars().take(SHOWN_CHARS).collect();
            if start.len() < text.len() {
                start.push('…');
            }
            format!("{start:?}")
        }
    }
}

#[cfg(test)]
mod tests;
