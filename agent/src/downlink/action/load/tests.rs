//! Loads into a real database.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_journal::system::SystemClock;
use towpath_transport::files::Disk;

use super::*;

struct Erp {
    dir: tempfile::TempDir,
    files: Arc<dyn FileStore>,
}

impl Erp {
    async fn new() -> Self {
        let erp = Self { dir: tempfile::tempdir().unwrap(), files: Arc::new(Disk) };
        std::fs::create_dir(erp.dir.path().join("plain")).unwrap();
        erp.execute("CREATE TABLE order_import (item TEXT NOT NULL, quantity INTEGER, note TEXT, towpath_transfer TEXT)").await;
        erp
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("erp.sqlite")
    }

    async fn connection(&self) -> SqliteConnection {
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(self.database()).create_if_missing(true))
            .await
            .unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connection().await).await.unwrap();
    }

    async fn rows(&self) -> Vec<(String, Option<i64>, Option<String>)> {
        sqlx::query_as("SELECT item, quantity, note FROM order_import ORDER BY rowid")
            .fetch_all(&mut self.connection().await)
            .await
            .unwrap()
    }

    fn of(&self, number: u8, files: &[(&str, &str)]) -> ActionOf {
        let folder = self.dir.path().to_owned();
        let file = |(name, text): &(&str, &str)| {
            let plain = folder.join("plain").join(name);
            std::fs::write(&plain, text).unwrap();
            // The ERP has taken the delivered file away.
            ActionFile { name: name.parse().unwrap(), delivered: folder.join("gone"), plain }
        };
        ActionOf {
            transfer: format!("01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a{number:02x}").parse().unwrap(),
            kind: "recommended-orders".parse().unwrap(),
            files: files.iter().map(file).collect(),
            log: folder.join("log"),
            done: folder.join("done"),
            folder,
        }
    }

    fn target(&self, table: &str) -> Box<dyn LoadTarget> {
        let (table, transfer_column) = (table.parse().unwrap(), "towpath_transfer".parse().unwrap());
        target(&LoadConfig::Sqlite { path: self.database(), table, transfer_column })
    }

    async fn load(&self, of: &ActionOf) -> Result<()> {
        load(&self.files, &SystemClock::new(), &*self.target("order_import"), of).await
    }

    async fn refused(&self, of: &ActionOf) -> String {
        let failure = self.load(of).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::ActionFailed, towpath_transfer::Disposition::Retry));
        failure.report()
    }
}

const ORDERS: (&str, &str) = ("orders.csv", "item,quantity,note\r\na,5,\r\nb,,\"\"\r\n\"c \"\"x\"\"\",7,ä\r\n");

fn orders() -> Vec<(String, Option<i64>, Option<String>)> {
    vec![("a".into(), Some(5), None), ("b".into(), None, Some(String::new())), ("c \"x\"".into(), Some(7), Some("ä".into()))]
}

#[tokio::test]
async fn rows_arrive_once_with_the_transfers_id() {
    let erp = Erp::new().await;
    let of = erp.of(1, &[ORDERS, ("readme.txt", "no rows")]);
    for _ in 0..10 {
        erp.load(&of).await.unwrap();
    }
    assert_eq!(erp.rows().await, orders());
    let marked: i64 = sqlx::query_scalar("SELECT count(*) FROM order_import WHERE towpath_transfer = ?")
        .bind(of.transfer.to_string())
        .fetch_one(&mut erp.connection().await)
        .await
        .unwrap();
    assert_eq!(marked, 3);
    erp.load(&erp.of(2, &[("more.CSV", "ITEM\r\nd\r\n")])).await.unwrap();
    assert_eq!(erp.rows().await.len(), 4);
}

#[tokio::test]
async fn many_rows_in_several_files_are_one_transaction() {
    let erp = Erp::new().await;
    let many: String =
        std::iter::once("item,quantity\r\n".to_owned()).chain((0..5_000).map(|n| format!("i{n},{n}\r\n"))).collect();
    let broken = format!("{many}x,y,z\r\n");
    let told = erp.refused(&erp.of(1, &[("a.csv", &many), ("b.csv", &broken)])).await;
    assert!(told.contains("b.csv is not CSV"), "{told}");
    assert!(erp.rows().await.is_empty());
    erp.load(&erp.of(1, &[("a.csv", &many), ("b.csv", &many)])).await.unwrap();
    assert_eq!(erp.rows().await.len(), 10_000);
}

#[tokio::test]
async fn what_the_database_refuses_is_said_and_nothing_of_it_stays() {
    let erp = Erp::new().await;
    for (file, said) in [
        (("a.csv", "item,colour\r\na,red\r\n"), "no column \"colour\""),
        (("a.csv", "item,towpath_transfer\r\na,x\r\n"), "for the transfer's id"),
        (("a.csv", "item,quantity\r\na,1\r\n,2\r\n"), "refused inserting rows"),
        (("a.txt", "item\r\na\r\n"), "none of the delivered files is a CSV file"),
    ] {
        let told = erp.refused(&erp.of(1, &[file])).await;
        assert!(told.contains(said), "{told}");
        assert!(erp.rows().await.is_empty());
    }
    let of = erp.of(1, &[ORDERS]);
    let missing = load(&erp.files, &SystemClock::new(), &*erp.target("none"), &of).await.unwrap_err();
    assert!(missing.report().contains("no table none"), "{}", missing.report());
    erp.execute("CREATE TABLE plain (item TEXT)").await;
    let column = load(&erp.files, &SystemClock::new(), &*erp.target("plain"), &of).await.unwrap_err();
    assert!(column.report().contains("no column towpath_transfer"), "{}", column.report());
    std::fs::remove_file(erp.database()).unwrap();
    assert!(erp.refused(&of).await.contains("refused opening it"));
    assert!(!erp.database().exists());
}

/// The program is stopped before, or after, the commit of its `n`th load.
struct StopAtCommit<'a> {
    inner: &'a dyn LoadTarget,
    before: bool,
    commits: Arc<AtomicU32>,
}

struct Stopping {
    inner: Box<dyn Load>,
    before: bool,
    commits: Arc<AtomicU32>,
}

#[async_trait]
impl LoadTarget for StopAtCommit<'_> {
    async fn begin(&self, transfer: TransferId) -> Result<Option<Box<dyn Load>>> {
        let inner = self.inner.begin(transfer).await?;
        Ok(inner.map(|inner| Box::new(Stopping { inner, before: self.before, commits: self.commits.clone() }) as Box<dyn Load>))
    }
}

#[async_trait]
impl Load for Stopping {
    async fn columns(&mut self, names: &[String]) -> Result<()> {
        self.inner.columns(names).await
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<()> {
        self.inner.insert(batch).await
    }

    async fn commit(self: Box<Self>, at: Timestamp, rows: u64) -> Result<()> {
        if !self.before {
            self.inner.commit(at, rows).await?;
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_load_that_is_stopped_before_or_after_its_commit_happens_once() {
    for before in [true, false] {
        let erp = Erp::new().await;
        let of = erp.of(1, &[ORDERS]);
        let real = erp.target("order_import");
        let commits = Arc::new(AtomicU32::new(0));
        let stopping = StopAtCommit { inner: &*real, before, commits: commits.clone() };
        let clock = SystemClock::new();
        let mut work = Box::pin(load(&erp.files, &clock, &stopping, &of));
        while commits.load(Ordering::SeqCst) == 0 {
            tokio::select! {
                ended = &mut work => panic!("it ended: {ended:?}"),
                () = clock.sleep(std::time::Duration::from_millis(5)) => {}
            }
        }
        // Dropped as a killed process is: the transaction ends with its connection.
        drop(work);
        assert_eq!(erp.rows().await.len(), if before { 0 } else { 3 });
        erp.load(&of).await.unwrap();
        assert_eq!(erp.rows().await, orders(), "before: {before}");
    }
}
