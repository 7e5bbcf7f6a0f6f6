//! The way back: the app recommends orders from what it has imported, and they arrive at the ERP while the user watches.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt as _;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_journal::{
    Filter, Journal as _, SqliteJournal,
    system::{SystemClock, SystemEntropy},
};
use towpath_transfer::{Clock as _, Direction, TransferKey, csv, digest::Sha256Digest, state::Place};

use super::{DemoError, cycle::Stage, io, program::Server, report::DownlinkLine, story};
use crate::erp::{self, IMPORT_TABLE};

/// What these return files are.
pub(super) const KIND: &str = "recommended-orders";
/// The file that the app writes.
const FILE: &str = "recommended-orders.csv";
/// The app's work on its own database.
const RECOMMEND: &str = include_str!("../../app/recommended-orders.sql");
/// How long the file may take to the ERP.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How often the delivery folder is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What came of it.
#[derive(Debug)]
pub(super) struct WayBack {
    /// For the report.
    pub(super) line: DownlinkLine,
    /// The transfer.
    pub(super) key: TransferKey,
    /// Whether the file is the same, its rows are in the ERP's table once, and the receipts hold.
    pub(super) agrees: bool,
}

/// The agent's configuration for deliveries: a folder, and the ERP's own import table.
pub(super) fn delivery_toml(folder: &Path, erp: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
    format!(
        "\n[[delivery]]\nkind = \"{KIND}\"\nfolder = {}\n\n# Then its rows go into the ERP's import table.\n[delivery.load]\nkind = \
         \"sqlite\"\npath = {}\ntable = \"{IMPORT_TABLE}\"\ntransfer_column = \"{}\"\n",
        quoted(folder),
        quoted(erp),
        erp::IMPORT_TRANSFER_COLUMN,
    )
}

/// Computes, sends, watches, compares.
pub(super) async fn run(stage: &Stage, app: &Path) -> Result<WayBack, DemoError> {
    story::chapter("The way back");
    let agent = stage.agent.start(&["run"])?;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let file = stage.dir.join("app").join(FILE);
    let rows = recommend(app, &file).await?;
    let told = format!("the app recommends {} orders from sales, stock and lead times", story::grouped(rows));
    story::told_in(&told, clock.monotonic().saturating_sub(start));

    let delivered_path = stage.delivery().join(FILE);
    let start = clock.monotonic();
    let path = file.to_string_lossy();
    let arguments = ["send", &path, "--kind", KIND, "--wait"];
    let arrival = async {
        arrive(&delivered_path).await?;
        let took = clock.monotonic().saturating_sub(start);
        story::told_in(&format!("arrived at the ERP: {}", delivered_path.display()), took);
        Ok(())
    };
    tokio::try_join!(async { stage.receiver.run(&arguments).await.map(drop) }, arrival)?;
    story::told_in(
        "export → notify → fetch → pack → queue → pull → verify → deliver → acknowledge",
        clock.monotonic().saturating_sub(start),
    );
    let key = the_downlink(&stage.receiver.state).await?;
    let chain_holds = told_receipts(stage, &key).await;
    let way = compare(stage, &file, delivered_path, rows, key).await?;
    stop(agent).await?;
    Ok(WayBack { agrees: way.agrees && chain_holds, ..way })
}

async fn stop(agent: Server) -> Result<(), DemoError> {
    agent.stop().await
}

async fn told_receipts(stage: &Stage, key: &TransferKey) -> bool {
    match stage.receiver.run(&["receipts", "verify", &key.id.to_string()]).await {
        Ok(text) => {
            text.lines().for_each(story::tell);
            true
        }
        Err(error) => {
            story::tell(&error.to_string());
            false
        }
    }
}

/// Runs the app's query over what the receiver has imported, and writes the rows as CSV.
async fn recommend(app: &Path, file: &Path) -> Result<u64, DemoError> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(io(format!("creating {} failed", folder.display())))?;
    }
    let bad = |error: csv::CsvError| DemoError::Program(format!("{}: {error}", file.display()));
    let out = std::fs::File::create(file).map_err(io(format!("creating {} failed", file.display())))?;
    let mut writer = csv::Writer::new(std::io::BufWriter::new(out));
    let mut app = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(app).read_only(true)).await?;
    let columns =
        ["supplier_id", "item_id", "item_no", "quantity", "purchase_price", "available", "reorder_point", "computed_for"];
    writer.write_header(&columns).map_err(bad)?;
    let mut found = sqlx::raw_sql(RECOMMEND).fetch(&mut app);
    while let Some(row) = found.try_next().await? {
        let values =
            (0..columns.len()).map(|at| row.try_get_unchecked::<Option<String>, _>(at)).collect::<Result<Vec<_>, _>>()?;
        writer.write_row(values.iter().map(Option::as_deref)).map_err(bad)?;
    }
    let rows = writer.rows();
    writer.finish().map_err(bad)?;
    Ok(rows)
}

async fn arrive(path: &Path) -> Result<(), DemoError> {
    let watch = async {
        let mut look = tokio::time::interval(LOOK);
        while !path.exists() {
            look.tick().await;
        }
    };
    let late = |_| DemoError::Program(format!("{} did not arrive within {} s", path.display(), ARRIVAL.as_secs()));
    tokio::time::timeout(ARRIVAL, watch).await.map_err(late)
}

async fn the_downlink(state: &Path) -> Result<TransferKey, DemoError> {
    let path = state.join("journal.sqlite");
    let journal =
        SqliteJournal::open(&path, Place::Receiver, Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new())).await?;
    let filter = Filter { direction: Some(Direction::Downlink), ..Filter::default() };
    let newest = journal.list(&filter, 1, None).await?.pop();
    newest.map(|record| record.key).ok_or_else(|| DemoError::Program("the receiver has sent nothing".into()))
}

async fn compare(stage: &Stage, sent: &Path, delivered_path: PathBuf, rows: u64, key: TransferKey) -> Result<WayBack, DemoError> {
    let read = |path: &Path| std::fs::read(path).map_err(io(format!("reading {} failed", path.display())));
    let (sent, delivered) = (read(sent)?, read(&delivered_path)?);
    let mut erp = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(stage.erp()).read_only(true)).await?;
    let sql = format!("SELECT count(*) FROM {IMPORT_TABLE} WHERE {} = ?", erp::IMPORT_TRANSFER_COLUMN);
    let loaded: i64 = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(key.id.to_string()).fetch_one(&mut erp).await?.try_get(0)?;
    let loaded = u64::try_from(loaded).unwrap_or(0);
    story::tell(&format!("{} rows in the ERP's table {IMPORT_TABLE}", story::grouped(loaded)));
    let line = DownlinkLine {
        name: FILE.to_owned(),
        bytes: delivered.len() as u64,
        sha256: Sha256Digest::of(&delivered).to_string(),
        delivered_path,
    };
    Ok(WayBack { line, key, agrees: sent == delivered && loaded == rows })
}
