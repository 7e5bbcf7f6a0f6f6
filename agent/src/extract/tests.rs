//! The whole extract over real SQLite files.

mod app;
mod failures;
mod incremental;
mod late;
mod personal;
mod pipeline;
mod sample;
mod servers;
mod snapshots;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Failure,
    clock::ManualClock,
    codec::unpack,
    csv,
    decimal::DecimalSum,
    digest::{FileHasher, Sha256Digest},
    manifest::{FileEntry, Manifest, Table},
};
use towpath_transport::files::{Disk, FileStore};

use super::*;
use crate::config::{SourceConfig, TableConfig};

/// More than any test's table takes.
const UNPACK_LIMIT: u64 = 1 << 30;

/// An ERP database and the folder of a transfer.
pub(super) struct Place {
    _dir: tempfile::TempDir,
    pub(super) database: PathBuf,
    pub(super) folder: PathBuf,
}

impl Place {
    pub(super) async fn new(sql: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (database, folder) = (dir.path().join("erp.sqlite"), dir.path().join("transfer"));
        std::fs::create_dir(&folder).unwrap();
        let place = Self { _dir: dir, database, folder };
        place.run(sql).await;
        place
    }

    pub(super) async fn connect(&self) -> SqliteConnection {
        let options =
            SqliteConnectOptions::new().filename(&self.database).create_if_missing(true).busy_timeout(Duration::from_secs(60));
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    pub(super) async fn run(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    pub(super) fn request(&self, tables: Vec<TableConfig>) -> ExtractRequest {
        let source = SourceConfig::Sqlite { path: self.database.clone(), busy_timeout: Some(Duration::from_millis(50)) };
        let job = JobConfig::new("main".parse().unwrap(), source, tables);
        ExtractRequest {
            job,
            folder: self.folder.clone(),
            previous: None,
            full: false,
            anew: BTreeSet::new(),
            form: Form::Packed,
        }
    }

    pub(super) async fn extract(&self, tables: Vec<TableConfig>) -> Result<Extracted, Failure> {
        run(self.request(tables)).await
    }

    pub(super) fn listed(&self) -> Vec<String> {
        let entries = Disk.list(&self.folder, None, 1_000).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

pub(crate) fn parts() -> ExtractParts {
    let clock = Arc::new(ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap()));
    let pseudonyms = Arc::new(towpath_keys::PseudonymKey::from_bytes(&[7; towpath_keys::pseudonym::KEY_BYTES]));
    ExtractParts { files: Arc::new(Disk), clock, pseudonyms, workers: 2, attempts: Attempts::default() }
}

pub(super) async fn run(request: ExtractRequest) -> Result<Extracted, Failure> {
    // A receiver that is gone disturbs nobody.
    let (events, _) = mpsc::channel(1);
    extract(&parts(), request, events, CancellationToken::new()).await
}

pub(super) fn whole(name: &str) -> TableConfig {
    TableConfig::whole(name.parse().unwrap())
}

pub(super) fn query(name: &str, sql: &str) -> TableConfig {
    TableConfig { query: Some(sql.to_owned()), ..whole(name) }
}

pub(super) fn typed(mut table: TableConfig, types: &[(&str, &str)]) -> TableConfig {
    table.types = types.iter().map(|(column, sql_type)| ((*column).to_owned(), sql_type.parse().unwrap())).collect();
    table
}

pub(super) type Rows = Vec<Vec<Option<String>>>;

/// Reads a packed file as the receiver does, and checks everything that the manifest says of it.
pub(super) fn read(folder: &Path, entry: &FileEntry) -> Rows {
    let packed = std::fs::read(folder.join(format!("{}.bz2", entry.name))).unwrap();
    let mut plain = Vec::new();
    unpack(packed.as_slice(), &mut plain, UNPACK_LIMIT).unwrap();
    read_plain(&plain, entry)
}

pub(super) fn read_plain(plain: &[u8], entry: &FileEntry) -> Rows {
    let mut hasher = FileHasher::new();
    hasher.update(plain);
    assert_eq!(hasher.finish(), entry.digests());
    let table = entry.csv().unwrap();
    let mut reader = csv::Reader::new(plain).unwrap();
    assert!(reader.header().iter().map(String::as_str).eq(table.columns.iter().map(|column| column.name.as_str())));
    let mut sums: Vec<DecimalSum> = table.columns.iter().map(|_| DecimalSum::new()).collect();
    let mut rows = Rows::new();
    while let Some(row) = reader.read_row().unwrap() {
        let fields: Vec<Option<String>> = row.iter().map(|field| field.map(str::to_owned)).collect();
        for ((field, column), sum) in fields.iter().zip(&table.columns).zip(&mut sums) {
            let Some(text) = field else {
                assert!(column.nullable);
                continue;
            };
            assert!(towpath_transfer::value::fits(column.sql_type, text), "{} {text:?}", column.sql_type);
            if column.sql_type.has_total() {
                sum.add_str(text).unwrap();
            }
        }
        rows.push(fields);
    }
    assert_eq!(rows.len() as u64, table.rows);
    let sums = table.columns.iter().zip(sums).filter(|(column, _)| column.sql_type.has_total());
    for ((column, sum), total) in sums.zip(&table.totals) {
        assert_eq!((&column.name, sum.count(), sum.finish()), (&total.column, total.count, total.sum.clone()));
    }
    rows
}

pub(super) fn table(entry: &FileEntry) -> &Table {
    entry.table().unwrap()
}

pub(super) fn types(entry: &FileEntry) -> Vec<String> {
    table(entry).columns.iter().map(|column| column.sql_type.to_string()).collect()
}

pub(super) fn manifest(extracted: &Extracted) -> Manifest {
    Manifest {
        version: 1,
        transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
        direction: towpath_transfer::Direction::Uplink,
        tenant: "acme".parse().unwrap(),
        agent: "erp".parse().unwrap(),
        job: "main".parse().unwrap(),
        created: jiff::Timestamp::UNIX_EPOCH,
        sequence: towpath_transfer::Sequence(1),
        snapshot: Some(extracted.snapshot.clone()),
        kind: None,
        files: extracted.files.clone(),
    }
}

pub(super) fn packed_digest(folder: &Path, name: &str) -> (u64, Sha256Digest) {
    let bytes = std::fs::read(folder.join(name)).unwrap();
    (bytes.len() as u64, Sha256Digest::of(&bytes))
}
