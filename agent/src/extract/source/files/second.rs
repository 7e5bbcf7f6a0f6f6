//! The second opinion: rows, values and sums of a file, found by another way of reading it.
//!
//! A file has no database that could be asked. So it is read once more from the disk, and its records are found by the number of
//! quotes before a line end instead of character by character; numbers are added from what is left of their text without marks of
//! thousands. Where both ways agree on rows, values and sums, and the bytes had the same digest both times, no row was lost,
//! doubled or split wrongly. Only the decoding of characters is common to both.

use towpath_transfer::{
    Failure,
    decimal::DecimalSum,
    digest::Sha256Digest,
    manifest::{Column, SqlType},
};

use super::{
    decode::{Broken, Text},
    records::Place,
    values::is_null,
};
use crate::{
    config::CsvConfig,
    extract::source::{ColumnTotals, TableTotals},
};

/// Adds up the files of a table.
pub(super) struct Second<'a> {
    csv: &'a CsvConfig,
    /// Each wanted column, which field of a record it is, and the type that it has in the file, which decides what is NULL.
    columns: Vec<(&'a Column, usize, SqlType)>,
    rows: u64,
    counts: Vec<u64>,
    sums: Vec<DecimalSum>,
}

impl<'a> Second<'a> {
    pub(super) fn new(csv: &'a CsvConfig, columns: Vec<(&'a Column, usize, SqlType)>) -> Self {
        let sums = columns.iter().map(|_| DecimalSum::new()).collect();
        Self { csv, counts: vec![0; columns.len()], columns, rows: 0, sums }
    }

    /// Adds a file whose records have `width` fields. `wanted` is asked after each block whether to go on. Returns digest and length.
    ///
    /// # Errors
    /// As `wanted` and the disk report; `erp-locked` for what the first reading would have refused, since the file is not the same any more.
    pub(super) fn add(
        &mut self,
        text: Text,
        place: &Place,
        width: usize,
        wanted: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(Sha256Digest, u64), Failure> {
        let mut lines = Lines::new(text);
        let mut record = String::new();
        let mut numbered: u64 = 0;
        while lines.record(self.csv.quote, place, &mut record, wanted)? {
            numbered += 1;
            let is_header = self.csv.header && numbered == 1;
            if !is_header && (width == 1 || !record.is_empty()) {
                self.row(&record, numbered, place)?;
            }
        }
        Ok(lines.text.finish())
    }

    pub(super) fn finish(self) -> TableTotals {
        let of = |(((column, ..), count), sum): ((&(&Column, usize, SqlType), u64), DecimalSum)| ColumnTotals {
            count,
            sum: column.sql_type.has_total().then(|| sum.finish()),
        };
        TableTotals { rows: self.rows, columns: self.columns.iter().zip(self.counts).zip(self.sums).map(of).collect() }
    }

    fn row(&mut self, record: &str, numbered: u64, place: &Place) -> Result<(), Failure> {
        self.rows += 1;
        let fields = fields(record, self.csv);
        for (((column, at, own_type), count), sum) in self.columns.iter().zip(&mut self.counts).zip(&mut self.sums) {
            let raw = fields.get(*at).copied().unwrap_or_default();
            let (value, quoted) = without_quotes(raw, self.csv);
            if is_null(self.csv, *own_type, &value, quoted) {
                continue;
            }
            *count += 1;
            if column.sql_type.has_total() {
                let number = plain_number(&value, self.csv, column.sql_type);
                sum.add_str(&number)
                    .map_err(|why| place.changed(&format!("record {numbered}, column {}: {why}", column.name)))?;
            }
        }
        Ok(())
    }
}

/// Text in records: a line end ends one where the quotes before it are even.
struct Lines {
    text: Text,
    held: String,
    /// What comes before was given out.
    at: usize,
    block: String,
    ended: bool,
}

impl Lines {
    fn new(text: Text) -> Self {
        Self { text, held: String::new(), at: 0, block: String::new(), ended: false }
    }

    /// The next record, without its line end; false where there is none.
    fn record(
        &mut self,
        quote: Option<char>,
        place: &Place,
        record: &mut String,
        wanted: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        record.clear();
        // How much of the record is looked through, and whether its quotes are odd so far.
        let (mut seen, mut odd) = (0, false);
        let looked_for = |c: char| Some(c) == quote || matches!(c, '\r' | '\n');
        loop {
            let rest = self.held.get(self.at + seen..).unwrap_or_default();
            let Some((after, c)) = rest.char_indices().find(|(_, c)| looked_for(*c)) else {
                seen += rest.len();
                if self.more(place, wanted)? {
                    continue;
                }
                record.push_str(self.held.get(self.at..).unwrap_or_default());
                self.at = self.held.len();
                return Ok(!record.is_empty());
            };
            seen += after;
            if Some(c) == quote {
                odd = !odd;
            } else if !odd {
                // Whether LF follows is known only when the next character is.
                if c == '\r' && self.at + seen + 1 == self.held.len() {
                    self.more(place, wanted)?;
                }
                let end = self.at + seen;
                record.push_str(self.held.get(self.at..end).unwrap_or_default());
                let is_pair = c == '\r' && self.held.get(end + 1..).is_some_and(|rest| rest.starts_with('\n'));
                self.at = end + if is_pair { 2 } else { 1 };
                return Ok(true);
            }
            seen += c.len_utf8();
        }
    }

    /// Reads on; false at the end.
    fn more(&mut self, place: &Place, wanted: &dyn Fn() -> Result<(), Failure>) -> Result<bool, Failure> {
        if self.ended {
            return Ok(false);
        }
        wanted()?;
        self.ended = !self.text.next(&mut self.block).map_err(|broken| match broken {
            Broken::Io(error) => place.unread(error),
            Broken::Bytes(why) => place.changed(&why),
        })?;
        self.held.drain(..std::mem::take(&mut self.at));
        self.held.push_str(&self.block);
        Ok(!self.ended)
    }
}

/// The fields of a record: parts between delimiters that no quote is open at.
fn fields<'r>(record: &'r str, csv: &CsvConfig) -> Vec<&'r str> {
    let mut fields = Vec::new();
    let (mut start, mut open) = (0, false);
    for (at, c) in record.char_indices() {
        if Some(c) == csv.quote {
            open = !open;
        } else if c == csv.delimiter && !open {
            fields.push(record.get(start..at).unwrap_or_default());
            start = at + c.len_utf8();
        }
    }
    fields.push(record.get(start..).unwrap_or_default());
    fields
}

fn without_quotes<'f>(raw: &'f str, csv: &CsvConfig) -> (std::borrow::Cow<'f, str>, bool) {
    let inner = csv.quote.and_then(|quote| raw.strip_prefix(quote)?.strip_suffix(quote).map(|inner| (quote, inner)));
    match inner {
        Some((quote, inner)) if inner.contains(quote) => {
            (inner.replace(&format!("{quote}{quote}"), &quote.to_string()).into(), true)
        }
        Some((_, inner)) => (inner.into(), true),
        None => (raw.into(), false),
    }
}

/// A number with a point and nothing between its digits.
fn plain_number(value: &str, csv: &CsvConfig, sql_type: SqlType) -> String {
    let is_negative = value.contains('-');
    let mark = |c: char| c == csv.decimal;
    let kept: String = value.chars().filter(|c| c.is_ascii_digit() || mark(*c)).map(|c| if mark(c) { '.' } else { c }).collect();
    let (whole, fraction) = kept.split_once('.').unwrap_or((&kept, ""));
    let scale = match sql_type {
        SqlType::Decimal { scale, .. } => scale.into(),
        _ => 0,
    };
    // Zeros that the type has no room for say nothing; other digits there are a difference that must be seen.
    let kept = fraction.trim_end_matches('0').len().max(scale.min(fraction.len()));
    let fraction = fraction.get(..kept).unwrap_or_default();
    let (sign, whole, point) =
        (if is_negative { "-" } else { "" }, whole.trim_start_matches('0'), if fraction.is_empty() { "" } else { "." });
    format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole })
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, path::Path};

    use towpath_transport::files::{FileStore as _, MemoryFiles};

    use super::*;
    use crate::config::Encoding;

    fn totals(text: &str, csv: &CsvConfig, types: &[&str]) -> TableTotals {
        let files = MemoryFiles::new();
        let path = Path::new("/f");
        files.create(path).unwrap().write_all(text.as_bytes()).unwrap();
        let place = Place { table: "t".parse().unwrap(), file: "f".to_owned() };
        let column = |sql_type: &&str| Column { name: "c".parse().unwrap(), sql_type: sql_type.parse().unwrap(), nullable: true };
        let columns: Vec<Column> = types.iter().map(column).collect();
        let mut second = Second::new(csv, columns.iter().zip(0..).map(|(column, at)| (column, at, column.sql_type)).collect());
        let text = Text::new(files.open(path).unwrap(), Encoding::Utf8);
        second.add(text, &place, types.len(), &|| Ok(())).unwrap();
        second.finish()
    }

    fn told(totals: &TableTotals) -> Vec<(u64, Option<String>)> {
        totals.columns.iter().map(|column| (column.count, column.sum.as_ref().map(ToString::to_string))).collect()
    }

    #[test]
    fn records_are_found_by_their_quotes() {
        let csv = CsvConfig::default();
        let found = totals("a,b\r\n\"x\r\n\"\"y\",1\n,\"\"\r\"\"\"\",2.50\r\n\r\n\n", &csv, &["TEXT", "DECIMAL(9,2)"]);
        assert_eq!(found.rows, 3);
        assert_eq!(told(&found), [(2, None), (2, Some("3.5".into()))]);
        let one = totals("a\r\n\r\n\"\"\r\nx", &csv, &["TEXT"]);
        assert_eq!((one.rows, told(&one)), (3, vec![(2, None)]));
        assert_eq!(totals("a,b", &csv, &["TEXT", "TEXT"]).rows, 0);
    }

    #[test]
    fn numbers_are_added_whatever_their_marks() {
        let csv = CsvConfig { delimiter: ';', decimal: ',', thousands: Some('.'), header: false, ..CsvConfig::default() };
        let found = totals("1.234,50;7\n\"0,005-\";+1.000\n;\"\"\n-,5; -08 ,00\n", &csv, &["DECIMAL(12,3)", "BIGINT"]);
        assert_eq!(told(&found), [(3, Some("1233.995".into())), (3, Some("999".into()))]);
    }

    #[test]
    fn records_across_blocks() {
        let long = "y\r\n\"\"".repeat(40_000);
        let text = format!("a,b\r\n{}", format!("\"{long}\",1\r\n").repeat(3));
        let found = totals(&text, &CsvConfig::default(), &["TEXT", "BIGINT"]);
        assert_eq!((found.rows, told(&found)), (3, vec![(3, None), (3, Some("3".into()))]));
    }
}
