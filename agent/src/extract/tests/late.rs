//! Writers that commit late, with equal timestamps, while extracts come and go: in the end the app has what the ERP has.

use towpath_transfer::{Entropy as _, clock::SeededEntropy};

use super::{
    app::{Chain, incremental},
    *,
};
use crate::config::Overlap;

/// Ticks that a change may wait between the time it is stamped with and its commit.
const LATE: u64 = 7;
/// So many ticks a run has at least: the changes of one tick, which have the same stamp, are as many as that takes.
const TICKS: u64 = 50;
/// One extract in so many ticks.
const SELDOM: u64 = 11;
/// Seconds of a tick. The stamps are as coarse as that.
const TICK: u64 = 60;

/// Numbers by chance, the same for each seed.
struct Chance(SeededEntropy);

impl Chance {
    fn below(&self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

/// The ERP's clock, its rows, and what is written but not committed.
struct Writers {
    chance: Chance,
    tick: u64,
    at_once: u64,
    rows: u64,
    pending: Vec<(u64, String)>,
}

impl Writers {
    /// The time of a change: 2026-03-01 and as many minutes as ticks have passed, as a timestamp and as a number.
    fn stamp(&self) -> String {
        let (days, minutes) = (self.tick / 1_440, self.tick % 1_440);
        format!("'2026-03-{:02} {:02}:{:02}:00', {}", 1 + days, minutes / 60, minutes % 60, self.tick)
    }

    /// Time passes: some write, and what is due is committed, in the order in which it is due and not in that of its stamps.
    fn tick(&mut self) -> String {
        self.tick += 1;
        let stamp = self.stamp();
        for _ in 0..self.chance.below(self.at_once) {
            let due = self.tick + self.chance.below(LATE);
            let known = self.rows.max(1);
            let sql = match self.chance.below(10) {
                0 => format!("DELETE FROM t WHERE id = {};", self.chance.below(known)),
                1..=3 => {
                    let (id, value) = (self.chance.below(known), self.chance.below(1_000));
                    format!("INSERT OR REPLACE INTO t SELECT id, '{value}.25', {stamp} FROM t WHERE id = {id};")
                }
                _ => {
                    self.rows += 1;
                    format!("INSERT OR REPLACE INTO t VALUES ({}, '{}.5', {stamp});", self.rows, self.chance.below(1_000))
                }
            };
            self.pending.push((due, sql));
        }
        self.committed()
    }

    fn committed(&mut self) -> String {
        let tick = self.tick;
        let mut sql = String::from("BEGIN;");
        self.pending.retain(|(due, change)| {
            let is_due = *due <= tick;
            if is_due {
                sql.push_str(change);
            }
            !is_due
        });
        sql.push_str("COMMIT;");
        sql
    }
}

/// One run: changes until there were so many rows, extracts in between, some of which nobody imports, and a last one that
/// compares the keys.
async fn run_of(seed: u64, rows: u64) {
    let overlap =
        |by_number: bool| if by_number { Overlap::Count(LATE) } else { Overlap::Time(Duration::from_secs(LATE * TICK)) };
    let by_number = seed.is_multiple_of(2);
    let watermark = if by_number { "no" } else { "changed" };
    let mut chain = Chain::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, value DECIMAL(9,2), changed TIMESTAMP, no BIGINT);",
        vec![incremental("t", &["id"], &[watermark], overlap(by_number))],
    )
    .await;
    let mut writers =
        Writers { chance: Chance(SeededEntropy::new(seed)), tick: 0, at_once: rows / TICKS, rows: 0, pending: Vec::new() };
    let mut connection = chain.place.connect().await;
    // Tests need no disk that survives.
    sqlx::raw_sql("PRAGMA synchronous = OFF").execute(&mut connection).await.unwrap();
    let mut merged = 0;
    while writers.rows < rows {
        let sql = writers.tick();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        chain.later(Duration::from_secs(TICK));
        if writers.chance.below(SELDOM) == 0 {
            let manifest = chain.read(false).await.unwrap();
            merged += u32::from(manifest.files[0].base.is_some() && !manifest.files[0].unchanged);
            if writers.chance.below(4) > 0 {
                chain.import(&manifest);
            }
        }
    }
    writers.tick += LATE;
    let rest = writers.committed();
    assert!(writers.pending.is_empty());
    sqlx::raw_sql(AssertSqlSafe(rest)).execute(&mut connection).await.unwrap();
    chain.later(Duration::from_secs(8 * 24 * 3_600));
    let last = chain.send().await;
    assert!(merged > 0, "seed {seed}: nothing was merged");
    assert!(last.files.len() == 2 || last.files[0].base.is_none(), "seed {seed}: the keys were not compared");
    chain.previous = None;
    let erp = chain.read(true).await.unwrap();
    let plain = std::fs::read(chain.place.folder.join("t.csv")).unwrap();
    let mut expected = read_plain(&plain, &erp.files[0]);
    expected.sort();
    let mut found = chain.app.rows("t");
    found.sort();
    assert!(found == expected, "seed {seed}: the app has not what the ERP has");
}

#[tokio::test]
async fn late_commits_and_equal_stamps_lose_nothing() {
    for seed in 1..=4 {
        run_of(seed, 600).await;
    }
}

#[tokio::test]
async fn long_late_commits_and_equal_stamps_lose_nothing() {
    for seed in 1..=100 {
        run_of(seed, 10_000).await;
    }
}
