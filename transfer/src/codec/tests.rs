use std::{
    error::Error as _,
    io::{self, Read, Write},
    num::NonZeroUsize,
    path::Path,
    process::{Command, Stdio},
};

use base64::Engine as _;
use proptest::prelude::*;

use super::*;
use crate::{Disposition, digest::Sha256Digest};

/// 300 MiB of zeros by `bzip2 -9`: 242 bytes.
const BOMB: &str = "QlpoOTFBWSZTWQ4J4t8BX45AAMAAAAggADCATUZCoCWpCoCXMUFZJlNZDgni3wFfjkAAwAAACCAAMIBNRkKgJakKgJcxQVkmU1kOCeLfAV+OQADAAAAI\
IAAwgE1GQqAlqQqAlzFBWSZTWQ4J4t8BX45AAMAAAAggADCATUZCoCWpCoCXMUFZJlNZDgni3wFfjkAAwAAACCAAMIBNRkKgJakKgJcxQVkmU1kOCeLf\
AV+OQADAAAAIIAAwgE1GQqAlqQqAlzFBWSZTWaJ1bucBLBJABMAAAAEACCAAMMwFKaYiBSNiRApHi7kinChIKup7h4A=";
const MIB: u64 = 1024 * 1024;

fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn packed(plain: &[u8], threads: usize, piece: usize) -> Vec<u8> {
    let mut packer = Packer::new(Vec::new(), workers(threads)).unwrap();
    for part in plain.chunks(piece) {
        packer.write_all(part).unwrap();
    }
    let (bytes, digests) = packer.finish().unwrap();
    assert_eq!(digests, PackedDigests { size: bytes.len() as u64, sha256: Sha256Digest::of(&bytes) });
    bytes
}

fn unpacked(packed: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut plain = Vec::new();
    let count = unpack(packed, &mut plain, DEFAULT_UNPACK_LIMIT)?;
    assert_eq!(count, plain.len() as u64);
    Ok(plain)
}

/// Text that is neither trivial nor incompressible.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut text = Vec::with_capacity(bytes + 32);
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write!(text, "{},item {},0000.{}\r\n", state >> 12, state >> 28, state >> 25).unwrap();
    }
    text.truncate(bytes);
    text
}

fn bomb() -> Vec<u8> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(BOMB).unwrap();
    assert_eq!(bytes.len(), 242);
    bytes
}

/// Runs one of the bzip2 programs; a machine without them fails the test and says what to install.
fn run(program: &str, arguments: &[&str], file: &Path) -> Vec<u8> {
    let output =
        Command::new(program).args(arguments).arg(file).stdin(Stdio::null()).output().unwrap_or_else(|error| {
            panic!("{program} cannot be run ({error}): install it, on Debian with `apt-get install bzip2`")
        });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn output_depends_on_the_bytes_alone() {
    let plain = sample(3 * BLOCK_BYTES + 17);
    let one = packed(&plain, 1, plain.len());
    assert_eq!(packed(&plain, 3, 4_093), one);
    assert_eq!(packed(&plain, MAX_WORKERS + 1, 1_000_000), one);
    let mut unpacker = Unpacker::new(one.as_slice(), DEFAULT_UNPACK_LIMIT);
    let mut back = Vec::new();
    unpacker.read_to_end(&mut back).unwrap();
    assert!(back == plain);
    assert_eq!((unpacker.streams(), unpacker.produced()), (4, plain.len() as u64));
}

#[test]
fn whole_blocks_leave_no_empty_stream_and_nothing_gives_one() {
    let plain = sample(2 * BLOCK_BYTES);
    let mut unpacker = Unpacker::new(io::Cursor::new(packed(&plain, 2, 8_192)), DEFAULT_UNPACK_LIMIT);
    io::copy(&mut unpacker, &mut io::sink()).unwrap();
    assert_eq!(unpacker.streams(), 2);

    let empty = packed(b"", 2, 1);
    assert_eq!(empty.len(), 14);
    assert!(unpacked(&empty).unwrap().is_empty());
}

#[test]
fn a_flush_cuts_no_block() {
    let mut packer = Packer::new(Vec::new(), workers(1)).unwrap();
    for part in [&b"one "[..], b"two"] {
        packer.write_all(part).unwrap();
        packer.flush().unwrap();
    }
    assert_eq!(packer.finish().unwrap().0, packed(b"one two", 1, 7));
}

#[test]
fn bzip2_and_we_read_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.bz2");
    let plain = sample(2 * BLOCK_BYTES + 1);
    for plain in [&plain[..], b"", b"x"] {
        std::fs::write(&path, packed(plain, 2, 100_000)).unwrap();
        run("bunzip2", &["-t"], &path);
        assert!(run("bzip2", &["-d", "-c"], &path) == plain);
    }

    let source = folder.path().join("plain");
    let mut several = Vec::new();
    let mut expected = Vec::new();
    for (level, bytes) in [("-1", 1_500_000), ("-9", 0), ("-5", 77), ("-9", 1_000_000)] {
        let plain = sample(bytes);
        std::fs::write(&source, &plain).unwrap();
        several.extend(run("bzip2", &["-c", level], &source));
        expected.extend(plain);
    }
    assert!(unpacked(&several).unwrap() == expected);
}

#[test]
fn what_is_not_whole_is_refused() {
    let good = packed(b"some content", 1, 100);
    assert!(matches!(unpacked(b""), Err(CodecError::Empty)));
    assert!(matches!(unpacked(b"some content"), Err(CodecError::NotBzip2)));
    assert!(matches!(unpacked(b"BZh0"), Err(CodecError::NotBzip2)));
    for cut in 1..good.len() {
        assert!(matches!(unpacked(&good[..cut]), Err(CodecError::Truncated)), "{cut}");
        let second = [&good[..], &good[..cut]].concat();
        assert!(matches!(unpacked(&second), Err(CodecError::Truncated)), "{cut} of the second");
    }
    for tail in [&b"\n"[..], b"\0", b"garbage", b"BZ2"] {
        let longer = [&good[..], &good, tail].concat();
        assert!(matches!(unpacked(&longer), Err(CodecError::TrailingGarbage { streams: 2 })), "{tail:?}");
    }
    for at in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[at / 8] ^= 1 << (at % 8);
        // The level and the padding of the last byte carry no content.
        if let Ok(plain) = unpacked(&changed) {
            assert_eq!(plain, b"some content", "bit {at}");
        }
    }
}

#[test]
fn the_limit_holds_to_the_byte() {
    let plain = sample(BLOCK_BYTES + 10);
    let bytes = packed(&plain, 1, plain.len());
    let size = plain.len() as u64;
    for limit in [size, size + 1] {
        assert_eq!(unpack(bytes.as_slice(), &mut io::sink(), limit).unwrap(), size);
    }
    for limit in [0, 1, BLOCK_BYTES as u64, size - 1] {
        let mut out = Vec::new();
        let error = unpack(bytes.as_slice(), &mut out, limit).unwrap_err();
        assert!(matches!(error, CodecError::LimitExceeded { limit: named } if named == limit));
        assert!(error.to_string().contains(&limit.to_string()));
        assert!(out.len() as u64 <= limit);
    }
    assert_eq!(unpack(packed(b"", 1, 1).as_slice(), &mut io::sink(), 0).unwrap(), 0);
}

#[test]
fn empty_streams_are_counted() {
    let empty = packed(b"", 1, 1);
    let most = empty.repeat(usize::try_from(MAX_EMPTY_STREAMS).unwrap());
    assert!(unpacked(&most).unwrap().is_empty());
    assert!(matches!(unpacked(&[most, empty].concat()), Err(CodecError::TooManyEmptyStreams)));
}

#[test]
fn a_failed_reader_stays_failed() {
    let mut unpacker = Unpacker::new(io::Cursor::new(packed(b"0123456789", 1, 10)), 4);
    let mut out = Vec::new();
    assert_eq!(unpacker.read_to_end(&mut out).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    let again = CodecError::from(unpacker.read(&mut [0; 8]).unwrap_err());
    assert!(matches!(again, CodecError::FailedBefore));
    assert_eq!(out, b"0123");
}

/// Set in the process that [`in_a_process_of_its_own`] starts.
const CHILD: &str = "TOWPATH_TEST_CHILD";
const MEMORY_LIMIT: u64 = 64 * MIB;

/// Whether this is the process that should do the work of the test and measure its own memory; if it is not, starts
/// that, because other tests run in this one.
fn in_a_process_of_its_own(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let name = format!("codec::tests::{test}");
    let output = child.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// The most memory this process has held so far; only Linux says.
fn peak_memory() -> u64 {
    if !cfg!(target_os = "linux") {
        return 0;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn packing_much_takes_little_memory() {
    if in_a_process_of_its_own("packing_much_takes_little_memory") {
        let mut packer = Packer::new(Counted(0), workers(2)).unwrap();
        io::copy(&mut io::repeat(b'x').take(200 * MIB), &mut packer).unwrap();
        let (written, digests) = packer.finish().unwrap();
        assert_eq!(written.0, digests.size);
        assert!(peak_memory() < MEMORY_LIMIT, "{}", peak_memory());
    }
}

#[test]
fn one_block_is_packed_without_a_thread() {
    let plain = sample(BLOCK_BYTES);
    let mut packer = Packer::new(Vec::new(), workers(3)).unwrap();
    packer.write_all(&plain).unwrap();
    assert!(packer.pool_stop().is_none());
    let (one, _) = packer.finish().unwrap();
    let mut packer = Packer::new(Vec::new(), workers(3)).unwrap();
    packer.write_all(&plain).unwrap();
    packer.write_all(&plain).unwrap();
    assert!(packer.pool_stop().is_some());
    assert_eq!(packer.finish().unwrap().0, [one.clone(), one].concat());
}

#[test]
fn a_short_block_is_packed_as_by_level_9_but_for_the_digit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    // Fours of one byte are what becomes longest in the first step.
    let fours = |bytes: usize| (0..bytes).map(|at| b"ab"[at / 4 % 2]).collect::<Vec<u8>>();
    for (plain, level) in [
        (Vec::new(), b'1'),
        (sample(1_000), b'1'),
        (fours(79_984), b'1'),
        (fours(79_988), b'2'),
        (sample(400_000), b'6'),
        (fours(719_984), b'9'),
        (sample(BLOCK_BYTES), b'9'),
    ] {
        std::fs::write(&path, &plain).unwrap();
        let mut ours = packed(&plain, 1, plain.len().max(1));
        assert_eq!(std::mem::replace(&mut ours[3], b'9'), level, "{} bytes", plain.len());
        assert!(ours == run("bzip2", &["-9", "-c"], &path), "{} bytes", plain.len());
    }
}

#[test]
fn a_dropped_packer_ends_its_threads() {
    let mut packer = Packer::new(Vec::new(), workers(3)).unwrap();
    packer.write_all(&sample(6 * BLOCK_BYTES)).unwrap();
    let queue = std::sync::Arc::downgrade(&packer.pool_stop().unwrap());
    drop(packer);
    assert_eq!(queue.strong_count(), 0);
}

#[test]
fn a_bomb_stops_at_the_limit_in_little_memory() {
    if !in_a_process_of_its_own("a_bomb_stops_at_the_limit_in_little_memory") {
        return;
    }
    let limit = 250 * MIB;
    let mut written = Counted(0);
    let error = unpack(bomb().as_slice(), &mut written, limit).unwrap_err();
    assert!(matches!(error, CodecError::LimitExceeded { .. }));
    assert_eq!(written.0, limit);
    assert_eq!(unpack(bomb().as_slice(), &mut Counted(0), 300 * MIB).unwrap(), 300 * MIB);
    assert!(peak_memory() < MEMORY_LIMIT, "{}", peak_memory());
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes so many bytes and is full then.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_and_never_looks_finished() {
    let plain = sample(8 * BLOCK_BYTES);
    let mut packer = Packer::new(Full(100_000), workers(2)).unwrap();
    let failure = Failure::from(CodecError::from(packer.write_all(&plain).unwrap_err()));
    assert_eq!((failure.code(), failure.disposition()), (Code::DiskFull, Disposition::Retry));
    assert!(matches!(packer.write(b"x").map_err(CodecError::from), Err(CodecError::FailedBefore)));
    assert!(matches!(packer.finish(), Err(CodecError::FailedBefore)));

    let mut packer = Packer::new(Full(10), workers(1)).unwrap();
    packer.write_all(b"short").unwrap();
    assert!(matches!(packer.finish(), Err(CodecError::Io(_))));
}

#[test]
fn failures_have_code_and_disposition() {
    let of = |error: CodecError| {
        let failure = error.into_failure("unpacking items.csv.bz2 failed");
        assert!(failure.source().is_some());
        (failure.code(), failure.disposition())
    };
    assert_eq!(of(unpacked(b"").unwrap_err()), (Code::UnpackFailed, Disposition::Park));
    assert_eq!(of(CodecError::LimitExceeded { limit: 1 }), (Code::LimitExceeded, Disposition::Park));
    assert_eq!(of(CodecError::Io(io::ErrorKind::ConnectionReset.into())), (Code::FileFailed, Disposition::Retry));
    assert_eq!(of(CodecError::WorkerLost), (Code::Internal, Disposition::Retry));
}

/// Gives one byte at a time and is interrupted in between.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.0.read(&mut into[..1])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_round_trip(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..4)) {
        let file: Vec<u8> = parts.iter().flat_map(|part| packed(part, 2, 97)).collect();
        if parts.is_empty() {
            prop_assert!(unpacked(&file).is_err());
        } else {
            prop_assert_eq!(unpacked(&file).unwrap(), parts.concat());
            let mut back = Vec::new();
            unpack(Slow(&file, false), &mut back, 10_000).unwrap();
            prop_assert_eq!(back, parts.concat());
        }
    }

    #[test]
    fn hostile_bytes_end_within_the_limit(tail in proptest::collection::vec(any::<u8>(), 0..400), keep in 0usize..242) {
        let file = [&bomb()[..keep], &tail].concat();
        let mut out = Counted(0);
        let _ = unpack(file.as_slice(), &mut out, 100_000);
        prop_assert!(out.0 <= 100_000);
    }
}
