//! Data that does not compress: what a transfer of it carries is about as long as the data.

use std::path::Path;

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_transfer::{Entropy as _, clock::SeededEntropy};

use crate::world::block_on;

/// The one table of a database of noise.
pub const NOISE: &str = "noise";
/// Bytes of one of its values.
const ROW: usize = 8 * 1024;
/// Six random bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// So many random bytes, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    SeededEntropy::new(seed).fill(&mut noise);
    noise
}

/// Makes, or fills anew, an ERP database whose only table is random text, about `bytes` of it once packed.
///
/// # Panics
/// Where it cannot be written.
pub fn noisy_erp(path: &Path, seed: u64, bytes: usize) {
    // Random letters carry six bits in a byte, which bzip2 finds.
    let letters: Vec<u8> =
        noise(seed, bytes * 4 / 3).iter().filter_map(|byte| LETTERS.get(usize::from(byte & 63)).copied()).collect();
    block_on(async {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut erp = SqliteConnection::connect_with(&options).await.unwrap();
        let table = "CREATE TABLE IF NOT EXISTS noise (id INTEGER PRIMARY KEY, body TEXT NOT NULL)";
        sqlx::query(table).execute(&mut erp).await.unwrap();
        let mut all = erp.begin().await.unwrap();
        sqlx::query("DELETE FROM noise").execute(&mut *all).await.unwrap();
        for (id, row) in (1i64..).zip(letters.chunks(ROW)) {
            let body = std::str::from_utf8(row).unwrap();
            sqlx::query("INSERT INTO noise VALUES (?, ?)").bind(id).bind(body).execute(&mut *all).await.unwrap();
        }
        all.commit().await.unwrap();
        erp.close().await.unwrap();
    });
}

/// A job over such a database.
#[must_use]
pub fn noisy_job(job: &str, erp: &Path) -> String {
    format!(
        "[[job]]\nname = \"{job}\"\nschedule = \"02:00\"\n\n[job.source]\nkind = \"sqlite\"\npath = '{}'\n\n\
         [[job.table]]\nname = \"{NOISE}\"\n",
        erp.display()
    )
}
