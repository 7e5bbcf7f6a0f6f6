//! Numbers, exactly.

use std::fmt::Write as _;

use towpath_transfer::manifest::SqlType;

use super::{Refused, shown};
use crate::extract::source::Value;

/// From here on a double has no digits after the point, and its shortest text is no longer all of its digits.
const WHOLE_FROM: f64 = 9_007_199_254_740_992.0;
/// 2^63: beyond the 64-bit integers there is no second form against which a floating-point number could be checked.
const WHOLE_BELOW: f64 = 9_223_372_036_854_775_808.0;
/// Doubles outside these are written with an exponent.
const PLAIN: std::ops::Range<f64> = 1e-5..1e17;

/// Why a number does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Form,
    TooFine,
    TooLarge,
    Inexact,
}

impl Why {
    pub(super) fn told(self, value: Value<'_>, to: SqlType) -> Refused {
        match self {
            Self::Form => Refused::Form(shown(value), to),
            Self::TooFine => Refused::TooFine(shown(value), to),
            Self::TooLarge => Refused::TooLarge(shown(value), to),
            Self::Inexact => Refused::Inexact(shown(value)),
        }
    }
}

/// Appends a number. Writing into a string does not fail.
pub(super) fn push(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

pub(super) fn big_int(value: Value<'_>, out: &mut String) -> Result<(), Why> {
    match value {
        Value::Integer(value) => push(out, value),
        Value::Boolean(value) => push(out, u8::from(value)),
        Value::Real(value) => {
            real(value, 19, 0, out)?;
            out.parse::<i64>().map_err(|_| Why::TooLarge)?;
        }
        Value::Text(text) => {
            text_decimal(text, 19, 0, out)?;
            out.parse::<i64>().map_err(|_| Why::TooLarge)?;
        }
        Value::Null | Value::Bytes(_) => return Err(Why::Form),
    }
    Ok(())
}

pub(super) fn decimal(value: Value<'_>, precision: usize, scale: usize, out: &mut String) -> Result<(), Why> {
    match value {
        Value::Integer(value) => {
            push(out, value);
            let digits = if value == 0 { 0 } else { out.trim_start_matches('-').len() };
            if digits > precision.saturating_sub(scale) { Err(Why::TooLarge) } else { Ok(()) }
        }
        Value::Real(value) => real(value, precision, scale, out),
        Value::Text(text) => text_decimal(text, precision, scale, out),
        Value::Null | Value::Boolean(_) | Value::Bytes(_) => Err(Why::Form),
    }
}

/// The shortest text that reads back as the same double, for these are the digits that were once stored; of a double
/// without fraction all digits.
fn real(value: f64, precision: usize, scale: usize, out: &mut String) -> Result<(), Why> {
    let size = value.abs();
    if !value.is_finite() {
        return Err(Why::Form);
    }
    if size >= WHOLE_BELOW {
        return Err(Why::Inexact);
    }
    let text = if size >= WHOLE_FROM { format!("{value:.0}") } else { value.to_string() };
    text_decimal(text.as_bytes(), precision, scale, out)
}

/// `[spaces][+-]digits[.digits][spaces]`, where digits may be missing on one side of the point. Zeros that say nothing go:
/// those before the number, and those after the scale.
fn text_decimal(text: &[u8], precision: usize, scale: usize, out: &mut String) -> Result<(), Why> {
    let text = std::str::from_utf8(text).map_err(|_| Why::Form)?.trim_matches(' ');
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(Why::Form);
    }
    let whole = whole.trim_start_matches('0');
    let kept = match fraction.split_at_checked(scale) {
        Some((kept, rest)) if rest.bytes().all(|byte| byte == b'0') => kept,
        Some(_) => return Err(Why::TooFine),
        None => fraction,
    };
    if whole.len() > precision.saturating_sub(scale) {
        return Err(Why::TooLarge);
    }
    if negative && !(whole.is_empty() && kept.bytes().all(|byte| byte == b'0')) {
        out.push('-');
    }
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !kept.is_empty() {
        out.push('.');
        out.push_str(kept);
    }
    Ok(())
}

pub(super) fn double(value: Value<'_>, out: &mut String) -> Option<()> {
    let value = match value {
        Value::Integer(value) => {
            push(out, value);
            return Some(());
        }
        Value::Real(value) => value,
        Value::Text(text) => {
            let text = std::str::from_utf8(text).ok()?.trim_matches(' ');
            let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
            text.parse::<f64>().ok().filter(|number| plain && number.is_finite())?
        }
        Value::Null | Value::Boolean(_) | Value::Bytes(_) => return None,
    };
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if value == 0.0 || PLAIN.contains(&value.abs()) {
        push(out, value);
    } else {
        let _ = write!(out, "{value:e}");
    }
    Some(())
}
