//! Unpacking: every stream of the file, and never more than the caller wants.
#![expect(
    clippy::disallowed_types,
    reason = "the one place that decodes bzip2: here every stream is read and the output is capped"
)]

use std::{
    fmt,
    io::{self, Read, Write},
};

use bzip2::{Decompress, Error, Status};

use super::CodecError;

/// The cap on the unpacked size of one file where nothing smaller is known.
pub const DEFAULT_UNPACK_LIMIT: u64 = 20 * 1024 * 1024 * 1024;

/// The most empty streams in one file: each costs much more work than its 14 bytes.
pub const MAX_EMPTY_STREAMS: u64 = 1_000;

/// Packed bytes held at a time.
const INPUT_BYTES: usize = 64 * 1024;

/// Unpacks all bzip2 streams of `R`.
///
/// Gives at most `limit` bytes; if there is one more, the read fails with [`CodecError::LimitExceeded`]. End of file
/// means that the last stream was whole, its check sum right, and that nothing follows it. Memory is below 5 MiB
/// whatever the file says of itself. Needs no buffered reader.
pub struct Unpacker<R> {
    inner: R,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    state: State,
    limit: u64,
    produced: u64,
    streams: u64,
    empty_streams: u64,
}

enum State {
    /// Before the first stream or after a whole one.
    Between,
    Inside(Decompress),
    Finished,
    Failed,
}

impl<R: Read> Unpacker<R> {
    /// Unpacks at most `limit` bytes; [`DEFAULT_UNPACK_LIMIT`] where nothing smaller is known.
    pub fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            state: State::Between,
            limit,
            produced: 0,
            streams: 0,
            empty_streams: 0,
        }
    }

    /// Unpacked bytes given so far.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// Whole streams so far.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// The reader below. At the end of file it was read to its end as well.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn read_capped(&mut self, into: &mut [u8]) -> Result<usize, CodecError> {
        if into.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(self.limit.saturating_sub(self.produced)).unwrap_or(usize::MAX);
        if room == 0 {
            let over = self.decode(&mut [0])? > 0;
            return if over { Err(CodecError::LimitExceeded { limit: self.limit }) } else { Ok(0) };
        }
        let wanted = into.len().min(room);
        let count = self.decode(into.get_mut(..wanted).unwrap_or_default())?;
        self.produced = self.produced.saturating_add(count as u64);
        Ok(count)
    }

    /// Fills some of `into`, which is not empty; 0 at the end of the last stream.
    fn decode(&mut self, into: &mut [u8]) -> Result<usize, CodecError> {
        loop {
            if self.start == self.end {
                self.fill()?;
            }
            let input = self.input.get(self.start..self.end).unwrap_or_default();
            let decompress = match &mut self.state {
                State::Finished => return Ok(0),
                State::Failed => return Err(CodecError::FailedBefore),
                State::Between if !input.is_empty() => {
                    self.state = State::Inside(Decompress::new(false));
                    continue;
                }
                State::Between if self.streams == 0 => return Err(CodecError::Empty),
                State::Between => {
                    self.state = State::Finished;
                    return Ok(0);
                }
                State::Inside(decompress) => decompress,
            };
            let (in_before, out_before) = (decompress.total_in(), decompress.total_out());
            let status = match decompress.decompress(input, into) {
                Ok(Status::MemNeeded) => return Err(CodecError::OutOfMemory),
                Ok(status) => status,
                Err(Error::DataMagic) if self.streams == 0 => return Err(CodecError::NotBzip2),
                Err(Error::DataMagic) => return Err(CodecError::TrailingGarbage { streams: self.streams }),
                Err(_) => return Err(CodecError::Corrupt),
            };
            let consumed = small(decompress.total_in() - in_before);
            let count = small(decompress.total_out() - out_before);
            let ended_empty = decompress.total_out() == 0;
            let was_end = input.is_empty();
            self.start += consumed;
            if status == Status::StreamEnd {
                self.end_stream(ended_empty)?;
            } else if consumed == 0 && count == 0 {
                return Err(if was_end { CodecError::Truncated } else { CodecError::Corrupt });
            }
            if count > 0 {
                return Ok(count);
            }
        }
    }

    fn end_stream(&mut self, empty: bool) -> Result<(), CodecError> {
        self.state = State::Between;
        self.streams += 1;
        self.empty_streams += u64::from(empty);
        if self.empty_streams > MAX_EMPTY_STREAMS { Err(CodecError::TooManyEmptyStreams) } else { Ok(()) }
    }

    fn fill(&mut self) -> Result<(), CodecError> {
        (self.start, self.end) = (0, 0);
        if matches!(self.state, State::Finished | State::Failed) {
            return Ok(());
        }
        loop {
            match self.inner.read(&mut self.input) {
                Ok(count) => {
                    self.end = count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CodecError::Io(error)),
            }
        }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read_capped(into).map_err(|error| {
            self.state = State::Failed;
            error.into()
        })
    }
}

impl<R> fmt::Debug for Unpacker<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker")
            .field("produced", &self.produced)
            .field("limit", &self.limit)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

/// Unpacks all of `packed` into `plain` and gives the number of bytes; see [`Unpacker`].
///
/// # Errors
/// [`CodecError`]; up to `limit` bytes are then written already.
pub fn unpack(packed: impl Read, plain: &mut impl Write, limit: u64) -> Result<u64, CodecError> {
    let mut unpacker = Unpacker::new(packed, limit);
    let mut buffer = vec![0; INPUT_BYTES];
    loop {
        let count = unpacker.read(&mut buffer)?;
        if count == 0 {
            return Ok(unpacker.produced());
        }
        plain.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

/// What one call consumed or produced: never more than the slices it was given.
fn small(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
