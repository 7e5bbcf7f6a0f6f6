//! CSV of the wire and of ERPs, the values in it, and the archives it travels in.

use std::{
    io::{Cursor, Read},
    num::NonZeroUsize,
};

use towpath_agent::{
    config::{CsvConfig, Encoding},
    extract::source::files::fuzzing,
};
use towpath_transfer::{
    codec::{CodecError, Packer, Unpacker},
    csv::{Limits, Reader, Writer},
    decimal::{Decimal, DecimalSum, MAX_DIGITS},
    manifest::SqlType,
    value::fits,
};

use crate::{choice, chosen, texts};

const LIMITS: Limits = Limits { field_bytes: 64, record_bytes: 256, columns: 8 };

/// Gives so many bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(into.len());
        into.get_mut(..most).map_or(Ok(0), |into| self.0.read(into))
    }
}

type Rows = (Vec<String>, Vec<Vec<Option<String>>>);

fn read(data: &[u8], piece: usize) -> Result<Rows, String> {
    let mut reader = Reader::with_limits(Pieces(data, piece), LIMITS).map_err(|e| e.to_string())?;
    let header = reader.header().to_vec();
    assert!((1..=LIMITS.columns).contains(&header.len()));
    let mut rows: Vec<Vec<Option<String>>> = Vec::new();
    loop {
        match reader.read_row() {
            Ok(Some(row)) => {
                assert_eq!(row.len(), header.len());
                rows.push(row.iter().map(|field| field.map(str::to_owned)).collect());
            }
            Ok(None) => break,
            Err(error) => {
                assert!(reader.read_row().is_ok_and(|row| row.is_none()), "after an error there is nothing more");
                return Err(error.to_string());
            }
        }
    }
    assert_eq!(reader.rows(), rows.len() as u64);
    Ok((header, rows))
}

pub(crate) fn wire(data: &[u8]) {
    let (piece, data) = choice(data);
    let whole = read(data, usize::MAX);
    // A record that is both too long and malformed may be called either.
    assert_eq!(read(data, piece.max(1)).ok(), whole.as_ref().ok().cloned(), "where it is cut does not count");
    let Ok((header, rows)) = whole else { return };
    assert!(rows.iter().flatten().flatten().all(|field| field.len() <= LIMITS.field_bytes));
    let mut writer = Writer::with_limits(Vec::new(), LIMITS);
    writer.write_header(&header.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for row in &rows {
        writer.write_row(row.iter().map(Option::as_deref)).unwrap();
    }
    let again = writer.finish().unwrap();
    assert_eq!(read(&again, usize::MAX), Ok((header, rows)));
}

pub(crate) fn wire_seeds() -> Vec<Vec<u8>> {
    let inputs = texts(&[
        "id,name,price\r\n1,\"a,b \"\"c\"\"\r\nd\",12.50\r\n2,,\"\"\r\n",
        "a\r\n\r\n\"\"\r\n\"\\.\"\r\n",
        "\"a\",\"\u{feff}b\"\r\nx,y\r\n",
    ]);
    chosen(3, &inputs)
}

fn sql_types() -> Vec<SqlType> {
    vec![
        SqlType::Text,
        SqlType::BigInt,
        SqlType::Decimal { precision: 18, scale: 4 },
        SqlType::Double,
        SqlType::Boolean,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Binary,
    ]
}

pub(crate) fn decimal(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for sql_type in sql_types() {
        let _ = fits(sql_type, text);
    }
    let mut sum = DecimalSum::new();
    let mut exact = Vec::new();
    for part in text.split(' ').take(64) {
        if let Ok(value) = part.parse::<Decimal>() {
            let printed = value.to_string();
            assert!(printed.len() <= MAX_DIGITS + 3, "{printed}");
            let again: Decimal = printed.parse().unwrap();
            assert_eq!((again.scale(), &again), (value.scale(), &value));
            assert_eq!(value.normalized(), value);
            assert_eq!(value.is_zero(), value.normalized().to_string() == "0");
        }
        match (sum.add_str(part), part.parse::<Decimal>()) {
            (Ok(()), Ok(value)) => exact.push(value),
            (added, parsed) => assert!(added.is_err(), "{part:?} was summed up and is no number: {parsed:?}"),
        }
    }
    assert_eq!(sum.count(), exact.len() as u64);
    let mut turned = DecimalSum::new();
    for value in exact.iter().rev() {
        turned.add(value).unwrap();
    }
    assert_eq!(sum.finish(), turned.finish(), "a sum does not depend on its order");
}

pub(crate) fn decimal_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "0 -0 1.50 -12.5 9223372036854775807 0.000000000000000001",
        "1e5 1.5E-3 -1e+2 +1 .5 5.",
        "99999999999999999999999999999999999999.99 -99999999999999999999999999999999999999.99",
        "2024-02-29T23:59:59.999999999",
        "12:00:00",
        "true",
        "AAEC/w==",
        "NaN",
    ])
}

fn dialect(of: usize) -> CsvConfig {
    let usual = CsvConfig::default();
    let german = CsvConfig {
        delimiter: ';',
        decimal: ',',
        thousands: Some('.'),
        date: "%d.%m.%Y".into(),
        timestamp: "%d.%m.%Y %H:%M:%S".into(),
        booleans: ("J".into(), "N".into()),
        ..usual.clone()
    };
    match of % 6 {
        0 => usual,
        1 => CsvConfig { encoding: Encoding::Utf16, ..usual },
        2 => CsvConfig { encoding: Encoding::Windows1252, ..german },
        3 => CsvConfig { encoding: Encoding::Cp850, quote: None, ..german },
        4 => CsvConfig { delimiter: '\t', quote: Some('\''), null: "NULL".into(), ..usual },
        _ => german,
    }
}

pub(crate) fn dropped(data: &[u8]) {
    let (of, data) = choice(data);
    let csv = dialect(of);
    let Ok(records) = fuzzing::records(data, &csv, LIMITS) else { return };
    let mut before = 0;
    for (line, fields) in &records {
        assert!(*line > before && !fields.is_empty() && fields.len() <= LIMITS.columns);
        before = *line;
        for (text, quoted) in fields {
            assert!(text.len() <= LIMITS.field_bytes + 4);
            assert!(!quoted || csv.quote.is_some());
            assert!(*quoted || !text.contains(['\r', '\n', csv.delimiter]), "{text:?}");
        }
    }
    // Written again, every field in quotes, it is the same.
    let (Some(quote), Encoding::Utf8) = (csv.quote, csv.encoding) else { return };
    let mut text = String::new();
    for (_, fields) in &records {
        for (at, (field, _)) in fields.iter().enumerate() {
            if at > 0 {
                text.push(csv.delimiter);
            }
            text.push(quote);
            text.push_str(&field.replace(quote, &format!("{quote}{quote}")));
            text.push(quote);
        }
        text.push('\n');
    }
    let again = fuzzing::records(text.as_bytes(), &csv, Limits { record_bytes: 4096, ..LIMITS }).unwrap();
    let plain = |records: &[(u64, Vec<fuzzing::Field>)]| -> Vec<Vec<String>> {
        records.iter().map(|(_, fields)| fields.iter().map(|(text, _)| text.clone()).collect()).collect()
    };
    assert_eq!(plain(&again), plain(&records));
}

pub(crate) fn dropped_seeds() -> Vec<Vec<u8>> {
    let mut inputs = texts(&[
        "id;name\r\n1;\"a;b \"\"c\"\" \r\n\td\"\r\n2;\"\"\n3;\r4;x\u{1a}",
        "id,name\n1,\"Größe\"\n,\n",
        "'a'\t'b''c'\nNULL\t\n",
    ]);
    let wide = |text: &str| [&[0xff, 0xfe][..], &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()].concat();
    inputs.push(wide("id,name\r\n1,𝄞\r\n"));
    chosen(6, &inputs)
}

pub(crate) fn dropped_value(data: &[u8]) {
    let (of, data) = choice(data);
    let (which, data) = choice(data);
    let Ok(field) = std::str::from_utf8(data) else { return };
    let types = sql_types();
    let Some(sql_type) = types.get(which % types.len()).copied() else { return };
    let csv = dialect(of);
    for quoted in [false, true] {
        if let Ok(Some(text)) = fuzzing::value(field, quoted, &csv, sql_type) {
            assert!(fits(sql_type, &text), "{field:?} became {text:?}, which is no {sql_type}");
        }
    }
}

pub(crate) fn dropped_value_seeds() -> Vec<Vec<u8>> {
    let inputs = texts(&[
        "1.234,50",
        "-1,5e3",
        "12-",
        "31.12.1899",
        "2024-02-29",
        "23:59:59",
        "01.02.2024 03:04:05",
        "2024-02-01 03:04:05",
        "true",
        "J",
        "AAEC/w==",
        "9223372036854775807",
        "1e400",
        "-0",
    ]);
    let types = u8::try_from(sql_types().len()).unwrap_or(u8::MAX);
    chosen(6, &chosen(types, &inputs))
}

const MOST_UNPACKED: u64 = 64 * 1024;

fn unpacked(data: &[u8], piece: usize) -> Result<Vec<u8>, String> {
    let mut unpacker = Unpacker::new(Pieces(data, piece), MOST_UNPACKED);
    let mut plain = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match unpacker.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => plain.extend_from_slice(buffer.get(..count).unwrap()),
            Err(error) => {
                assert!(plain.len() as u64 <= MOST_UNPACKED);
                assert!(unpacker.read(&mut buffer).is_err(), "after an error there is nothing more");
                return Err(CodecError::from(error).to_string());
            }
        }
    }
    assert!(plain.len() as u64 <= MOST_UNPACKED && plain.len() as u64 == unpacker.produced());
    assert!(unpacker.streams() > 0);
    Ok(plain)
}

pub(crate) fn unpack(data: &[u8]) {
    let (piece, data) = choice(data);
    let whole = unpacked(data, usize::MAX);
    let cut = unpacked(data, piece.max(1));
    assert_eq!(whole.as_ref().ok(), cut.as_ref().ok(), "where it is cut does not count");
    if whole.is_ok() {
        assert!(unpacked(&[data, b"x"].concat(), usize::MAX).is_err(), "nothing may follow");
        let twice = unpacked(&data.repeat(2), usize::MAX);
        let expected = whole.unwrap_or_default().repeat(2);
        assert!(twice.map_or(expected.len() as u64 > MOST_UNPACKED, |plain| plain == expected), "every stream counts");
    }
}

pub(crate) fn unpack_seeds() -> Vec<Vec<u8>> {
    let packed = |plain: &[u8]| {
        let mut packer = Packer::new(Cursor::new(Vec::new()), NonZeroUsize::MIN).unwrap();
        std::io::Write::write_all(&mut packer, plain).unwrap();
        packer.finish().unwrap().0.into_inner()
    };
    let (empty, text) = (packed(b""), packed(b"id,name\r\n1,a\r\n"));
    let zeros = packed(&vec![0; 100_000]);
    let inputs = [empty.clone(), text.clone(), zeros, [text, empty].concat()];
    chosen(2, &inputs)
}
