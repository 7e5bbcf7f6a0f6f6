//! Rows from a cursor: many at once where every column has an end, else one after the other and each value in pieces.

use odbc_api::{
    Bit, Cursor, CursorRow, Error, Nullable,
    buffers::{BinColumnSlice, ColumnarDynBuffer, Indicator, NullableSlice, TextColumnSlice},
    parameter::{Binary, VarCell, WideText},
};
use thiserror::Error as ThisError;
use tokio::runtime::Handle;
use towpath_transfer::{Failure, csv::MAX_FIELD_BYTES};

use super::types::{Form, Typed};
use crate::extract::source::{RowSink, Value};

/// The memory for the rows that are fetched at once, in bytes. One row may take more.
pub(super) const BULK_BYTES: usize = 2 * 1024 * 1024;
/// Rows that are fetched at once at most.
pub(super) const BULK_ROWS: usize = 1_024;
/// UTF-16 units or bytes of a value that are fetched at once where values can be of any length.
pub(super) const PIECE: usize = 8 * 1024;

/// Why rows could not be read.
#[derive(Debug, ThisError)]
pub(super) enum NoRows {
    /// The driver said so.
    #[error(transparent)]
    Driver(#[from] Error),
    /// A value is longer than its column says. Nothing is cut off.
    #[error("column {0} has a value that is longer than the driver says values of this column can be")]
    Longer(usize),
    /// A value is longer than a field of the wire.
    #[error("column {0} has a value of more than {MAX_FIELD_BYTES} bytes")]
    TooLong(usize),
    /// Whoever takes the rows.
    #[error(transparent)]
    Sink(Failure),
}

/// Where rows go.
pub(super) struct Out<'a> {
    pub(super) sink: &'a mut RowSink,
    pub(super) runtime: &'a Handle,
}

impl Out<'_> {
    fn end_row(&mut self) -> Result<(), NoRows> {
        self.sink.end_row_blocking(self.runtime).map_err(NoRows::Sink)
    }

    fn flush(&mut self) -> Result<(), NoRows> {
        self.sink.flush_blocking(self.runtime).map_err(NoRows::Sink)
    }
}

/// Reads all rows of `cursor` into `out`. `give_up` is called before an unfinished result is let go.
pub(super) fn rows<C: Cursor>(cursor: C, columns: &[Typed], out: &mut Out<'_>, give_up: &dyn Fn()) -> Result<(), NoRows> {
    let descriptions: Option<Vec<_>> = columns.iter().map(|column| column.bulk()).collect();
    match descriptions {
        Some(descriptions) => {
            let row = descriptions.iter().map(|description| description.bytes_per_row()).sum::<usize>().max(1);
            let buffer = ColumnarDynBuffer::try_from_descs((BULK_BYTES / row).clamp(1, BULK_ROWS), descriptions)?;
            bulk(cursor, buffer, columns, out, give_up)
        }
        None => one_by_one(cursor, columns, out, give_up),
    }
}

/// A column of the rows that were fetched at once.
enum Cells<'a> {
    Text(TextColumnSlice<'a, u16>),
    Bit(NullableSlice<'a, Bit>),
    Real(NullableSlice<'a, f32>),
    Double(NullableSlice<'a, f64>),
    Binary(BinColumnSlice<'a>),
}

fn bulk<C: Cursor>(
    cursor: C,
    buffer: ColumnarDynBuffer,
    columns: &[Typed],
    out: &mut Out<'_>,
    give_up: &dyn Fn(),
) -> Result<(), NoRows> {
    let mut cursor = cursor.bind_buffer(buffer)?;
    let mut scratch = Scratch::default();
    while let Some(batch) = cursor.fetch()? {
        let mut cells = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            cells.extend(cells_of(batch, at, column.form));
        }
        let given = push_batch(&cells, batch.num_rows(), columns, out, &mut scratch);
        if given.is_err() {
            give_up();
            return given;
        }
    }
    out.flush()
}

fn cells_of(batch: &ColumnarDynBuffer, at: usize, form: Form) -> Option<Cells<'_>> {
    let column = batch.column(at);
    match form {
        Form::Text => column.as_wide_text().map(Cells::Text),
        Form::Bit => column.as_nullable_slice().map(Cells::Bit),
        Form::Real => column.as_nullable_slice().map(Cells::Real),
        Form::Double => column.as_nullable_slice().map(Cells::Double),
        Form::Binary => column.as_binary().map(Cells::Binary),
    }
}

fn push_batch(
    cells: &[Cells<'_>],
    rows: usize,
    columns: &[Typed],
    out: &mut Out<'_>,
    scratch: &mut Scratch,
) -> Result<(), NoRows> {
    for (at, cells) in cells.iter().enumerate() {
        let cut = match cells {
            Cells::Text(texts) => texts.has_truncated_values(),
            Cells::Binary(values) => values.has_truncated_values(),
            Cells::Bit(_) | Cells::Real(_) | Cells::Double(_) => None,
        };
        if cut.is_some() {
            return Err(NoRows::Longer(at + 1));
        }
    }
    for row in 0..rows {
        for (cells, column) in cells.iter().zip(columns) {
            match cells {
                Cells::Text(texts) => match texts.get(row) {
                    Some(units) => out.sink.push(scratch.text(units, column.lower)),
                    None => out.sink.push(Value::Null),
                },
                Cells::Bit(bits) => out.sink.push(bits.get(row).map_or(Value::Null, |bit| Value::Boolean(bit.as_bool()))),
                Cells::Real(reals) => match reals.get(row) {
                    Some(real) => out.sink.push(scratch.real(*real)),
                    None => out.sink.push(Value::Null),
                },
                Cells::Double(doubles) => out.sink.push(doubles.get(row).map_or(Value::Null, |double| Value::Real(*double))),
                Cells::Binary(values) => out.sink.push(values.get(row).map_or(Value::Null, Value::Bytes)),
            }
        }
        out.end_row()?;
    }
    Ok(())
}

fn one_by_one<C: Cursor>(mut cursor: C, columns: &[Typed], out: &mut Out<'_>, give_up: &dyn Fn()) -> Result<(), NoRows> {
    let mut scratch = Scratch::default();
    while let Some(mut row) = cursor.next_row()? {
        let mut given = Ok(());
        for (number, column) in (1..).zip(columns) {
            given = given.and_then(|()| push_value(&mut row, number, *column, out, &mut scratch));
        }
        given = given.and_then(|()| out.end_row());
        if given.is_err() {
            give_up();
            return given;
        }
    }
    out.flush()
}

fn push_value(
    row: &mut CursorRow<'_>,
    number: u16,
    column: Typed,
    out: &mut Out<'_>,
    scratch: &mut Scratch,
) -> Result<(), NoRows> {
    match column.form {
        Form::Text => match scratch.whole_text(row, number)? {
            true => out.sink.push(scratch.held(column.lower)),
            false => out.sink.push(Value::Null),
        },
        Form::Binary => match scratch.whole_bytes(row, number)? {
            true => out.sink.push(Value::Bytes(&scratch.bytes)),
            false => out.sink.push(Value::Null),
        },
        Form::Bit => {
            let mut bit = Nullable::<Bit>::null();
            row.get_data(number, &mut bit)?;
            out.sink.push(bit.into_opt().map_or(Value::Null, |bit| Value::Boolean(bit.as_bool())));
        }
        Form::Real => {
            let mut real = Nullable::<f32>::null();
            row.get_data(number, &mut real)?;
            match real.into_opt() {
                Some(real) => out.sink.push(scratch.real(real)),
                None => out.sink.push(Value::Null),
            }
        }
        Form::Double => {
            let mut double = Nullable::<f64>::null();
            row.get_data(number, &mut double)?;
            out.sink.push(double.into_opt().map_or(Value::Null, Value::Real));
        }
    }
    Ok(())
}

/// The texts of a row, where nobody counts on speed; `None` is NULL.
pub(super) fn texts(row: &mut CursorRow<'_>, columns: u16) -> Result<Vec<Option<String>>, NoRows> {
    let mut scratch = Scratch::default();
    let mut texts = Vec::new();
    for number in 1..=columns {
        let text = scratch.whole_text(row, number)?;
        texts.push(text.then(|| String::from_utf16_lossy(&scratch.units)));
    }
    Ok(texts)
}

/// Memory for one value, kept from one to the next.
#[derive(Default)]
struct Scratch {
    units: Vec<u16>,
    bytes: Vec<u8>,
    piece: Vec<u16>,
    short: Vec<u8>,
}

impl Scratch {
    /// The text of these units.
    fn text(&mut self, units: &[u16], lower: bool) -> Value<'_> {
        push_utf8(units, &mut self.bytes);
        if lower {
            self.bytes.make_ascii_lowercase();
        }
        Value::Text(&self.bytes)
    }

    /// The text of the units that [`Scratch::whole_text`] has read.
    fn held(&mut self, lower: bool) -> Value<'_> {
        let units = std::mem::take(&mut self.units);
        push_utf8(&units, &mut self.bytes);
        self.units = units;
        if lower {
            self.bytes.make_ascii_lowercase();
        }
        Value::Text(&self.bytes)
    }

    /// The fewest digits that are this number and no other of its 32 bits; made a double, it would have digits nobody wrote.
    fn real(&mut self, real: f32) -> Value<'_> {
        if !real.is_finite() {
            return Value::Real(f64::from(real));
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(format!("{real:e}").as_bytes());
        Value::Text(&self.bytes)
    }

    /// Reads a whole text into `units`; false where it is NULL.
    fn whole_text(&mut self, row: &mut CursorRow<'_>, number: u16) -> Result<bool, NoRows> {
        self.units.clear();
        self.piece.resize(PIECE, 0);
        loop {
            let mut piece = VarCell::<&mut [u16], WideText>::from_buffer(&mut self.piece[..], Indicator::Null);
            row.get_data(number, &mut piece)?;
            let Some(units) = piece.as_slice() else { return Ok(false) };
            self.units.extend_from_slice(units);
            if piece.is_complete() {
                return Ok(true);
            }
            // A unit is at least one byte of UTF-8.
            if self.units.len() > MAX_FIELD_BYTES {
                return Err(NoRows::TooLong(number.into()));
            }
        }
    }

    /// Reads a whole binary value into `bytes`; false where it is NULL.
    fn whole_bytes(&mut self, row: &mut CursorRow<'_>, number: u16) -> Result<bool, NoRows> {
        self.bytes.clear();
        self.short.resize(PIECE, 0);
        loop {
            let mut piece = VarCell::<&mut [u8], Binary>::from_buffer(&mut self.short[..], Indicator::Null);
            row.get_data(number, &mut piece)?;
            let Some(bytes) = piece.as_slice() else { return Ok(false) };
            self.bytes.extend_from_slice(bytes);
            if piece.is_complete() {
                return Ok(true);
            }
            if self.bytes.len() > MAX_FIELD_BYTES {
                return Err(NoRows::TooLong(number.into()));
            }
        }
    }
}

/// Half of a pair, which is no text, becomes a byte that UTF-8 does not have, so that the value is refused.
const NO_TEXT: u8 = 0xff;

fn push_utf8(units: &[u16], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(units.len());
    for c in char::decode_utf16(units.iter().copied()) {
        match c {
            Ok(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(_) => out.push(NO_TEXT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_in_another_encoding() {
        let text = "a ä € 𝄞 \u{10ffff}";
        let mut out = Vec::new();
        push_utf8(&text.encode_utf16().collect::<Vec<_>>(), &mut out);
        assert_eq!(out, text.as_bytes());
        push_utf8(&[0x61, 0xd834, 0x62], &mut out);
        assert_eq!(out, [b'a', NO_TEXT, b'b']);
    }

    #[test]
    fn single_precision_has_the_digits_that_were_written() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.real(0.1), Value::Text(b"1e-1"));
        assert_eq!(scratch.real(-3.4e38), Value::Text(b"-3.4e38"));
        assert_eq!(scratch.real(f32::INFINITY), Value::Real(f64::INFINITY));
    }
}
