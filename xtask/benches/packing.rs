//! Packing a table: our packer beside the `bzip2` command, on the same generated CSV.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Write as _},
    num::NonZeroUsize,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use towpath_transfer::codec::Packer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of CSV: about 700,000 sales lines, enough for dozens of bzip2 blocks per core.
const PLAIN_BYTES: usize = 48 * 1024 * 1024;
/// Each side runs this often, in turn; the best run counts, because all else that a machine does only makes a run slower.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plain = folder.path().join("sales.csv");
    fs::write(&plain, sales(PLAIN_BYTES))?;
    let (our_file, their_file) = (folder.path().join("ours.bz2"), folder.path().join("theirs.bz2"));
    let workers = thread::available_parallelism()?;

    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        ours = ours.min(timed(|| pack(&plain, &our_file, workers))?);
        theirs = theirs.min(timed(|| bzip2(&["-9", "-c"], &plain, File::create(&their_file)?.into()))?);
    }
    bzip2(&["-t"], &our_file, Stdio::null())?;

    println!("packing {} of CSV, best of {ROUNDS}:", mib(PLAIN_BYTES as f64));
    report(&format!("our packer, {workers} workers"), ours, &our_file)?;
    report("bzip2 -9", theirs, &their_file)?;
    println!("  ratio {:.2}: our packer takes 1/{0:.2} of the time", theirs.as_secs_f64() / ours.as_secs_f64());
    Ok(())
}

fn report(name: &str, time: Duration, packed: &Path) -> Result<()> {
    let speed = mib(PLAIN_BYTES as f64 / time.as_secs_f64());
    println!("  {name:24} {:6.2} s  {speed}/s  packed {}", time.as_secs_f64(), mib(fs::metadata(packed)?.len() as f64));
    Ok(())
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / (1024.0 * 1024.0))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn pack(plain: &Path, packed: &Path, workers: NonZeroUsize) -> Result<()> {
    let mut packer = Packer::new(File::create(packed)?, workers)?;
    io::copy(&mut File::open(plain)?, &mut packer)?;
    let (mut file, _) = packer.finish()?;
    Ok(file.flush()?)
}

fn bzip2(arguments: &[&str], input: &Path, output: Stdio) -> Result<()> {
    let status = Command::new("bzip2").args(arguments).arg(input).stdin(Stdio::null()).stdout(output).status();
    let status = status.map_err(|e| format!("starting bzip2 failed ({e}): apt-get install bzip2"))?;
    if status.success() { Ok(()) } else { Err(format!("bzip2 {} ended with {status}", arguments.join(" ")).into()) }
}

/// Sales lines as an ERP has them: rising numbers, a few thousand items, dates that repeat, prices with two decimals.
fn sales(bytes: usize) -> Vec<u8> {
    let mut csv = Vec::with_capacity(bytes + 128);
    csv.extend_from_slice(b"order,line,item,date,quantity,price,text\r\n");
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    for row in 0_u64.. {
        if csv.len() >= bytes {
            break;
        }
        let (item, day, quantity, cents) = (next(4_000), next(1_460), next(48) + 1, next(90_000) + 99);
        let date = format!("20{}-{:02}-{:02}", 22 + day / 365, day % 365 / 31 + 1, day % 28 + 1);
        let (order, line) = (100_000 + row / 4, row % 4 + 1);
        let text = format!(
            "{order},{line},A-{item:05},{date},{quantity}.000,{}.{:02},\"Größe {}\"\r\n",
            cents / 100,
            cents % 100,
            item % 40
        );
        csv.extend_from_slice(text.as_bytes());
    }
    csv
}
