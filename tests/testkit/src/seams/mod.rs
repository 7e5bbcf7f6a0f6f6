//! A whole installation in one process, over the seams: no network, and no disk but for the databases of ERP and app and
//! for the pinned keys. Time stands still until every program waits, and a crash loses whatever was not synced.

mod agent;
mod door;
mod far;
mod keys;
mod machine;
mod power;
mod receiver;
mod relay;
mod stop;
mod wiring;
mod world;

use std::path::Path;

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_transport::files::{MemoryFiles, read_whole};

pub use agent::{Agent, DELIVERY, KIND};
pub use door::{Caller, Callers, Door, Line, Offer, RelayDoor, Sessions, SpoolConnect};
pub use far::ViewStore;
pub use keys::DiskKeys;
pub use machine::{Backup, Busy, Machine, Nature, Pace, Start};
pub use power::{Life, PoweredFiles};
pub use receiver::Receiver;
pub use relay::Relay;
pub use stop::{Spot, StopAt};
pub use wiring::{Fate, Host, Plain, Wiring};
pub use world::{Ends, Seams, Signed};

/// The largest file that tests look into, in bytes.
const MAX_LOOK: u64 = 1 << 24;

/// A file of a machine, where it is there.
fn read(disk: &MemoryFiles, path: &Path) -> Option<Vec<u8>> {
    read_whole(disk, path, MAX_LOOK).ok()
}

/// Every row that a query finds in a database, its columns as text and joined by `|`.
///
/// # Panics
/// Where the query fails.
pub async fn rows(database: &Path, sql: &str) -> Vec<String> {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    rows_of(&mut connection, sql).await
}

/// [`rows`] over a connection that is there already.
///
/// # Panics
/// Where the query fails.
pub async fn rows_of(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let found: Vec<_> = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch(connection).try_collect().await.unwrap();
    let text = |row: &sqlx::sqlite::SqliteRow| {
        let columns = (0..row.len()).map(|at| row.try_get_unchecked::<Option<String>, _>(at).unwrap());
        columns.map(|text| text.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join("|")
    };
    found.iter().map(text).collect()
}
