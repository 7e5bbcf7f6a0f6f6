//! The command `cargo xtask simulate`.
#![expect(clippy::print_stdout, reason = "it answers whoever has called it")]

use clap::Parser;
use towpath_transfer::Clock as _;

use crate::{Options, Outcome, run_many};

/// Runs a whole installation with everything that can go wrong, as each seed draws it. The same seed is the same every time.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Cli {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first on; as many at once as there are cores.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// At most so many faults, the first ones of each seed, and no outages: to find which of them a failure takes.
    #[arg(long)]
    faults: Option<u64>,
    /// Tell the story of every seed, and not only of those that fail.
    #[arg(long)]
    story: bool,
    /// Tell every call across a seam.
    #[arg(long)]
    trace: bool,
    /// One JSON object for each seed, and no text.
    #[arg(long)]
    json: bool,
}

/// Runs the seeds that the command line names, and tells the story of those that fail. Whether none did.
#[must_use]
pub fn answer() -> bool {
    let cli = Cli::parse();
    let clock = towpath_journal::system::SystemClock::new();
    let options = Options { most_faults: cli.faults, traced: cli.trace, broken: None };
    let (mut failed, mut faults, mut transfers) = (Vec::new(), 0, 0);
    run_many(cli.seed..cli.seed.saturating_add(cli.seeds), &options, |outcome| {
        faults += outcome.faults;
        transfers += outcome.transfers;
        tell(&cli, &outcome);
        if !outcome.wrong.is_empty() {
            failed.push(outcome.seed);
        }
    });
    if !cli.json {
        let took = clock.monotonic().as_secs_f64();
        let speed = cli.seeds as f64 / took.max(f64::MIN_POSITIVE);
        println!(
            "{} seeds, {transfers} transfers, {faults} faults, {} failed {failed:?}, {took:.1} s, {speed:.1} seeds/s",
            cli.seeds,
            failed.len()
        );
    }
    failed.is_empty()
}

fn tell(cli: &Cli, outcome: &Outcome) {
    if cli.json {
        let told = !outcome.wrong.is_empty() || cli.story;
        println!(
            "{}",
            serde_json::json!({
                "seed": outcome.seed,
                "ok": outcome.wrong.is_empty(),
                "wrong": outcome.wrong,
                "faults": outcome.faults,
                "transfers": outcome.transfers,
                "simulated_seconds": outcome.lasted.as_secs(),
                "story": told.then_some(&outcome.story),
                "replay": outcome.replay(),
            })
        );
    } else if cli.story || !outcome.wrong.is_empty() {
        print!("{outcome}");
    }
}
