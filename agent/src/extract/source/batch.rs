//! Rows on their way from a source to the writer, many at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use towpath_transfer::{Code, Failure};

/// A batch is handed on when its texts and bytes have this length. One row alone may be longer.
pub const BATCH_BYTES: usize = 256 * 1024;
/// A batch is handed on when it has this many values.
pub const BATCH_VALUES: usize = 8_192;
/// Batches that wait for the writer at most; then the source waits.
pub const BATCHES_WAITING: usize = 4;
/// Bytes of texts that wait for the writer, or are being written, at most; then the source waits. A batch of one longer row goes
/// alone.
pub const BYTES_WAITING: usize = 2 * 1024 * 1024;

/// One value as a database holds it. Texts come as bytes: whether they are UTF-8 is checked by whoever writes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A truth value, where the database has such a type.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text; numbers and dates of databases that send text are text too.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Null,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    /// Its bytes end here and begin where those before it end.
    Text(usize),
    Bytes(usize),
}

/// Some rows, one value after the other.
#[derive(Debug, Default)]
pub struct RowBatch {
    cells: Vec<Cell>,
    bytes: Vec<u8>,
    /// Its share of [`BYTES_WAITING`]; given back when the batch is dropped.
    room: Option<OwnedSemaphorePermit>,
}

impl RowBatch {
    /// Adds a value.
    pub fn push(&mut self, value: Value<'_>) {
        let mut held = |bytes: &[u8]| {
            self.bytes.extend_from_slice(bytes);
            self.bytes.len()
        };
        let cell = match value {
            Value::Null => Cell::Null,
            Value::Boolean(value) => Cell::Boolean(value),
            Value::Integer(value) => Cell::Integer(value),
            Value::Real(value) => Cell::Real(value),
            Value::Text(bytes) => Cell::Text(held(bytes)),
            Value::Bytes(bytes) => Cell::Bytes(held(bytes)),
        };
        self.cells.push(cell);
    }

    /// The values, in the order in which they were added.
    #[must_use]
    pub fn values(&self) -> Values<'_> {
        Values { cells: self.cells.iter(), bytes: &self.bytes, at: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.cells.len() >= BATCH_VALUES
    }
}

/// Iterates over [`RowBatch::values`].
#[derive(Debug)]
pub struct Values<'a> {
    cells: std::slice::Iter<'a, Cell>,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Values<'a> {
    fn held(&mut self, end: usize) -> &'a [u8] {
        let start = std::mem::replace(&mut self.at, end);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        Some(match *self.cells.next()? {
            Cell::Null => Value::Null,
            Cell::Boolean(value) => Value::Boolean(value),
            Cell::Integer(value) => Value::Integer(value),
            Cell::Real(value) => Value::Real(value),
            Cell::Text(end) => Value::Text(self.held(end)),
            Cell::Bytes(end) => Value::Bytes(self.held(end)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.cells.size_hint()
    }
}

/// What goes through the channel. A channel that closes before the end means that the table was given up.
#[derive(Debug)]
pub(in crate::extract) enum Feed {
    Rows(RowBatch),
    End,
}

/// Takes the rows of one table from a source.
#[derive(Debug)]
pub struct RowSink {
    width: usize,
    /// Values of the row being added.
    filled: usize,
    batch: RowBatch,
    to: To,
    room: Arc<Semaphore>,
}

/// The end into which a sink puts its batches.
#[derive(Debug)]
enum To {
    Own(mpsc::Sender<Feed>),
    /// Of a twin: the feed ends with the sink that it stands in for, also while its own thread waits for a driver.
    #[cfg(feature = "odbc")]
    Lent(mpsc::WeakSender<Feed>),
}

impl To {
    fn sender(&self) -> Result<mpsc::Sender<Feed>, Failure> {
        match self {
            Self::Own(to) => Ok(to.clone()),
            #[cfg(feature = "odbc")]
            Self::Lent(to) => to.upgrade().ok_or_else(gone),
        }
    }
}

impl RowSink {
    /// A sink for rows of `width` values, and the end where they come out.
    pub(in crate::extract) fn new(width: usize) -> (Self, mpsc::Receiver<Feed>) {
        let (to, from) = mpsc::channel(BATCHES_WAITING);
        let room = Arc::new(Semaphore::new(BYTES_WAITING));
        (Self { width, filled: 0, batch: RowBatch::default(), to: To::Own(to), room }, from)
    }

    /// Adds the next value of the row.
    pub fn push(&mut self, value: Value<'_>) {
        self.filled += 1;
        self.batch.push(value);
    }

    /// Ends the row, and waits where the writer is behind by [`BATCHES_WAITING`] batches or [`BYTES_WAITING`] bytes.
    ///
    /// # Errors
    /// `internal` where the row has not as many values as the table columns; `cancelled` where nobody takes rows any
    /// more, whose reason is told elsewhere.
    pub async fn end_row(&mut self) -> Result<(), Failure> {
        self.row_is_whole()?;
        if self.batch.is_full() { self.hand_on().await } else { Ok(()) }
    }

    fn row_is_whole(&mut self) -> Result<(), Failure> {
        let filled = std::mem::take(&mut self.filled);
        if filled != self.width {
            let said = format!("the source gave a row of {filled} values for {} columns", self.width);
            return Err(Failure::park(Code::Internal, said));
        }
        Ok(())
    }

    /// Another sink for rows of the same table, to be used instead of this one by a thread that blocks.
    #[cfg(feature = "odbc")]
    pub(super) fn twin(&self) -> Self {
        let to = match &self.to {
            To::Own(to) => to.downgrade(),
            To::Lent(to) => to.clone(),
        };
        let (to, room) = (To::Lent(to), Arc::clone(&self.room));
        Self { width: self.width, filled: 0, batch: RowBatch::default(), to, room }
    }

    /// [`RowSink::end_row`] on a thread that may block.
    #[cfg(feature = "odbc")]
    pub(super) fn end_row_blocking(&mut self, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
        self.row_is_whole()?;
        if self.batch.is_full() { self.flush_blocking(runtime) } else { Ok(()) }
    }

    /// Hands on what is left, on a thread that may block.
    #[cfg(feature = "odbc")]
    pub(super) fn flush_blocking(&mut self, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
        runtime.block_on(self.hand_on())
    }

    /// Hands on what is left and says that this was all.
    pub(in crate::extract) async fn finish(mut self) -> Result<(), Failure> {
        self.hand_on().await?;
        self.to.sender()?.send(Feed::End).await.map_err(|_| gone())
    }

    async fn hand_on(&mut self) -> Result<(), Failure> {
        let next = RowBatch { cells: Vec::with_capacity(self.batch.cells.len()), bytes: Vec::new(), room: None };
        let mut full = std::mem::replace(&mut self.batch, next);
        let share = u32::try_from(full.bytes.len().min(BYTES_WAITING)).unwrap_or(u32::MAX);
        // A writer that is gone has dropped its batches, so that there is room, and the channel says that nobody takes any.
        full.room = Some(Arc::clone(&self.room).acquire_many_owned(share).await.map_err(|_| gone())?);
        self.to.sender()?.send(Feed::Rows(full)).await.map_err(|_| gone())
    }
}

fn gone() -> Failure {
    Failure::retry(Code::Cancelled, "the rows of a table are not wanted any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_they_went_in() {
        let values = [
            Value::Text(b"a"),
            Value::Null,
            Value::Bytes(&[0, 1]),
            Value::Text(b""),
            Value::Integer(-1),
            Value::Real(0.5),
            Value::Boolean(true),
            Value::Text("ä".as_bytes()),
        ];
        let mut batch = RowBatch::default();
        values.iter().for_each(|value| batch.push(*value));
        assert_eq!(batch.values().collect::<Vec<_>>(), values);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_values_and_by_bytes() {
        let (mut sink, mut out) = RowSink::new(1);
        for _ in 0..BATCH_VALUES {
            sink.push(Value::Null);
            sink.end_row().await.unwrap();
        }
        let Some(Feed::Rows(first)) = out.recv().await else { panic!("no batch") };
        assert_eq!(first.values().count(), BATCH_VALUES);
        sink.push(Value::Text(&vec![b'x'; BATCH_BYTES]));
        sink.end_row().await.unwrap();
        let Some(Feed::Rows(second)) = out.recv().await else { panic!("no batch") };
        assert_eq!(second.values().count(), 1);
    }

    #[tokio::test]
    async fn long_rows_wait_by_their_bytes() {
        let (mut sink, mut out) = RowSink::new(1);
        let long = vec![b'x'; BYTES_WAITING / 2 + 1];
        sink.push(Value::Text(&long));
        sink.end_row().await.unwrap();
        sink.push(Value::Text(&long));
        let mut second = Box::pin(sink.end_row());
        assert!(futures::poll!(&mut second).is_pending());
        // Also while it is being written it takes its room.
        let Some(Feed::Rows(first)) = out.recv().await else { panic!("no batch") };
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
        // One row alone may be longer than everything that may wait.
        drop(out.recv().await);
        sink.push(Value::Text(&vec![b'x'; 2 * BYTES_WAITING]));
        sink.end_row().await.unwrap();
        let mut finished = Box::pin(sink.finish());
        assert!(futures::poll!(&mut finished).is_ready());
        // A writer that goes away ends the waiting.
        let (mut sink, out) = RowSink::new(1);
        sink.push(Value::Text(&long));
        sink.end_row().await.unwrap();
        sink.push(Value::Text(&long));
        let mut waiting = Box::pin(sink.end_row());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(out);
        assert_eq!(waiting.await.unwrap_err().code(), Code::Cancelled);
    }

    /// A driver that does not come back holds nobody up: the feed ends with the sink, not with its twin.
    #[cfg(feature = "odbc")]
    #[tokio::test]
    async fn the_feed_ends_though_a_twin_is_left() {
        let (sink, mut out) = RowSink::new(1);
        let mut twin = sink.twin();
        twin.push(Value::Null);
        drop(sink);
        assert!(out.recv().await.is_none());
        assert_eq!(twin.hand_on().await.unwrap_err().code(), Code::Cancelled);
    }

    #[tokio::test]
    async fn a_row_of_the_wrong_width_is_refused_and_a_closed_end_is_told() {
        let (mut sink, out) = RowSink::new(2);
        sink.push(Value::Null);
        assert_eq!(sink.end_row().await.unwrap_err().code(), Code::Internal);
        drop(out);
        assert_eq!(sink.finish().await.unwrap_err().code(), Code::Cancelled);
    }
}
