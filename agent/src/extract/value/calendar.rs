//! Dates and times from ISO 8601 text as databases write it.

use towpath_transfer::{manifest::SqlType, value::fits};

/// Appends the wire's form of `text`; `None` where it is no value of the type.
///
/// Between date and time stands a space or `T`, seconds may be missing, a date alone is midnight of that day, and an
/// offset is `Z`, `±hh`, `±hhmm` or `±hh:mm`. Midnight is dropped where the column is a date.
pub(super) fn normalise(text: &str, to: SqlType, out: &mut String) -> Option<()> {
    let text = text.trim_matches(' ');
    match to {
        SqlType::Date => {
            let (date, time) = split(text);
            let midnight = time.is_none_or(|time| time.bytes().all(|b| matches!(b, b'0' | b':' | b'.')));
            if !midnight {
                return None;
            }
            if let Some(time) = time {
                // Whether this is a time at all is found by making it one.
                push_time(time, out);
                fits(SqlType::Time, out).then_some(())?;
                out.clear();
            }
            out.push_str(date);
        }
        SqlType::Time => push_time(text, out),
        SqlType::Timestamp => push_timestamp(text, out),
        SqlType::TimestampTz => {
            let (civil, offset) = split_offset(text)?;
            push_timestamp(civil, out);
            push_offset(offset, out)?;
        }
        _ => return None,
    }
    fits(to, out).then_some(())
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    }
}

fn push_timestamp(text: &str, out: &mut String) {
    let (date, time) = split(text);
    out.push_str(date);
    out.push('T');
    push_time(time.unwrap_or("00:00"), out);
}

fn push_time(time: &str, out: &mut String) {
    out.push_str(time);
    // hh:mm
    if time.len() == 5 {
        out.push_str(":00");
    }
}

fn split_offset(text: &str) -> Option<(&str, &str)> {
    if let Some(civil) = text.strip_suffix(['Z', 'z']) {
        return Some((civil.trim_end_matches(' '), "+00:00"));
    }
    // The date's own hyphens come before its time.
    let time_at = text.find(['T', ' '])?;
    let (_, time) = text.split_at_checked(time_at)?;
    let at = time_at + time.rfind(['+', '-'])?;
    let (civil, offset) = text.split_at_checked(at)?;
    Some((civil.trim_end_matches(' '), offset))
}

fn push_offset(offset: &str, out: &mut String) -> Option<()> {
    match offset.len() {
        // ±hh
        3 => {
            out.push_str(offset);
            out.push_str(":00");
        }
        // ±hhmm
        5 => {
            let (hours, minutes) = offset.split_at_checked(3)?;
            out.push_str(hours);
            out.push(':');
            out.push_str(minutes);
        }
        _ => out.push_str(offset),
    }
    Some(())
}
