//! The text format of COPY (<https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format"), read strictly: one line for
//! each row, fields between tabs, `\N` for NULL, and a backslash before what would disturb. What PostgreSQL never writes is refused.

use thiserror::Error;
use towpath_transfer::{csv, manifest::SqlType};

use super::types::Held;
use crate::extract::source::{RowSink, Value};

/// The longest line. Each byte of a value may take two, and one more is no value that can be sent.
const MAX_LINE_BYTES: usize = 2 * csv::MAX_RECORD_BYTES;
/// Whole numbers below it are the same as floating point and as text.
const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;

/// Why something is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Broken {
    #[error("a row has not as many fields as the query columns")]
    Width,
    #[error("a backslash stands where PostgreSQL writes none")]
    Escape,
    #[error("a value has not the form of its type")]
    Form,
    #[error("the last row has no end")]
    Unfinished,
    #[error("a row has more than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// One column: what PostgreSQL sends, and the type it will have on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) held: Held,
    pub(super) wanted: SqlType,
}

/// Takes chunks and gives rows.
#[derive(Debug)]
pub(super) struct CopyReader {
    fields: Vec<Field>,
    /// Whole lines and the beginning of one.
    lines: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    scratch: Vec<u8>,
    bytes: Vec<u8>,
}

impl CopyReader {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        Self { fields, lines: Vec::new(), at: 0, scratch: Vec::new(), bytes: Vec::new() }
    }

    /// Takes what the server has sent: in practice one row at a time, though the protocol does not promise it.
    pub(super) fn take(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        self.lines.drain(..self.at);
        self.at = 0;
        if self.lines.len() + chunk.len() > MAX_LINE_BYTES {
            return Err(Broken::TooLong);
        }
        self.lines.extend_from_slice(chunk);
        Ok(())
    }

    /// Pushes the values of the next whole row; false where there is none.
    pub(super) fn row(&mut self, sink: &mut RowSink) -> Result<bool, Broken> {
        let rest = self.lines.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(false) };
        let line = rest.get(..end).unwrap_or_default();
        let mut fields = self.fields.iter();
        for raw in line.split(|byte| *byte == b'\t') {
            let field = fields.next().ok_or(Broken::Width)?;
            sink.push(value(*field, raw, &mut self.scratch, &mut self.bytes)?);
        }
        if fields.next().is_some() {
            return Err(Broken::Width);
        }
        self.at += end + 1;
        Ok(true)
    }

    /// Says whether everything was whole.
    pub(super) fn finish(&self) -> Result<(), Broken> {
        if self.at == self.lines.len() { Ok(()) } else { Err(Broken::Unfinished) }
    }
}

fn value<'a>(field: Field, raw: &'a [u8], scratch: &'a mut Vec<u8>, bytes: &'a mut Vec<u8>) -> Result<Value<'a>, Broken> {
    if raw == b"\\N" {
        return Ok(Value::Null);
    }
    let text = if raw.contains(&b'\\') {
        unescape(raw, scratch)?;
        scratch.as_slice()
    } else {
        raw
    };
    let number = || std::str::from_utf8(text).map_err(|_| Broken::Form);
    Ok(match (field.held, field.wanted) {
        (Held::Boolean, _) => match text {
            b"t" => Value::Boolean(true),
            b"f" => Value::Boolean(false),
            _ => return Err(Broken::Form),
        },
        (Held::Integer, _) => Value::Integer(number()?.parse().map_err(|_| Broken::Form)?),
        (Held::Float, SqlType::Double) => Value::Real(number()?.parse().map_err(|_| Broken::Form)?),
        (Held::Float, SqlType::BigInt | SqlType::Decimal { .. }) => {
            // Larger ones are refused as the text with an exponent that they are.
            let float: f64 = number()?.parse().map_err(|_| Broken::Form)?;
            if float.abs() < WHOLE_BELOW { Value::Real(float) } else { Value::Text(text) }
        }
        (Held::Bytes, _) => {
            unhex(text, bytes)?;
            Value::Bytes(bytes)
        }
        _ => Value::Text(text),
    })
}

fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    out.clear();
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        out.push(match (byte, byte == &b'\\') {
            (plain, false) => *plain,
            _ => match bytes.next().ok_or(Broken::Escape)? {
                b'\\' => b'\\',
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                _ => return Err(Broken::Escape),
            },
        });
    }
    Ok(())
}

/// `\x` and two digits for each byte (<https://www.postgresql.org/docs/current/datatype-binary.html>, "bytea Hex Format").
fn unhex(text: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    out.clear();
    let (pairs, rest) = text.strip_prefix(b"\\x").ok_or(Broken::Form)?.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Broken::Form);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(Broken::Form);
    for [high, low] in pairs {
        out.push(digit(*high)? << 4 | digit(*low)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::source::Feed;

    const TEXT: Field = Field { held: Held::Other, wanted: SqlType::Text };

    async fn read(fields: &[Field], chunks: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let (mut sink, mut feed) = RowSink::new(fields.len());
        let mut reader = CopyReader::new(fields.to_vec());
        for chunk in chunks {
            reader.take(chunk)?;
            while reader.row(&mut sink)? {
                sink.end_row().await.unwrap();
            }
        }
        reader.finish()?;
        sink.finish().await.unwrap();
        let mut values = Vec::new();
        while let Some(Feed::Rows(batch)) = feed.recv().await {
            values.extend(batch.values().map(|value| match value {
                Value::Text(text) => format!("Text({})", String::from_utf8_lossy(text)),
                other => format!("{other:?}"),
            }));
        }
        Ok(values)
    }

    #[tokio::test]
    async fn every_escape_and_null() {
        let row = b"a\\b\\f\\n\\r\\t\\v\\\\z\t\\N\t\\\\N\t\n";
        let found = read(&[TEXT; 4], &[row]).await.unwrap();
        assert_eq!(found, ["Text(a\u{8}\u{c}\n\r\t\u{b}\\z)", "Null", "Text(\\N)", "Text()"]);
    }

    #[tokio::test]
    async fn rows_may_be_cut_anywhere() {
        let whole = "ä\tb\\\\\n\\N\td\n".as_bytes();
        let expected = read(&[TEXT; 2], &[whole]).await.unwrap();
        assert_eq!(expected, ["Text(ä)", "Text(b\\)", "Null", "Text(d)"]);
        for at in 0..whole.len() {
            let (first, second) = whole.split_at(at);
            assert_eq!(read(&[TEXT; 2], &[first, second]).await.unwrap(), expected, "{at}");
        }
    }

    #[tokio::test]
    async fn values_by_type() {
        let field = |held, wanted| Field { held, wanted };
        let decimal = SqlType::Decimal { precision: 20, scale: 6 };
        let fields = [
            field(Held::Boolean, SqlType::Boolean),
            field(Held::Integer, SqlType::BigInt),
            field(Held::Float, SqlType::Double),
            field(Held::Float, decimal),
            field(Held::Float, decimal),
            field(Held::Float, SqlType::Text),
            field(Held::Bytes, SqlType::Binary),
            field(Held::Bytes, SqlType::Binary),
        ];
        let row = b"t\t-9223372036854775808\tNaN\t1e-05\t1e+20\t1e+20\t\\\\x00fF\t\\\\x\n";
        let found = read(&fields, &[row]).await.unwrap();
        let expected = [
            "Boolean(true)",
            "Integer(-9223372036854775808)",
            "Real(NaN)",
            "Real(1e-5)",
            "Text(1e+20)",
            "Text(1e+20)",
            "Bytes([0, 255])",
            "Bytes([])",
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn what_postgresql_never_writes_is_refused() {
        let one = |held| [Field { held, wanted: SqlType::Text }];
        for (held, row, broken) in [
            (Held::Other, b"a\\q\n".as_slice(), Broken::Escape),
            (Held::Other, b"a\\\n", Broken::Escape),
            (Held::Other, b"\\.\n", Broken::Escape),
            (Held::Other, b"a\tb\n", Broken::Width),
            (Held::Other, b"a", Broken::Unfinished),
            (Held::Boolean, b"true\n", Broken::Form),
            (Held::Integer, b"1.5\n", Broken::Form),
            (Held::Bytes, b"00\n", Broken::Form),
            (Held::Bytes, b"\\\\x0\n", Broken::Form),
            (Held::Bytes, b"\\\\x0g\n", Broken::Form),
        ] {
            assert_eq!(read(&one(held), &[row]).await.unwrap_err(), broken, "{row:?}");
        }
        assert_eq!(read(&[TEXT; 2], &[b"a\n"]).await.unwrap_err(), Broken::Width);
    }

    #[test]
    fn a_line_has_a_limit() {
        let mut reader = CopyReader::new(vec![TEXT]);
        reader.lines = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(reader.take(b"x").unwrap_err(), Broken::TooLong);
    }
}
