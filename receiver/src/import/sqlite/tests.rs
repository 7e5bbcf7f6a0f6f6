//! What only SQLite has; everything else is in the suite of every target.

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use towpath_transfer::{
    Code, Sequence,
    digest::Sha256Digest,
    manifest::{Mode, SqlType},
    receipt::TableRows,
};

use super::{
    super::{
        ImportScope, ImportTarget, OldRows, TableState,
        conformance::{self, Bench, Kind, column, id, import, owner, scope, table},
    },
    *,
};

struct Sqlite {
    folder: TempDir,
    target: SqliteTarget,
}

impl Sqlite {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::new(folder.path(), owner("acme", 1));
        Self { folder, target }
    }

    fn path(&self, scope: &ImportScope) -> PathBuf {
        self.target.path(scope)
    }
}

#[async_trait]
impl Bench for Sqlite {
    fn kind(&self) -> Kind {
        Kind::Sqlite
    }

    fn target(&self) -> &dyn ImportTarget {
        &self.target
    }

    fn target_of(&self, owner: Owner) -> Box<dyn ImportTarget> {
        Box::new(SqliteTarget::new(self.folder.path(), owner))
    }

    async fn sql(&self, scope: &ImportScope, sql: &str) -> Vec<String> {
        let options = SqliteConnectOptions::new().filename(self.path(scope)).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
        connection.close().await.unwrap();
        found.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

#[tokio::test]
async fn the_suite_holds() {
    conformance::all(&Sqlite::new()).await;
}

#[tokio::test]
async fn a_ledger_of_an_earlier_build_is_read_and_completed() {
    let bench = Sqlite::new();
    let scope = scope("main");
    std::fs::create_dir_all(bench.folder.path().join("erp")).unwrap();
    let columns = r#"[{"name":"n","type":"BIGINT","nullable":false}]"#;
    let digest = Sha256Digest::of(b"old");
    let old = format!(
        "CREATE TABLE towpath_imports (
            transfer TEXT PRIMARY KEY, sequence INTEGER NOT NULL, manifest TEXT NOT NULL, imported TEXT NOT NULL, rows TEXT NOT NULL
        ) STRICT;
        CREATE TABLE towpath_tables (
            name TEXT PRIMARY KEY, transfer TEXT NOT NULL, sha256 TEXT NOT NULL, columns TEXT NOT NULL, rows INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE items (n BIGINT NOT NULL);
        INSERT INTO items VALUES (7);
        CREATE INDEX by_n ON items (n);
        INSERT INTO towpath_imports VALUES ('{0}', 1, '{digest}', '2026-01-02T03:04:05Z', '[[\"items\",1]]');
        INSERT INTO towpath_tables VALUES ('items', '{0}', '{digest}', '{columns}', 1);",
        id(1)
    );
    let options = SqliteConnectOptions::new().filename(bench.path(&scope)).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(old)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let (open, ledger) = bench.target.begin(&scope, id(1)).await.unwrap();
    drop(open);
    let items = table("items", vec![column("n", SqlType::BigInt, false)], &[]);
    assert_eq!(ledger.last_sequence, Some(Sequence(1)));
    assert_eq!(ledger.this.unwrap().rows, [TableRows::new(items.table.clone(), 1)]);
    let state = TableState {
        transfer: id(1),
        sha256: digest,
        columns: items.columns.clone(),
        rows: 1,
        key: Vec::new(),
        mode: Mode::Replace,
    };
    assert_eq!(ledger.tables, BTreeMap::from([(items.table.clone(), state)]));

    // The table gets a key, and keeps the index that the app has made.
    let keyed = table("items", items.columns.clone(), &["n"]);
    assert_eq!(import(&bench, &scope, 2, &keyed, OldRows::Removed, &[&[Some("8")]]).await.unwrap(), 1);
    let indexes = "SELECT count(*) || '' FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'items'";
    assert_eq!(bench.sql(&scope, indexes).await, ["2"]);
}

#[tokio::test]
async fn a_value_that_is_not_of_its_type_is_refused() {
    let bench = Sqlite::new();
    for (sql_type, bad) in [
        (SqlType::BigInt, "1.5"),
        (SqlType::Boolean, "yes"),
        (SqlType::Binary, "%"),
        (SqlType::Double, "x"),
        (SqlType::Double, "NaN"),
    ] {
        let one = table("t", vec![column("c", sql_type, true)], &[]);
        let refused = import(&bench, &scope("main"), 1, &one, OldRows::Removed, &[&[Some(bad)]]).await.unwrap_err();
        assert_eq!(refused.code(), Code::ContentInvalid, "{sql_type}");
    }
}

#[tokio::test]
async fn what_an_app_or_a_damage_refuses_waits_for_a_person_and_everything_else_does_not() {
    use towpath_transfer::Disposition::{Park, Retry};
    // 1811 is the constraint of a trigger, 2067 that of an index, 266 a read that failed, 517 a snapshot that is too old.
    for (result, disposition) in
        [(1, Park), (11, Park), (26, Park), (1811, Park), (2067, Park), (5, Retry), (517, Retry), (266, Retry), (14, Retry)]
    {
        assert_eq!(by_result(result), (Code::ImportFailed, disposition), "{result}");
    }
    assert_eq!(by_result(13), (Code::DiskFull, Retry));

    let bench = Sqlite::new();
    let (scope, items) = (scope("main"), conformance::items());
    import(&bench, &scope, 1, &items, OldRows::Removed, &[&[Some("1"), Some("a")]]).await.unwrap();
    let closed = "CREATE TRIGGER closed BEFORE INSERT ON towpath_imports BEGIN SELECT RAISE(ABORT, 'closed'); END";
    assert!(bench.sql(&scope, closed).await.is_empty());
    let refused = import(&bench, &scope, 2, &items, OldRows::Removed, &[&[Some("2"), Some("b")]]).await.unwrap_err();
    assert_eq!((refused.code(), refused.disposition()), (Code::ImportFailed, Park));
    assert_eq!(conformance::content(&bench, &scope).await, ["1/a"]);
    std::fs::write(bench.path(&scope), [b'x'; 4096]).unwrap();
    let refused = import(&bench, &scope, 3, &items, OldRows::Removed, &[]).await.unwrap_err();
    assert_eq!((refused.code(), refused.disposition()), (Code::ImportFailed, Park));
}

#[tokio::test]
async fn columns_and_names_that_it_cannot_have_are_refused() {
    let bench = Sqlite::new();
    let many = (0..=2_000).map(|n| column(&format!("c{n}"), SqlType::Text, true)).collect();
    for refused in [table("t", many, &[]), table("SQLITE_sequence", vec![column("c", SqlType::Text, true)], &[])] {
        let failure = import(&bench, &scope("main"), 1, &refused, OldRows::Removed, &[]).await.unwrap_err();
        assert_eq!(failure.code(), Code::ImportRefused);
    }
}

#[tokio::test]
async fn a_row_that_an_index_of_the_app_refuses_is_no_fault_of_the_content() {
    let bench = Sqlite::new();
    let scope = scope("main");
    let columns = vec![column("k", SqlType::BigInt, false), column("t", SqlType::Text, true)];
    let items = table("items", columns, &["k"]);
    import(&bench, &scope, 1, &items, OldRows::Removed, &[]).await.unwrap();
    let made: Vec<String> = bench.sql(&scope, "CREATE UNIQUE INDEX one_t ON items (t)").await;
    assert!(made.is_empty());
    let rows: &[&[Option<&str>]] = &[&[Some("1"), Some("a")], &[Some("2"), Some("a")]];
    let failure = import(&bench, &scope, 2, &items, OldRows::Removed, rows).await.unwrap_err();
    assert_eq!(failure.code(), Code::ImportFailed);
}
