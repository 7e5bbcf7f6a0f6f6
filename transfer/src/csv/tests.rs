use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::*;
use crate::{Code, Disposition, Failure, codec::Unpacker};

type Table = Vec<Vec<Option<String>>>;

fn write(header: &[&str], rows: &Table) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.write_header(header).unwrap();
    for row in rows {
        writer.write_row(row.iter().map(Option::as_deref)).unwrap();
    }
    assert_eq!(writer.rows(), rows.len() as u64);
    writer.finish().unwrap()
}

fn read_with(bytes: impl Read, limits: Limits) -> Result<(Vec<String>, Table), CsvError> {
    let mut reader = Reader::with_limits(bytes, limits)?;
    let mut rows = Table::new();
    while let Some(row) = reader.read_row()? {
        assert!((0..row.len()).all(|column| row.get(column) == row.iter().nth(column)));
        assert_eq!((row.get(row.len()), row.is_empty()), (None, false));
        rows.push(row.iter().map(|field| field.map(str::to_owned)).collect());
    }
    assert_eq!(reader.rows(), rows.len() as u64);
    assert!(reader.read_row().unwrap().is_none());
    Ok((reader.header().to_vec(), rows))
}

fn read(bytes: &[u8]) -> Result<(Vec<String>, Table), CsvError> {
    read_with(bytes, Limits::default())
}

fn row(fields: &[Option<&str>]) -> Vec<Option<String>> {
    fields.iter().map(|field| field.map(str::to_owned)).collect()
}

/// Line, record and problem of what a reader says to `text`.
fn refusal(text: impl AsRef<[u8]>) -> (u64, u64, Problem) {
    match read(text.as_ref()) {
        Err(CsvError::Read { line, record, problem }) => (line, record, problem),
        other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(text.as_ref())),
    }
}

/// Gives so many bytes at a time and is interrupted in between.
struct Slow<'a>(&'a [u8], usize, bool);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.2 = !self.2;
        if self.2 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = into.len().min(self.1);
        self.0.read(&mut into[..most])
    }
}

#[test]
fn null_and_the_empty_string_differ() {
    let rows = vec![row(&[None, Some("")]), row(&[Some(""), None]), row(&[None, None])];
    let bytes = write(&["a", "b"], &rows);
    assert_eq!(bytes, b"a,b\r\n,\"\"\r\n\"\",\r\n,\r\n");
    assert_eq!(read(&bytes).unwrap().1, rows);

    let rows = vec![row(&[None]), row(&[Some("")]), row(&[None])];
    let bytes = write(&["a"], &rows);
    assert_eq!(bytes, b"a\r\n\r\n\"\"\r\n\r\n");
    assert_eq!(read(&bytes).unwrap().1, rows);
}

/// The second part of each pair is what PostgreSQL 15 gives for `COPY (VALUES …) TO STDOUT (FORMAT csv, HEADER)`, with
/// its line ends, which are LF there, made CRLF.
#[test]
fn quotes_stand_where_copy_puts_them() {
    let two = [
        ("x", "x"),
        ("a,b", "\"a,b\""),
        ("say \"hi\"", "\"say \"\"hi\"\"\""),
        ("\"", "\"\"\"\""),
        ("a\nb", "\"a\nb\""),
        ("a\r\nb", "\"a\r\nb\""),
        ("\r", "\"\r\""),
        (" lead and trail ", " lead and trail "),
        ("tab\there", "tab\there"),
        ("\\.", "\\."),
        ("\\N", "\\N"),
        ("NULL", "NULL"),
        ("#x;'y", "#x;'y"),
        ("Grüße 你好", "Grüße 你好"),
        ("", "\"\""),
    ];
    for (value, copied) in two {
        let bytes = write(&["a", "b"], &vec![row(&[Some(value), None])]);
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("a,b\r\n{copied},\r\n"));
    }
    for (value, copied) in [("\\.", "\"\\.\""), ("\\. ", "\\. "), ("x", "x"), ("", "\"\""), ("\\.\n", "\"\\.\n\"")] {
        let bytes = write(&["a"], &vec![row(&[Some(value)])]);
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("a\r\n{copied}\r\n"));
    }
}

#[test]
fn quotes_without_need_are_read() {
    let (header, rows) = read(b"\"a\",b\r\n\"1\",\"x\"\r\n").unwrap();
    assert_eq!((header, rows), (vec!["a".to_owned(), "b".to_owned()], vec![row(&[Some("1"), Some("x")])]));
    assert_eq!(read(b"a\r\n\"\\.\"\r\n").unwrap().1, read(b"a\r\n\\.\r\n").unwrap().1);
}

#[test]
fn a_byte_order_mark_is_only_ever_content() {
    assert_eq!(refusal("\u{feff}a\r\n").2, Problem::ByteOrderMark);
    let bytes = write(&["\u{feff}a"], &vec![row(&[Some("\u{feff}")])]);
    assert_eq!(read(&bytes).unwrap(), (vec!["\u{feff}a".to_owned()], vec![row(&[Some("\u{feff}")])]));
}

#[test]
fn what_a_writer_would_not_write_is_refused() {
    for (text, expected) in [
        ("", (1, 0, Problem::NoHeader)),
        ("\r\n", (1, 0, Problem::UnnamedColumn { column: 1 })),
        ("a,\r\n", (1, 0, Problem::UnnamedColumn { column: 2 })),
        ("a,\"\"\r\n", (1, 0, Problem::UnnamedColumn { column: 2 })),
        ("a,b\r\n1,2\r\n3\r\n", (3, 2, Problem::FieldCount { expected: 2, found: 1 })),
        ("a,b\r\n\r\n", (2, 1, Problem::FieldCount { expected: 2, found: 1 })),
        ("a\r\n1,2,3\r\n", (2, 1, Problem::FieldCount { expected: 1, found: 2 })),
        ("a\r\n1\n", (2, 1, Problem::BareLineFeed)),
        ("a\n", (1, 0, Problem::BareLineFeed)),
        ("a\r\n\"1\"\n", (2, 1, Problem::BareLineFeed)),
        ("a\r\n1\r2\r\n", (2, 1, Problem::BareCarriageReturn)),
        ("a\r\n1\r\r\n", (2, 1, Problem::BareCarriageReturn)),
        ("a\r\n1\"2\r\n", (2, 1, Problem::StrayQuote)),
        ("a\r\n \"1\"\r\n", (2, 1, Problem::StrayQuote)),
        ("a\r\n\"1\" \r\n", (2, 1, Problem::TextAfterQuote)),
        ("a\r\n\"1\n\n\"x\r\n", (4, 1, Problem::TextAfterQuote)),
        ("a\r\n\"1\n2", (3, 1, Problem::UnclosedQuote)),
        ("a\r\n\"1\"", (2, 1, Problem::MissingLineEnd)),
        ("a\r\n1", (2, 1, Problem::MissingLineEnd)),
        ("a\r\n1\r", (2, 1, Problem::MissingLineEnd)),
        ("a", (1, 0, Problem::MissingLineEnd)),
        ("a,b\r\n1,", (2, 1, Problem::MissingLineEnd)),
    ] {
        assert_eq!(refusal(text), expected, "{text:?}");
    }
    assert_eq!(refusal(b"a,b\r\n\"1\n\",2\r\n\"\"\"\n\",\xff\r\n"), (5, 2, Problem::NotUtf8));
    assert_eq!(refusal(b"a\r\n\"\xc3\"\"\xa4\"\r\n").2, Problem::NotUtf8);
    assert_eq!(refusal(b"a,b\r\n\xc3,\xa4\r\n").2, Problem::NotUtf8);
    assert_eq!(refusal("a\r\n\"1\n2\" 3\r\n").0, 3);
    let said = read(b"a,b\r\n1,2,3\r\n").unwrap_err().to_string();
    assert_eq!(said, "line 2, record 1: the record has at least 3 fields, the header 2");
}

#[test]
fn limits_hold_in_both_directions() {
    let limits = Limits { field_bytes: 4, record_bytes: 12, columns: 2 };
    let refused = |text: &str| read_with(text.as_bytes(), limits).unwrap_err().problem().unwrap();
    let (field, record) = (Problem::FieldTooLong { limit: 4 }, Problem::RecordTooLong { limit: 12 });
    assert_eq!(refused("a\r\n12345\r\n"), field);
    assert_eq!(refused("a,b\r\n\"1234\",\"22\"\r\n"), record);
    assert_eq!(refused("a,b,c\r\n"), Problem::TooManyColumns { limit: 2 });
    assert_eq!(refused(&format!("a\r\n\"{}", "x".repeat(1_000_000))), record);
    assert!(read_with(&b"a\r\n\"\"\"\"\"\"\"\"\"\"\r\n"[..], limits).is_ok());

    let mut writer = Writer::with_limits(Vec::new(), limits);
    assert_eq!(writer.write_row([Some("1")]).unwrap_err().problem(), Some(Problem::NoHeader));
    assert_eq!(writer.write_header(&[]).unwrap_err().problem(), Some(Problem::NoColumns));
    assert_eq!(writer.write_header(&["a", "b", "c"]).unwrap_err().problem(), Some(Problem::TooManyColumns { limit: 2 }));
    assert_eq!(writer.write_header(&["a", ""]).unwrap_err().problem(), Some(Problem::UnnamedColumn { column: 2 }));
    assert_eq!(writer.write_header(&["12345", "b"]).unwrap_err().problem(), Some(field));
    writer.write_header(&["a", "b"]).unwrap();
    assert_eq!(writer.write_header(&["a"]).unwrap_err().problem(), Some(Problem::SecondHeader));
    assert_eq!(writer.write_row([Some("12345"), None]).unwrap_err().problem(), Some(field));
    assert_eq!(writer.write_row([Some("\"\"\"\""), Some("1")]).unwrap_err().problem(), Some(record));
    assert_eq!(writer.write_row([Some("1")]).unwrap_err().problem(), Some(Problem::FieldCount { expected: 2, found: 1 }));
    assert_eq!(writer.write_row([None; 3]).unwrap_err().problem(), Some(Problem::FieldCount { expected: 2, found: 3 }));
    writer.write_row([Some("1234"), Some("12345".get(..4).unwrap())]).unwrap();
    assert_eq!(writer.finish().unwrap(), b"a,b\r\n1234,1234\r\n");

    assert_eq!(Writer::new(Vec::new()).finish().unwrap_err().problem(), Some(Problem::NoHeader));
    let mut half = Writer::new(Vec::new());
    half.write_header(&["a", "b"]).unwrap();
    half.field(Some("x"));
    assert!(half.finish().is_err());
}

#[test]
fn the_default_limits_take_a_field_of_quotes_only() {
    let field = "\"".repeat(MAX_FIELD_BYTES);
    let bytes = write(&["a"], &vec![row(&[Some(&field)])]);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    assert!(reader.read_row().unwrap().unwrap().get(0) == Some(Some(&field)));
    let mut writer = Writer::new(io::sink());
    writer.write_header(&["a"]).unwrap();
    let longer = field + "x";
    assert_eq!(writer.write_row([Some(&*longer)]).unwrap_err().problem(), Some(Problem::FieldTooLong { limit: MAX_FIELD_BYTES }));
    let names: Vec<String> = (0..=MAX_COLUMNS).map(|n| n.to_string()).collect();
    assert_eq!(refusal(names.join(",") + "\r\n").2, Problem::TooManyColumns { limit: MAX_COLUMNS });
}

/// Fails the test as soon as it is asked for more than it should be.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(into.len()).expect("the reader holds more than its limits");
        into.fill(b'"');
        Ok(into.len())
    }
}

#[test]
fn a_record_without_end_stops_at_the_limit() {
    let limits = Limits { record_bytes: 1_000_000, ..Limits::default() };
    let error = Reader::with_limits(Endless(1_500_000), limits).unwrap_err();
    assert_eq!(error.problem(), Some(Problem::RecordTooLong { limit: 1_000_000 }));
}

#[test]
fn a_huge_record_between_small_ones_is_read_and_its_memory_given_back() {
    let huge = "Ä\"\r\n".repeat(300_000);
    let mut rows = vec![row(&[Some("1"), Some("before")]), row(&[Some(&huge), None])];
    rows.extend((0..60_000).map(|n| row(&[Some(&n.to_string()), Some("after")])));
    let bytes = write(&["a", "b"], &rows);
    assert!(read(&bytes).unwrap().1 == rows);
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_below_keep_their_code() {
    let mut writer = Writer::new(Broken);
    writer.write_header(&["a"]).unwrap();
    let long = "x".repeat(100_000);
    let failure = Failure::from(writer.write_row([Some(&*long)]).unwrap_err());
    assert_eq!((failure.code(), failure.disposition()), (Code::DiskFull, Disposition::Retry));
    assert!(matches!(writer.write_row([Some(&*long)]), Err(CsvError::Io(_))));
    assert!(matches!(writer.finish(), Err(CsvError::Io(_))));

    let failure = Reader::new(Unpacker::new(&b"no bzip2"[..], 10)).unwrap_err().into_failure("reading failed");
    assert_eq!((failure.code(), failure.disposition()), (Code::UnpackFailed, Disposition::Park));
    let failure = Failure::from(read(b"a\n").unwrap_err());
    assert_eq!((failure.code(), failure.disposition()), (Code::ContentInvalid, Disposition::Park));
    let failure = read_with(&b"aaa\r\n"[..], Limits { field_bytes: 2, ..Limits::default() }).unwrap_err();
    assert_eq!(Failure::from(failure).code(), Code::LimitExceeded);
}

fn any_field() -> impl Strategy<Value = Option<String>> {
    proptest::option::weighted(
        0.8,
        prop_oneof![
            any::<String>(),
            "[,\"\r\n\\\\.a ]{0,12}",
            "[ä€𝄞\"]{0,6}",
            Just(String::new()),
            Just("\\.".to_owned()),
            Just("\u{feff}".to_owned())
        ],
    )
}

fn any_table() -> impl Strategy<Value = (Vec<String>, Table)> {
    (1usize..5).prop_flat_map(|columns| {
        let name = prop_oneof!["[a-z]{1,4}", "[,\"\r\n\\\\. \u{feff}]{1,4}"];
        (
            proptest::collection::vec(name, columns),
            proptest::collection::vec(proptest::collection::vec(any_field(), columns), 0..12),
        )
    })
}

proptest! {
    #[test]
    fn any_table_round_trips((header, rows) in any_table(), piece in 1usize..40) {
        let names: Vec<&str> = header.iter().map(String::as_str).collect();
        let bytes = write(&names, &rows);
        prop_assert_eq!(read(&bytes).unwrap(), (header.clone(), rows.clone()));
        prop_assert_eq!(read_with(Slow(&bytes, piece, false), Limits::default()).unwrap(), (header, rows));
    }

    #[test]
    fn whatever_is_read_is_written_the_same_but_for_needless_quotes(text in "[ab,\"\r\n\\\\.ä]{0,40}") {
        let text = format!("{}\r\n", text.replace('b', "\r\n"));
        if let Ok((header, rows)) = read(text.as_bytes()) {
            let names: Vec<&str> = header.iter().map(String::as_str).collect();
            let bytes = write(&names, &rows);
            prop_assert_eq!(read(&bytes).unwrap(), (header, rows));
            // Where no quote could be left out, the bytes are the same.
            let quotes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'"').count();
            if quotes(&bytes) == quotes(text.as_bytes()) {
                prop_assert_eq!(bytes, text.into_bytes());
            }
        }
    }

    #[test]
    fn a_cut_file_is_never_whole((header, rows) in any_table(), at in any::<proptest::sample::Index>()) {
        let names: Vec<&str> = header.iter().map(String::as_str).collect();
        let bytes = write(&names, &rows);
        let cut = &bytes[..at.index(bytes.len())];
        if let Ok((_, fewer)) = read(cut) {
            // Only between two records can a cut stay unnoticed; there the manifest's row count tells.
            prop_assert!(cut.ends_with(b"\r\n") && fewer[..] == rows[..fewer.len()]);
        }
    }

    #[test]
    fn hostile_bytes_never_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..9) {
        let limits = Limits { field_bytes: 20, record_bytes: 50, columns: 5 };
        let _ = read_with(Slow(&bytes, piece, false), limits);
    }
}
