//! Packing: the plain bytes are cut into blocks, and each block becomes a bzip2 stream of its own.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Write},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use bzip2::{Action, Compress, Compression, Status};

use super::CodecError;
use crate::digest::{Sha256Digest, Sha256Hasher};

/// Plain bytes per stream. A level 9 bzip2 block takes 899,981 bytes after its first step, which can make text a little
/// longer (it writes a run of four as five bytes); with this room a stream almost always stays a single block.
pub const BLOCK_BYTES: usize = 890_000;

/// Bytes of a block for each level.
const LEVEL_BYTES: usize = 100_000;

/// The most threads one packer starts, whatever it is told.
pub const MAX_WORKERS: usize = 64;

/// Blocks given out and not yet written, per worker: one being packed and one waiting.
const BLOCKS_PER_WORKER: usize = 2;

/// The library's own default for how long it tries its fast sort on repetitive data (libbz2 manual, `workFactor`).
const WORK_FACTOR: u32 = 30;

/// Length and digest of the packed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedDigests {
    /// In bytes.
    pub size: u64,
    /// Of all streams together.
    pub sha256: Sha256Digest,
}

/// Packs what is written to it with bzip2 (level 9, or the lowest that holds a short block) and writes that to `W`, in order.
///
/// The output depends on the bytes alone: not on the number of workers, nor on how the input was cut into writes. No
/// input at all gives one empty stream. A worker takes about 12 MiB; nothing grows with the input. Blocks are written
/// to `W` by the thread that calls [`Write::write`], which also waits there while every worker is busy. [`Write::flush`] does not end a block, so it only flushes what `W`
/// has. Without [`Packer::finish`] the output is not a whole file; dropping a packer ends its threads.
pub struct Packer<W: Write> {
    inner: W,
    workers: usize,
    /// There from the first full block on: what is less is packed without a thread.
    pool: Option<Pool>,
    block: Vec<u8>,
    hasher: Sha256Hasher,
    size: u64,
    failed: bool,
}

impl<W: Write> Packer<W> {
    /// Packs with `workers` threads, at most [`MAX_WORKERS`], which are started with the second block.
    ///
    /// # Errors
    /// [`CodecError::OutOfMemory`] where there is no room for a block. Where the system gives no thread,
    /// [`CodecError::WorkerStart`] comes of a write.
    pub fn new(inner: W, workers: NonZeroUsize) -> Result<Self, CodecError> {
        let mut block = Vec::new();
        block.try_reserve_exact(BLOCK_BYTES).map_err(|_| CodecError::OutOfMemory)?;
        let workers = workers.get().min(MAX_WORKERS);
        Ok(Self { inner, workers, pool: None, block, hasher: Sha256Hasher::new(), size: 0, failed: false })
    }

    /// Packs and writes the rest, flushes, and gives the writer back with length and digest of all that was written.
    ///
    /// # Errors
    /// [`CodecError::Io`] from the writer, [`CodecError::WorkerLost`], and [`CodecError::FailedBefore`] after an earlier
    /// error.
    pub fn finish(mut self) -> Result<(W, PackedDigests), CodecError> {
        if self.failed {
            return Err(CodecError::FailedBefore);
        }
        if self.pool.is_none() {
            let packed = pack_block(&self.block)?;
            self.put(&packed)?;
        } else if !self.block.is_empty() {
            self.give_out()?;
        }
        while self.pool.as_ref().is_some_and(|pool| !pool.waiting.is_empty()) {
            self.write_first()?;
        }
        self.inner.flush().map_err(CodecError::from)?;
        Ok((self.inner, PackedDigests { size: self.size, sha256: self.hasher.finish() }))
    }

    /// Shared by the threads, so that a test sees when they are gone.
    #[cfg(test)]
    pub(super) fn pool_stop(&self) -> Option<Arc<AtomicBool>> {
        self.pool.as_ref().map(|pool| Arc::clone(&pool.stop))
    }

    fn give_out(&mut self) -> Result<(), CodecError> {
        while self.pool.as_ref().is_some_and(Pool::is_full) {
            self.write_first()?;
        }
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => none.insert(Pool::start(self.workers)?),
        };
        let next = pool.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        pool.give(std::mem::replace(&mut self.block, next))
    }

    fn write_first(&mut self) -> Result<(), CodecError> {
        let Some(first) = self.pool.as_mut().and_then(|pool| pool.waiting.pop_front()) else { return Ok(()) };
        let Done { mut plain, packed } = first.recv().map_err(|_| CodecError::WorkerLost)?;
        self.put(&packed?)?;
        plain.clear();
        if let Some(pool) = &mut self.pool {
            pool.spare.push(plain);
        }
        Ok(())
    }

    fn put(&mut self, packed: &[u8]) -> Result<(), CodecError> {
        self.inner.write_all(packed).map_err(CodecError::from)?;
        self.hasher.update(packed);
        self.size = self.size.saturating_add(packed.len() as u64);
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize, CodecError> {
        if self.block.len() >= BLOCK_BYTES {
            self.give_out()?;
        }
        let room = BLOCK_BYTES.saturating_sub(self.block.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        Ok(taken.len())
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(CodecError::FailedBefore.into());
        }
        let taken = self.take(bytes)?;
        self.failed = false;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("size", &self.size).field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A block on its way to a worker.
struct Job {
    plain: Vec<u8>,
    done: SyncSender<Done>,
}

/// A block on its way back; the plain buffer is used again.
struct Done {
    plain: Vec<u8>,
    packed: Result<Vec<u8>, CodecError>,
}

/// The worker threads and what they were given, in the order of the input.
struct Pool {
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    waiting: VecDeque<Receiver<Done>>,
    spare: Vec<Vec<u8>>,
    stop: Arc<AtomicBool>,
}

impl Pool {
    fn start(workers: usize) -> Result<Self, CodecError> {
        let (jobs, queue) = sync_channel(workers * BLOCKS_PER_WORKER);
        let queue = Arc::new(Mutex::new(queue));
        let stop = Arc::new(AtomicBool::new(false));
        let mut pool = Self {
            jobs: Some(jobs),
            workers: Vec::with_capacity(workers),
            waiting: VecDeque::with_capacity(workers * BLOCKS_PER_WORKER),
            spare: Vec::new(),
            stop: Arc::clone(&stop),
        };
        for _ in 0..workers {
            let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
            let thread = std::thread::Builder::new().name("pack".to_owned());
            pool.workers.push(thread.spawn(move || work(&queue, &stop)).map_err(CodecError::WorkerStart)?);
        }
        Ok(pool)
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= self.workers.len() * BLOCKS_PER_WORKER
    }

    fn give(&mut self, plain: Vec<u8>) -> Result<(), CodecError> {
        let (done, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or(CodecError::WorkerLost)?;
        jobs.send(Job { plain, done }).map_err(|_| CodecError::WorkerLost)?;
        self.waiting.push_back(result);
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked was reported as lost when its block was missed.
            drop(worker.join());
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, stop: &AtomicBool) {
    loop {
        // The lock is held while waiting: the next worker waits for the lock instead of the queue.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { plain, done }) = job else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let packed = pack_block(&plain);
        // Nobody waits any more when the packer was dropped.
        drop(done.send(Done { plain, packed }));
    }
}

/// The lowest level whose block surely holds so many bytes, else 9. The level is the size of a block and nothing else: the output is
/// the same but for the digit that names it, and whoever packs or unpacks a short file takes a fraction of the memory.
fn level(plain: usize) -> Compression {
    // The first step makes five bytes of four at worst, and the library leaves 19 bytes of a block free (`nblockMAX`).
    let longest = plain.saturating_add(plain / 4).saturating_add(20);
    Compression::new(u32::try_from(longest.div_ceil(LEVEL_BYTES)).unwrap_or(9).clamp(1, 9))
}

/// One whole bzip2 stream.
fn pack_block(plain: &[u8]) -> Result<Vec<u8>, CodecError> {
    // The libbz2 manual promises that output of 101 % and 600 bytes is always enough for one call.
    let mut packed = Vec::with_capacity(plain.len() + plain.len() / 100 + 600);
    let mut compress = Compress::new(level(plain.len()), WORK_FACTOR);
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(taken..).unwrap_or_default();
        match compress.compress_vec(rest, &mut packed, Action::Finish) {
            Ok(Status::StreamEnd) => return Ok(packed),
            Ok(_) => packed.reserve(BLOCK_BYTES / 8),
            Err(_) => return Err(CodecError::WorkerLost),
        }
    }
}
