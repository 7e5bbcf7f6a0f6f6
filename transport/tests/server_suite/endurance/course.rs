//! The course that every client runs: files there and back, each compared, each within its time.

use std::{
    fmt,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use towpath_transfer::{
    Clock as _,
    digest::{Sha256Digest, Sha256Hasher},
};

use super::clients::{Client, Session};
use crate::support::RealClock;

/// Different files, so that no transfer can pass by what an earlier one left.
const FILES: u64 = 3;
/// Rounds of one connection. Each side asks for new keys after a GiB, so that this many pass several key exchanges in either direction.
const SESSION_ROUNDS: usize = 25;
/// How much is read or written at once.
const BLOCK_BYTES: usize = 1 << 20;

struct Original {
    path: PathBuf,
    bytes: u64,
    digest: Sha256Digest,
}

/// Where the files are: what the server shows, and the client's side.
pub(super) struct Ground {
    pub(super) root: tempfile::TempDir,
    local: tempfile::TempDir,
    originals: Vec<Original>,
}

impl Ground {
    /// Makes the originals, of `bytes` and a little more each.
    pub(super) fn new(bytes: u64) -> Self {
        let (root, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let original = |number: u64| {
            let path = local.path().join(format!("original{number}"));
            // Lengths that fall on no boundary of requests, frames or blocks.
            let bytes = bytes + number * 12_345;
            let digest = write_noise(&path, bytes, number + 1);
            Original { path, bytes, digest }
        };
        let originals = (0..FILES).map(original).collect();
        Self { root, local, originals }
    }
}

/// Bytes that no shift or repetition leaves equal.
fn write_noise(path: &Path, bytes: u64, seed: u64) -> Sha256Digest {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let (mut file, mut hasher, mut left) = (std::fs::File::create(path).unwrap(), Sha256Hasher::new(), bytes);
    while left > 0 {
        let step = usize::try_from(left).unwrap().min(BLOCK_BYTES);
        let block: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(step).collect();
        hasher.update(&block);
        file.write_all(&block).unwrap();
        left -= step as u64;
    }
    hasher.finish()
}

fn digest(path: &Path) -> std::io::Result<Sha256Digest> {
    let (mut file, mut hasher, mut block) = (std::fs::File::open(path)?, Sha256Hasher::new(), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&block[..read]),
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Put,
    Get,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
        })
    }
}

/// How long the transfers of one direction took, without the comparisons.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) transfers: usize,
    bytes: u64,
    total: Duration,
    slowest: Duration,
}

impl Figures {
    fn add(&mut self, bytes: u64, time: Duration) {
        self.transfers += 1;
        self.bytes += bytes;
        self.total += time;
        self.slowest = self.slowest.max(time);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.total.as_secs_f64();
        let rate = self.bytes as f64 / 1e6 / seconds;
        let slowest = self.slowest.as_secs_f64();
        write!(f, "{} transfers in {seconds:.1} s, {rate:.0} MB/s, the slowest {slowest:.2} s", self.transfers)
    }
}

/// Lets `client` carry a file to the server and back, `rounds` times, and returns the figures of `put` and `get`.
///
/// # Errors
/// The first transfer that fails, that has not ended after `bound`, or whose copy differs: client, direction and number.
pub(super) async fn run(client: &dyn Client, ground: &Ground, rounds: usize, bound: Duration) -> Result<[Figures; 2], String> {
    let clock = RealClock::new();
    let mut figures = [Figures::default(), Figures::default()];
    let mut session = None;
    for number in 1..=rounds {
        let mut here = match session.take() {
            Some(session) => session,
            None => {
                let what = format!("{}: logging in for number {number}", client.name());
                within(bound, client.log_in()).await.map_err(|problem| format!("{what}: {problem}"))?
            }
        };
        let original = &ground.originals[number % ground.originals.len()];
        for (direction, figures) in [Direction::Put, Direction::Get].into_iter().zip(&mut figures) {
            let start = clock.monotonic();
            carry(here.as_mut(), direction, ground, original, bound)
                .await
                .map_err(|problem| format!("{}: {direction} {number} of {rounds}: {problem}", client.name()))?;
            figures.add(original.bytes, clock.monotonic() - start);
            compare(&copy(direction, ground), original)
                .map_err(|problem| format!("{}: {direction} {number} of {rounds}: {problem}", client.name()))?;
        }
        for direction in [Direction::Put, Direction::Get] {
            std::fs::remove_file(copy(direction, ground)).unwrap();
        }
        if number % SESSION_ROUNDS == 0 || number == rounds {
            let what = format!("{}: logging out after number {number}", client.name());
            within(bound, here.log_out()).await.map_err(|problem| format!("{what}: {problem}"))?;
            let [put, get] = &figures;
            println!("{}: put {put}; get {get}", client.name());
        } else {
            session = Some(here);
        }
    }
    Ok(figures)
}

/// Where a transfer of this direction leaves its copy.
fn copy(direction: Direction, ground: &Ground) -> PathBuf {
    match direction {
        Direction::Put => ground.root.path().join("copy"),
        Direction::Get => ground.local.path().join("copy"),
    }
}

async fn carry(
    session: &mut dyn Session,
    direction: Direction,
    ground: &Ground,
    original: &Original,
    bound: Duration,
) -> Result<(), String> {
    let done = match direction {
        Direction::Put => within(bound, session.put(&original.path, "/copy")).await,
        Direction::Get => within(bound, session.get("/copy", &copy(direction, ground))).await,
    };
    done.map_err(|problem| {
        let there = std::fs::metadata(copy(direction, ground)).map_or(0, |copy| copy.len());
        format!("{problem} ({there} of {} bytes arrived)", original.bytes)
    })
}

async fn within<T>(bound: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("it stands still: no end within {bound:?}"));
    tokio::time::timeout(bound, work).await.unwrap_or_else(late)
}

fn compare(copy: &Path, original: &Original) -> Result<(), String> {
    match digest(copy) {
        Ok(digest) if digest == original.digest => Ok(()),
        Ok(digest) => {
            let bytes = std::fs::metadata(copy).map_or(0, |copy| copy.len());
            let Original { bytes: expected, digest: right, .. } = original;
            Err(format!("the copy differs: {bytes} bytes with SHA-256 {digest} instead of {expected} with {right}"))
        }
        Err(error) => Err(format!("there is no copy: {error}")),
    }
}
