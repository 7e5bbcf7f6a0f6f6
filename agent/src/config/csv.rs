//! `[job.table.csv]`: how an ERP writes its files, and whether that has one meaning.

use jiff::{
    fmt::strtime::BrokenDownTime,
    tz::{Offset, TimeZone},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optional_char;

/// `[job.table.csv]`: the dialect of an ERP's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Csv")]
pub struct CsvConfig {
    /// What stands between two fields.
    pub delimiter: char,
    /// What may stand around a field; doubled within. `None` (written `""`) where nothing does.
    #[serde(with = "optional_char")]
    #[schemars(with = "String", length(max = 1))]
    pub quote: Option<char>,
    /// How characters are written.
    pub encoding: Encoding,
    /// Whether the first row names the columns.
    pub header: bool,
    /// The columns, where there is no header row, or where the header's names are not wanted.
    pub columns: Vec<String>,
    /// What stands before the fraction of a number.
    pub decimal: char,
    /// What may stand between groups of three digits.
    #[serde(with = "optional_char")]
    #[schemars(with = "String", length(max = 1))]
    pub thousands: Option<char>,
    /// How a date is written (strftime).
    pub date: String,
    /// How a time of day is written (strftime).
    pub time: String,
    /// How a timestamp is written (strftime).
    pub timestamp: String,
    /// Unquoted fields of this text are NULL.
    pub null: String,
    /// What stands for true and false in columns of type BOOLEAN.
    pub booleans: (String, String),
}

impl Default for CsvConfig {
    fn default() -> Self {
        Self {
            delimiter: ',',
            quote: Some('"'),
            encoding: Encoding::Utf8,
            header: true,
            columns: Vec::new(),
            decimal: '.',
            thousands: None,
            date: "%Y-%m-%d".to_owned(),
            time: "%H:%M:%S".to_owned(),
            timestamp: "%Y-%m-%d %H:%M:%S".to_owned(),
            null: String::new(),
            booleans: ("true".to_owned(), "false".to_owned()),
        }
    }
}

/// How an ERP writes characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// UTF-8, with or without byte order mark.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, by its byte order mark; little-endian without one.
    #[serde(rename = "utf-16")]
    Utf16,
    /// The code page of Windows in Western Europe.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// The code page of DOS in Western Europe.
    #[serde(rename = "cp850")]
    Cp850,
}

impl CsvConfig {
    /// What is wrong with the dialect, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let marks = [Some(self.delimiter), self.quote, Some(self.decimal), self.thousands];
        let is_line_end = |mark: &char| matches!(mark, '\r' | '\n' | '\u{feff}' | '\0');
        if let Some(mark) = marks.into_iter().flatten().find(is_line_end) {
            return Some(format!("{mark:?} is no mark of a dialect"));
        }
        if Some(self.delimiter) == self.quote {
            return Some("`delimiter` and `quote` are the same".to_owned());
        }
        if Some(self.decimal) == self.thousands {
            return Some("`decimal` and `thousands` are the same".to_owned());
        }
        let in_number = |mark: &char| mark.is_ascii_digit() || matches!(mark, '+' | '-' | 'e' | 'E');
        if let Some(mark) = [Some(self.decimal), self.thousands].into_iter().flatten().find(in_number) {
            return Some(format!("{mark:?} is part of numbers and cannot be a mark in them"));
        }
        if !self.header && self.columns.is_empty() {
            return Some("files without `header` need `columns`, the names of their columns".to_owned());
        }
        if self.booleans.0 == self.booleans.1 {
            return Some("`booleans` are the same".to_owned());
        }
        let formats =
            [("date", &self.date, Part::Date), ("time", &self.time, Part::Time), ("timestamp", &self.timestamp, Part::Both)];
        let wrong = |(_, format, part): &(&str, &String, Part)| !part.is_whole_in(format);
        let (name, format, part) = formats.into_iter().find(wrong)?;
        Some(format!("`{name}` = {format:?} does not say the whole {}", part.word()))
    }

    /// Whether timestamps have an offset from UTC.
    pub(crate) fn has_offset(&self) -> bool {
        let parsed = |text: String| BrokenDownTime::parse(&self.timestamp, &text).ok();
        sample()
            .and_then(|sample| sample.to_string(&self.timestamp).ok())
            .and_then(parsed)
            .is_some_and(|time| time.offset().is_some())
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Date,
    Time,
    Both,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Time => "time of day",
            Self::Both => "date and time",
        }
    }

    /// Whether what the format writes of a moment reads back as the same moment, to the minute.
    fn is_whole_in(self, format: &str) -> bool {
        let Some(sample) = sample() else { return false };
        let Ok(read) = sample.to_string(format).and_then(|text| BrokenDownTime::parse(format, text)) else { return false };
        let date = || read.to_date().ok() == sample.to_date().ok();
        let time = || read.to_time().ok() == sample.to_time().ok();
        match self {
            Self::Date => date(),
            Self::Time => time(),
            Self::Both => date() && time(),
        }
    }
}

/// The afternoon of 26 December 1987: no part of it is like another.
fn sample() -> Option<BrokenDownTime> {
    let offset = Offset::from_seconds(-12_600).ok()?;
    let at = jiff::civil::date(1987, 12, 26).at(13, 45, 0, 0).to_zoned(TimeZone::fixed(offset)).ok()?;
    Some(BrokenDownTime::from(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_has_one_meaning() {
        let plain = CsvConfig::default();
        assert_eq!(plain.problem(), None);
        assert!(!plain.has_offset());
        let with = |change: fn(&mut CsvConfig)| {
            let mut csv = CsvConfig::default();
            change(&mut csv);
            csv
        };
        for (change, said) in [
            (with(|csv| csv.delimiter = '"'), "`delimiter` and `quote` are the same"),
            (with(|csv| csv.delimiter = '\n'), "is no mark"),
            (with(|csv| csv.thousands = Some('.')), "`decimal` and `thousands` are the same"),
            (with(|csv| csv.thousands = Some('0')), "part of numbers"),
            (with(|csv| csv.decimal = '-'), "part of numbers"),
            (with(|csv| csv.header = false), "need `columns`"),
            (with(|csv| csv.booleans = ("1".into(), "1".into())), "`booleans` are the same"),
            (with(|csv| csv.date = "%d.%m.".into()), "`date` = \"%d.%m.\" does not say the whole date"),
            (with(|csv| csv.time = "%I:%M".into()), "does not say the whole time of day"),
            (with(|csv| csv.timestamp = "%d.%m.%Y".into()), "does not say the whole date and time"),
            (with(|csv| csv.timestamp = "%Q!".into()), "does not say the whole date and time"),
        ] {
            let problem = change.problem().unwrap();
            assert!(problem.contains(said), "{problem}");
        }
        for change in [
            with(|csv| csv.date = "%d.%m.%y".into()),
            with(|csv| csv.time = "%I:%M:%S %p".into()),
            with(|csv| csv.timestamp = "%-d.%-m.%Y %H:%M".into()),
            with(|csv| csv.timestamp = "%Y%m%d%H%M%S%.f".into()),
        ] {
            assert_eq!(change.problem(), None);
        }
        for format in ["%Y-%m-%dT%H:%M:%S%:z", "%d.%m.%Y %H:%M:%S %z"] {
            let csv = CsvConfig { timestamp: format.into(), ..CsvConfig::default() };
            assert!(csv.has_offset() && csv.problem().is_none());
        }
    }
}
