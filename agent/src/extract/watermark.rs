//! Watermarks: values that grow with every change of a row, compared by the order of their type and not by that of their texts.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp, civil};
use towpath_transfer::{
    decimal::{Decimal, DecimalSum},
    manifest::{Column, Label, SqlType},
    value::fits,
};

use crate::config::Overlap;

/// So far beyond the clock a date may lie and still be a watermark: clocks and zones differ. What lies further is no time of a
/// change (9999-12-31, say); it would hide every change to come, so the watermark does not follow it.
pub(super) const AHEAD: SignedDuration = SignedDuration::from_hours(48);

/// The earliest date that a database is asked for.
const EARLIEST: civil::DateTime = civil::DateTime::constant(1, 1, 1, 0, 0, 0, 0);
/// What instants are counted from.
const EPOCH: civil::DateTime = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Whether columns of these types can be a watermark with this overlap; if not, why.
pub(super) fn check(columns: &[(&Label, SqlType)], overlap: Overlap) -> Result<(), String> {
    for (at, (name, sql_type)) in columns.iter().enumerate() {
        let why = match sql_type {
            SqlType::Time if at == 0 => "which begins anew every day: put the column of the date before it",
            SqlType::BigInt
            | SqlType::Decimal { .. }
            | SqlType::Date
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::TimestampTz => continue,
            _ => {
                "which has no order that every database agrees on: use a column of dates, times or exact numbers, or make one in a query"
            }
        };
        return Err(format!("the watermark's column {name} is of type {sql_type}, {why}"));
    }
    let Some((name, first)) = columns.first() else { return Ok(()) };
    let is_number = matches!(first, SqlType::BigInt | SqlType::Decimal { .. });
    match overlap {
        Overlap::Time(_) if is_number => {
            Err(format!("the watermark's column {name} is of type {first}: its `overlap` is a number such as 1000, no time"))
        }
        Overlap::Count(_) if !is_number => {
            Err(format!("the watermark's column {name} is of type {first}: its `overlap` is a time such as \"10m\", no number"))
        }
        _ => Ok(()),
    }
}

/// One value with the order of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Integer(i64),
    Decimal(Decimal),
    Time(civil::Time),
    /// A date is its midnight.
    Civil(civil::DateTime),
    /// Since 1970 in UTC.
    Instant(SignedDuration),
}

impl Mark {
    /// `None` where the text is no value of the type, or the type has no watermarks.
    fn of(sql_type: SqlType, text: &str) -> Option<Self> {
        if !fits(sql_type, text) {
            return None;
        }
        Some(match sql_type {
            SqlType::BigInt => Self::Integer(text.parse().ok()?),
            SqlType::Decimal { .. } => Self::Decimal(text.parse().ok()?),
            SqlType::Date => Self::Civil(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0)),
            SqlType::Time => Self::Time(text.parse().ok()?),
            SqlType::Timestamp => Self::Civil(text.parse().ok()?),
            SqlType::TimestampTz => Self::Instant(instant(text)?),
            _ => return None,
        })
    }

    /// Whether it lies so far beyond `now` that it is no time of a change.
    fn is_far_ahead(&self, now: Timestamp) -> bool {
        let limit = now.as_duration().saturating_add(AHEAD);
        match self {
            Self::Civil(at) => at.duration_since(EPOCH) > limit,
            Self::Instant(at) => *at > limit,
            Self::Integer(_) | Self::Decimal(_) | Self::Time(_) => false,
        }
    }

    /// Values of one column are of one kind.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Civil(a), Self::Civil(b)) => a.cmp(b),
            (Self::Instant(a), Self::Instant(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

/// `YYYY-MM-DDThh:mm:ss[.fraction]±hh:mm` as the time since 1970 in UTC. Every such text has one, also where it lies outside
/// of what a time zone's calendar knows.
fn instant(text: &str) -> Option<SignedDuration> {
    let (civil, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_seconds = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60;
    let civil: civil::DateTime = civil.parse().ok()?;
    let east = if offset.starts_with('-') { -offset_seconds } else { offset_seconds };
    Some(civil.duration_since(EPOCH) - SignedDuration::from_secs(east))
}

/// Whether a watermark begins with a date so far in the future that it is no time of a change: one by a clock that was wrong.
pub(super) fn is_far_ahead(sql_type: SqlType, value: &str, now: Timestamp) -> bool {
    Mark::of(sql_type, value).is_some_and(|mark| mark.is_far_ahead(now))
}

/// The value from which on is read again: `overlap` before `value`. `None` where `value` is none of the type.
pub(super) fn before(sql_type: SqlType, value: &str, overlap: Overlap) -> Option<String> {
    let mark = Mark::of(sql_type, value)?;
    let back = match overlap {
        Overlap::Equal => SignedDuration::ZERO,
        Overlap::Time(time) => SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX),
        Overlap::Count(count) => return counted_back(&mark, count),
    };
    let earlier = |at: civil::DateTime| at.checked_sub(back).unwrap_or(EARLIEST).max(EARLIEST);
    match mark {
        Mark::Civil(at) if sql_type == SqlType::Date => Some(earlier(at).date().to_string()),
        Mark::Civil(at) if back.is_positive() => Some(earlier(at).to_string()),
        Mark::Instant(at) if back.is_positive() => {
            let at = EPOCH.checked_add(at.saturating_sub(back)).unwrap_or(EARLIEST).max(EARLIEST);
            Some(format!("{at}+00:00"))
        }
        _ => Some(value.to_owned()),
    }
}

fn counted_back(mark: &Mark, count: u64) -> Option<String> {
    match mark {
        Mark::Integer(value) => Some(value.saturating_sub_unsigned(count).to_string()),
        Mark::Decimal(value) => {
            let mut sum = DecimalSum::new();
            sum.add(value).ok()?;
            sum.add_str(&format!("-{count}")).ok()?;
            Some(sum.finish().to_string())
        }
        _ => None,
    }
}

/// The values of all columns; `None` where one is missing or none of its type.
fn marks(columns: &[(usize, SqlType)], texts: &[String]) -> Option<Vec<Mark>> {
    if columns.is_empty() || texts.len() != columns.len() {
        return None;
    }
    columns.iter().zip(texts).map(|((_, sql_type), text)| Mark::of(*sql_type, text)).collect()
}

/// Finds the greatest watermark among rows.
#[derive(Debug)]
pub(super) struct Tracker {
    /// Where the watermark's columns stand in a row, in the watermark's order, with their types.
    columns: Vec<(usize, SqlType)>,
    now: Timestamp,
    /// Texts of the row under way, one for each column; those that are NULL stay empty and make the row none to follow.
    row: Vec<String>,
    seen: usize,
    best: Option<Best>,
}

#[derive(Debug)]
struct Best {
    texts: Vec<String>,
    marks: Vec<Mark>,
}

impl Tracker {
    /// For rows of `columns`, beginning with the greatest values of before. Where there is no watermark it does nothing.
    pub(super) fn new(columns: &[Column], watermark: &[Label], through: &[String], now: Timestamp) -> Self {
        let find = |name: &Label| columns.iter().enumerate().find(|(_, column)| column.name == *name);
        let places: Vec<(usize, SqlType)> =
            watermark.iter().filter_map(|name| find(name).map(|(at, column)| (at, column.sql_type))).collect();
        let best = marks(&places, through).map(|marks| Best { texts: through.to_vec(), marks });
        let row = vec![String::new(); places.len()];
        Self { columns: places, now, row, seen: 0, best }
    }

    /// Takes a value of the row under way that is not NULL.
    pub(super) fn value(&mut self, at: usize, text: &str) {
        for (place, _) in self.row.iter_mut().zip(&self.columns).filter(|(_, (column, _))| *column == at) {
            place.clear();
            place.push_str(text);
            self.seen += 1;
        }
    }

    /// Ends the row. A row that has NULL in one of the columns, or a date far in the future in the first one, is not followed: it
    /// is read again next time.
    pub(super) fn end_row(&mut self) {
        let whole = std::mem::take(&mut self.seen) == self.columns.len();
        if !whole || self.best.as_ref().is_some_and(|best| best.texts == self.row) {
            return;
        }
        let Some(marks) = marks(&self.columns, &self.row) else { return };
        if marks.first().is_some_and(|first| first.is_far_ahead(self.now)) {
            return;
        }
        let compared = self.best.as_ref().map(|best| {
            let each = marks.iter().zip(&best.marks).map(|(new, old)| new.compare(old));
            each.fold(Ordering::Equal, Ordering::then)
        });
        if compared.is_none_or(Ordering::is_gt) {
            self.best = Some(Best { texts: self.row.clone(), marks });
        }
    }

    /// The greatest values, one for each column; none where there was no row.
    pub(super) fn finish(self) -> Vec<String> {
        self.best.map(|best| best.texts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
