//! Records of a dropped file, character by character: one meaning for each, or an error that names line and field.
//!
//! Records end with CR LF, LF or CR, the last one also with the file. Where a quote is configured a field may stand in quotes and
//! then hold everything; a quote within is doubled. A quote anywhere else is an error, and so is the end of the file within quotes.

use towpath_transfer::{Code, Failure, csv, digest::Sha256Digest, manifest::Label};

use super::decode::{Broken, Text};
use crate::config::CsvConfig;

/// Where something stands, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) table: Label,
    /// The path of the file.
    pub(super) file: String,
}

impl Place {
    /// A field that is not what it should be.
    pub(super) fn wrong_field(&self, line: u64, field: usize, why: &str) -> Failure {
        Failure::park(Code::ErpValue, format!("table {}, file {}, line {line}, field {field}: {why}", self.table, self.file))
    }

    /// A value that is not what it should be.
    pub(super) fn wrong_value(&self, line: u64, column: &str, why: &str) -> Failure {
        Failure::park(Code::ErpValue, format!("table {}, file {}, line {line}, column {column}: {why}", self.table, self.file))
    }

    /// A line that is not what it should be.
    pub(super) fn wrong_line(&self, line: u64, why: &str) -> Failure {
        Failure::park(Code::ErpValue, format!("table {}, file {}, line {line}: {why}", self.table, self.file))
    }

    /// The file is not what it was.
    pub(super) fn changed(&self, found: &str) -> Failure {
        let Self { table, file } = self;
        let told = format!("table {table}: the file {file} was changed while it was read ({found}); it will be tried again");
        Failure::retry(Code::ErpLocked, told)
    }

    /// The file could not be read on.
    pub(super) fn unread(&self, error: std::io::Error) -> Failure {
        Failure::retry(Code::ErpMissing, format!("table {}: reading the file {} failed", self.table, self.file)).caused_by(error)
    }
}

/// What separates and surrounds fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    delimiter: char,
    quote: Option<char>,
}

impl Marks {
    pub(super) fn of(csv: &CsvConfig) -> Self {
        Self { delimiter: csv.delimiter, quote: csv.quote }
    }

    fn is_special(self, c: char) -> bool {
        c == self.delimiter || Some(c) == self.quote || matches!(c, '\r' | '\n')
    }
}

/// One record.
#[derive(Debug, Default)]
pub(super) struct Record {
    text: String,
    /// Where each field ends, and whether it stood in quotes.
    fields: Vec<(usize, bool)>,
    /// The line on which it begins, from 1.
    pub(super) line: u64,
}

impl Record {
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether its line is empty.
    pub(super) fn is_blank(&self) -> bool {
        self.fields.as_slice() == [(0, false)]
    }

    /// A field, and whether it stood in quotes.
    pub(super) fn field(&self, index: usize) -> Option<(&str, bool)> {
        let (end, quoted) = *self.fields.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.fields.get(before)).map_or(0, |(end, _)| *end);
        Some((self.text.get(start..end)?, quoted))
    }

    pub(super) fn texts(&self) -> Vec<String> {
        (0..self.len()).filter_map(|index| self.field(index)).map(|(text, _)| text.to_owned()).collect()
    }

    fn clear(&mut self, line: u64) {
        self.text.clear();
        self.fields.clear();
        self.line = line;
    }

    fn open_field_bytes(&self) -> usize {
        self.text.len() - self.fields.last().map_or(0, |(end, _)| *end)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first character of a field.
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: it ends the field or is the first of two.
    QuoteSeen,
}

/// Reads records.
pub(super) struct Records {
    text: Text,
    place: Place,
    marks: Marks,
    limits: csv::Limits,
    block: String,
    at: usize,
    line: u64,
    after_cr: bool,
}

impl Records {
    pub(super) fn new(text: Text, place: Place, marks: Marks) -> Self {
        Self { text, place, marks, limits: csv::Limits::default(), block: String::new(), at: 0, line: 1, after_cr: false }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn limited(self, limits: csv::Limits) -> Self {
        Self { limits, ..self }
    }

    /// The next record; false at the end of the file.
    ///
    /// # Errors
    /// `erp-value` with line and field for what is no record of this dialect, `limit-exceeded` beyond [`csv::Limits`],
    /// `erp-missing` where the file cannot be read on.
    pub(super) fn read(&mut self, record: &mut Record) -> Result<bool, Failure> {
        record.clear(self.line);
        let mut state = State::Start;
        loop {
            if self.at >= self.block.len() && !self.next_block(record)? {
                return self.end(record, state);
            }
            let rest = self.block.get(self.at..).unwrap_or_default();
            let Some(c) = rest.chars().next() else { continue };
            if std::mem::take(&mut self.after_cr) && c == '\n' {
                // The second half of a line end: content within quotes, else nothing of its own.
                self.at += 1;
                if state == State::Quoted {
                    record.text.push(c);
                }
                continue;
            }
            if let Some(next) = self.step(record, state, c)? {
                state = next;
            } else {
                return Ok(true);
            }
            self.check(record)?;
        }
    }

    /// The digest of the file and its length, once all was read.
    pub(super) fn finish(self) -> (Sha256Digest, u64) {
        self.text.finish()
    }

    /// Takes the character `c`, or as many as stand there without a meaning of their own. `None` at the end of the record.
    fn step(&mut self, record: &mut Record, state: State, c: char) -> Result<Option<State>, Failure> {
        let is_quote = Some(c) == self.marks.quote;
        let in_quotes = state == State::Quoted;
        let is_line_end = matches!(c, '\r' | '\n');
        let next = match state {
            State::Start if is_quote => State::Quoted,
            State::Quoted if is_quote => State::QuoteSeen,
            State::QuoteSeen if is_quote => {
                record.text.push(c);
                State::Quoted
            }
            State::Plain if is_quote => {
                let why =
                    "a quote stands within a field that does not begin with one; if this file quotes nothing, say quote = \"\"";
                return Err(self.wrong(record, why));
            }
            State::Start | State::Plain | State::QuoteSeen if c == self.marks.delimiter || is_line_end => {
                record.fields.push((record.text.len(), state == State::QuoteSeen));
                State::Start
            }
            State::QuoteSeen => {
                return Err(self.wrong(record, "something stands between the closing quote and the end of the field"));
            }
            State::Quoted if is_line_end => {
                record.text.push(c);
                State::Quoted
            }
            State::Start | State::Plain | State::Quoted => {
                let rest = self.block.get(self.at..).unwrap_or_default();
                let end = rest.find(|c| self.marks.is_special(c)).unwrap_or(rest.len());
                if end > 0 {
                    record.text.push_str(rest.get(..end).unwrap_or_default());
                    self.at += end;
                    return Ok(Some(if in_quotes { State::Quoted } else { State::Plain }));
                }
                // A delimiter within quotes.
                record.text.push(c);
                State::Quoted
            }
        };
        self.at += c.len_utf8();
        if is_line_end {
            self.line += 1;
            self.after_cr = c == '\r';
        }
        Ok((in_quotes || !is_line_end).then_some(next))
    }

    fn next_block(&mut self, record: &Record) -> Result<bool, Failure> {
        self.at = 0;
        match self.text.next(&mut self.block) {
            Ok(more) => Ok(more),
            Err(Broken::Io(error)) => Err(self.place.unread(error)),
            Err(Broken::Bytes(why)) => Err(self.wrong(record, &why)),
        }
    }

    fn end(&self, record: &mut Record, state: State) -> Result<bool, Failure> {
        match state {
            State::Start if record.fields.is_empty() => return Ok(false),
            State::Quoted => return Err(self.wrong(record, "the file ends within a quoted field")),
            State::Start | State::Plain | State::QuoteSeen => {}
        }
        record.fields.push((record.text.len(), state == State::QuoteSeen));
        Ok(true)
    }

    fn check(&self, record: &Record) -> Result<(), Failure> {
        let limits = self.limits;
        let told = if record.open_field_bytes() > limits.field_bytes {
            format!("a field is longer than {} bytes", limits.field_bytes)
        } else if record.text.len() > limits.record_bytes {
            format!("a record is longer than {} bytes", limits.record_bytes)
        } else if record.fields.len() >= limits.columns {
            format!("a record has more than {} fields", limits.columns)
        } else {
            return Ok(());
        };
        let Place { table, file } = &self.place;
        Err(Failure::park(Code::LimitExceeded, format!("table {table}, file {file}, line {}: {told}", record.line)))
    }

    fn wrong(&self, record: &Record, why: &str) -> Failure {
        self.place.wrong_field(self.line, record.fields.len() + 1, why)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, path::Path};

    use towpath_transport::files::{FileStore as _, MemoryFiles};

    use super::*;
    use crate::config::Encoding;

    fn records(bytes: &[u8], csv: &CsvConfig) -> Records {
        let files = MemoryFiles::new();
        let path = Path::new("/f");
        files.create(path).unwrap().write_all(bytes).unwrap();
        let place = Place { table: "t".parse().unwrap(), file: "f".to_owned() };
        Records::new(Text::new(files.open(path).unwrap(), Encoding::Utf8), place, Marks::of(csv))
    }

    type Fields = Vec<(String, bool)>;

    fn read(records: &mut Records) -> Result<Vec<(u64, Fields)>, Failure> {
        let (mut all, mut record) = (Vec::new(), Record::default());
        while records.read(&mut record)? {
            let fields = (0..record.len()).map(|at| record.field(at).unwrap()).map(|(text, quoted)| (text.to_owned(), quoted));
            all.push((record.line, fields.collect()));
        }
        Ok(all)
    }

    fn of(fields: &[(&str, bool)]) -> Fields {
        fields.iter().map(|(text, quoted)| ((*text).to_owned(), *quoted)).collect()
    }

    #[test]
    fn quotes_line_ends_and_lines() {
        let text = "a,\"b\r\n\"\"c\"\"\n,\r\",\r\n,\"\"\n\"x\"\ry,z\r\r\n";
        let found = read(&mut records(text.as_bytes(), &CsvConfig::default())).unwrap();
        assert_eq!(
            found,
            [
                (1, of(&[("a", false), ("b\r\n\"c\"\n,\r", true), ("", false)])),
                (5, of(&[("", false), ("", true)])),
                (6, of(&[("x", true)])),
                (7, of(&[("y", false), ("z", false)])),
                (8, of(&[("", false)])),
            ]
        );
        for (text, last) in [("a,b", "b"), ("a,", ""), ("a,\"b\"", "b")] {
            let found = read(&mut records(text.as_bytes(), &CsvConfig::default())).unwrap();
            assert_eq!((found.len(), found[0].1.len(), found[0].1[1].0.as_str()), (1, 2, last));
        }
        assert!(read(&mut records(b"", &CsvConfig::default())).unwrap().is_empty());
    }

    #[test]
    fn any_delimiter_and_no_quotes() {
        let csv = CsvConfig { delimiter: '¦', quote: None, ..CsvConfig::default() };
        let found = read(&mut records("12\" pipe¦\"¦\n".as_bytes(), &csv)).unwrap();
        assert_eq!(found, [(1, of(&[("12\" pipe", false), ("\"", false), ("", false)]))]);
        let csv = CsvConfig { delimiter: '\t', quote: Some('\''), ..CsvConfig::default() };
        let found = read(&mut records(b"'it''s'\t\"\n", &csv)).unwrap();
        assert_eq!(found, [(1, of(&[("it's", true), ("\"", false)]))]);
    }

    #[test]
    fn what_is_no_record_is_named() {
        for (text, said) in [
            ("a\nb,c\"d\n", "line 2, field 2: a quote stands within a field"),
            ("a\n\"b\"c\n", "line 2, field 1: something stands between the closing quote"),
            ("a\n\"b\nc\n", "line 4, field 1: the file ends within a quoted field"),
            ("a\n1, \"b\"\n", "line 2, field 2: a quote stands within"),
        ] {
            let failure = read(&mut records(text.as_bytes(), &CsvConfig::default())).unwrap_err();
            assert_eq!(failure.code(), Code::ErpValue);
            assert!(failure.message().starts_with("table t, file f, ") && failure.message().contains(said), "{failure}");
        }
        let failure = read(&mut records(b"a,b\n1,\xff\n", &CsvConfig::default())).unwrap_err();
        assert!(failure.message().ends_with("line 2, field 2: the byte 0xFF is no character of UTF-8"), "{failure}");
    }

    #[test]
    fn every_limit_is_kept() {
        let limits = csv::Limits { field_bytes: 4, record_bytes: 9, columns: 3 };
        let failed = |text: &str| {
            let mut records = records(text.as_bytes(), &CsvConfig::default()).limited(limits);
            read(&mut records).err().map(|failure| (failure.code(), failure.message().to_owned()))
        };
        assert_eq!(failed("1234,1234,1\n"), None);
        for (text, said) in [
            ("x\n\"12345\"\n", "line 2: a field is longer than 4 bytes"),
            ("1234,1234,12\n", "line 1: a record is longer than 9 bytes"),
            ("1,2,3,4\n", "line 1: a record has more than 3 fields"),
        ] {
            let (code, message) = failed(text).unwrap();
            assert_eq!(code, Code::LimitExceeded);
            assert!(message.ends_with(said), "{message}");
        }
    }
}
