//! Incremental tables, keys and changes of columns.

use towpath_transfer::{
    Disposition,
    manifest::{Content, Drift, Mode, Watermark},
};

use super::{
    app::{Chain, incremental},
    *,
};
use crate::config::{DriftPolicy, Overlap, Policy};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn minutes(minutes: u64) -> Overlap {
    Overlap::Time(Duration::from_secs(60 * minutes))
}

fn watermark(entry: &FileEntry) -> &Watermark {
    table(entry).watermark.as_ref().unwrap()
}

/// Mode and number of rows that were sent.
fn sent(manifest: &Manifest) -> (Mode, u64) {
    let table = table(&manifest.files[0]);
    (table.mode, table.rows)
}

fn shown(rows: &Rows) -> Vec<String> {
    let row = |row: &Vec<Option<String>>| row.iter().map(|field| field.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ");
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn only_changed_rows_follow_and_equal_timestamps_at_the_boundary_lose_nothing() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, price DECIMAL(9,2), changed TIMESTAMP);
        INSERT INTO items VALUES (1, 1, '2026-02-27 10:00:00'), (2, 2, '2026-02-28 10:00:00'), (3, 3, '2026-02-28T10:00');",
        vec![incremental("items", &["id"], &["changed"], Overlap::Equal)],
    )
    .await;
    let first = chain.send().await;
    assert_eq!(sent(&first), (Mode::Replace, 3));
    assert!(!table(&first.files[0]).columns[0].nullable);
    let mark = watermark(&first.files[0]);
    assert!(mark.after.is_empty());
    assert_eq!(mark.through, ["2026-02-28T10:00:00"]);
    assert_eq!(table(&first.files[0]).compared, Some("2026-03-01T12:00:00Z".parse().unwrap()));
    // One that was committed meanwhile has the very same time; one that is older is not found by its time.
    chain.place.run("INSERT INTO items VALUES (4, 4, '2026-02-28 10:00:00.000'), (5, 5, '2026-02-01 00:00:00')").await;
    let second = chain.send().await;
    assert_eq!(sent(&second), (Mode::Merge, 3));
    assert_eq!(second.files[0].base, Some(first.transfer));
    assert_eq!(watermark(&second.files[0]).after, ["2026-02-28T10:00:00"]);
    assert_eq!(watermark(&second.files[0]).through, ["2026-02-28T10:00:00"]);
    assert_eq!(table(&second.files[0]).totals[0].sum.to_string(), "9");
    assert_eq!(table(&second.files[0]).compared, table(&first.files[0]).compared);
    chain.place.run("UPDATE items SET price = 40, changed = '2026-03-01 09:00:00' WHERE id = 4").await;
    let third = chain.send().await;
    assert_eq!(sent(&third), (Mode::Merge, 3));
    assert_eq!(watermark(&third.files[0]).through, ["2026-03-01T09:00:00"]);
    let fourth = chain.send().await;
    assert_eq!((sent(&fourth), fourth.files[0].unchanged), ((Mode::Merge, 1), false));
    assert_eq!(
        shown(&chain.app.rows("items")).join(","),
        "1 1 2026-02-27T10:00:00,2 2 2026-02-28T10:00:00,3 3 2026-02-28T10:00:00,4 40 2026-03-01T09:00:00"
    );
}

#[tokio::test]
async fn the_watermark_advances_with_the_import_and_never_before() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, no BIGINT); INSERT INTO items VALUES (1, 10);",
        vec![incremental("items", &["id"], &["no"], Overlap::Equal)],
    )
    .await;
    chain.send().await;
    chain.place.run("INSERT INTO items VALUES (2, 20)").await;
    let lost = chain.read(false).await.unwrap();
    assert_eq!(watermark(&lost.files[0]).through, ["20"]);
    chain.place.run("INSERT INTO items VALUES (3, 30)").await;
    let next = chain.send().await;
    assert_eq!(watermark(&next.files[0]).after, ["10"]);
    assert_eq!(sent(&next), (Mode::Merge, 3));
    assert_eq!(chain.app.rows("items").len(), 3);
    // An app that was set back lacks the base; the table goes in full then.
    chain.app = super::app::App::default();
    let refused = chain.read(false).await.unwrap();
    assert_eq!(chain.app.import(&refused, &chain.place.folder).unwrap_err(), "base-missing");
    let full = chain.read(true).await.unwrap();
    assert_eq!((sent(&full), full.files[0].base), ((Mode::Replace, 3), None));
    chain.import(&full);
    assert_eq!(chain.app.rows("items").len(), 3);
}

#[tokio::test]
async fn an_empty_table_and_rows_without_watermark() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, no BIGINT, day DATE);",
        vec![incremental("items", &["id"], &["no"], Overlap::Count(5))],
    )
    .await;
    assert!(watermark(&chain.send().await.files[0]).through.is_empty());
    // Nothing is known from where to go on, and the app has exactly this.
    let again = chain.send().await;
    assert!(again.files[0].unchanged && table(&again.files[0]).mode == Mode::Replace);
    chain.place.run("INSERT INTO items (id) VALUES (1)").await;
    let without = chain.send().await;
    assert_eq!(sent(&without), (Mode::Replace, 1));
    assert!(watermark(&without.files[0]).through.is_empty());
    chain.place.run("INSERT INTO items (id, no) VALUES (2, 100)").await;
    assert_eq!(sent(&chain.send().await), (Mode::Replace, 2));
    chain.place.run("UPDATE items SET day = '2026-01-01' WHERE id = 1").await;
    let changed = chain.send().await;
    assert_eq!(sent(&changed), (Mode::Merge, 2));
    assert_eq!(watermark(&changed.files[0]).after, ["95"]);
    // Within the overlap: a number that was taken before 100 and committed after it.
    chain.place.run("INSERT INTO items (id, no) VALUES (3, 95), (4, 94)").await;
    assert_eq!(sent(&chain.send().await), (Mode::Merge, 3));
    assert_eq!(shown(&chain.app.rows("items")), ["1 - 2026-01-01", "2 100 -", "3 95 -"]);
}

#[tokio::test]
async fn a_date_and_a_time_are_one_watermark() {
    // As SAP Business One has it: a date without time, and the time as a number.
    let mut chain = Chain::new(
        "CREATE TABLE ORDR (DocEntry INTEGER PRIMARY KEY, UpdateDate DATE, UpdateTS INTEGER);
        INSERT INTO ORDR VALUES (1, '2026-02-27', 235959), (2, '2026-02-28 00:00:00', 93000), (3, '2026-02-28', 101500);",
        vec![incremental("ORDR", &["DocEntry"], &["UpdateDate", "UpdateTS"], Overlap::Equal)],
    )
    .await;
    let first = chain.send().await;
    assert_eq!(watermark(&first.files[0]).through, ["2026-02-28", "101500"]);
    chain.place.run("INSERT INTO ORDR VALUES (4, '2026-02-28', 101500), (5, '2026-03-01', 0), (6, '2026-02-28', 101459), (7, '2026-02-28', NULL)").await;
    let second = chain.send().await;
    assert_eq!(watermark(&second.files[0]).after, ["2026-02-28", "101500"]);
    assert_eq!(watermark(&second.files[0]).through, ["2026-03-01", "0"]);
    let rows = shown(&chain.app.rows("ORDR"));
    assert!(rows.contains(&"4 2026-02-28 101500".to_owned()) && rows.contains(&"7 2026-02-28 -".to_owned()), "{rows:?}");
    assert!(!rows.iter().any(|row| row.starts_with('6')), "{rows:?}");
    // With an overlap only the date counts, and goes back a day.
    chain.tables = vec![incremental("ORDR", &["DocEntry"], &["UpdateDate", "UpdateTS"], minutes(10))];
    let third = chain.send().await;
    assert_eq!(watermark(&third.files[0]).after, ["2026-02-28"]);
    assert_eq!(chain.app.rows("ORDR").len(), 7);
    assert_eq!(watermark(&third.files[0]).through, ["2026-03-01", "0"]);
}

#[tokio::test]
async fn timestamps_with_zone_go_by_the_instant_and_late_commits_are_within_the_overlap() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, at TIMESTAMPTZ);
        INSERT INTO items VALUES (1, '2026-02-28 12:00:00+02:00'), (2, '2026-02-28 07:00:00-05:00'), (3, NULL);",
        vec![incremental("items", &["id"], &["at"], minutes(30))],
    )
    .await;
    let first = chain.send().await;
    assert_eq!(watermark(&first.files[0]).through, ["2026-02-28T07:00:00-05:00"]);
    // Half past eleven in UTC, committed after the extract; and a text that a database of texts sorts before all others.
    chain.place.run("INSERT INTO items VALUES (4, '2026-02-28T11:30:00Z'), (5, '2026-02-27T12:00:00-23:45')").await;
    let second = chain.send().await;
    assert_eq!(watermark(&second.files[0]).after, ["2026-02-28T11:30:00+00:00"]);
    assert_eq!(chain.app.rows("items").len(), 5);
}

#[tokio::test]
async fn deleted_rows_are_found_when_keys_are_compared() {
    let mut config = incremental("items", &["no", "line"], &["changed"], Overlap::Equal);
    config.file = Some("artikel.txt".parse().unwrap());
    let mut chain = Chain::new(
        "CREATE TABLE items (line INTEGER, changed DATE, no TEXT);
        INSERT INTO items VALUES (1, '2026-02-01', 'a'), (2, '2026-02-01', 'a'), (1, '2026-02-02', 'b');",
        vec![config, whole("items_too")],
    )
    .await;
    chain.place.run("CREATE TABLE items_too (x)").await;
    chain.send().await;
    chain.place.run("DELETE FROM items WHERE no = 'a' AND line = 2").await;
    chain.later(6 * DAY);
    assert_eq!(chain.send().await.files.len(), 2);
    assert_eq!(chain.app.rows("items").len(), 3);
    chain.later(DAY);
    chain.place.run("INSERT INTO items VALUES (9, '2026-03-07', 'c')").await;
    let compared = chain.send().await;
    let [table_entry, keys, other] = compared.files.as_slice() else { panic!("{:?}", compared.files) };
    assert_eq!(table(table_entry).compared, Some("2026-03-08T12:00:00Z".parse().unwrap()));
    let Content::Keys(of) = &keys.content else { panic!("{keys:?}") };
    assert_eq!((keys.name.as_str(), of.rows, of.totals.len()), ("artikel.keys.csv", 3, 1));
    assert_eq!(of.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["no", "line"]);
    assert_eq!(other.name.as_str(), "items_too.csv");
    assert_eq!(shown(&chain.app.rows("items")), ["1 2026-02-01 a", "1 2026-02-02 b", "9 2026-03-07 c"]);
    // The next comparison counts from this one.
    chain.later(6 * DAY);
    assert_eq!(chain.send().await.files.len(), 2);
    // Packed, the keys travel and are told as well.
    chain.later(DAY);
    let previous = chain.previous.clone();
    let request = ExtractRequest { previous, ..chain.place.request(chain.tables.clone()) };
    let clock: Arc<dyn Clock> = Arc::new(chain.clock.clone());
    let (events, _) = mpsc::channel(1);
    let parts = ExtractParts { clock, ..parts() };
    let extracted = extract(&parts, request, events, CancellationToken::new()).await.unwrap();
    let packed: Vec<&str> = extracted.packed.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(packed, ["artikel.txt.bz2", "artikel.keys.csv.bz2"]);
    assert_eq!(read(&chain.place.folder, &extracted.files[1]).len(), 3);
}

#[tokio::test]
async fn a_table_that_is_asked_for_anew_goes_whole_and_the_others_do_not() {
    let of = |name| incremental(name, &["id"], &["id"], Overlap::Equal);
    let tables = "CREATE TABLE items (id INTEGER); INSERT INTO items VALUES (1), (2);
                  CREATE TABLE sales (id INTEGER); INSERT INTO sales VALUES (1), (2);";
    let mut chain = Chain::new(tables, vec![of("items"), of("sales")]).await;
    chain.send().await;
    let request = ExtractRequest {
        previous: chain.previous.clone(),
        anew: BTreeSet::from(["items".to_owned()]),
        form: Form::Plain,
        ..chain.place.request(chain.tables.clone())
    };
    let (events, _) = mpsc::channel(1);
    let extracted = extract(&parts(), request, events, CancellationToken::new()).await.unwrap();
    let told: Vec<_> = extracted.files.iter().map(|file| (table(file).mode, file.base.is_some(), table(file).rows)).collect();
    assert_eq!(told, [(Mode::Replace, false, 2), (Mode::Merge, true, 1)]);
}

#[tokio::test]
async fn a_key_without_watermark_is_told_and_checked() {
    let keyed = TableConfig { key: vec!["no".into()], ..whole("items") };
    let mut chain = Chain::new("CREATE TABLE items (no TEXT, x INTEGER); INSERT INTO items VALUES ('a', 1);", vec![keyed]).await;
    let first = chain.send().await;
    let of = table(&first.files[0]);
    assert_eq!((of.mode, of.key.len(), of.columns[0].nullable, of.compared), (Mode::Replace, 1, false, None));
    assert!(chain.send().await.files[0].unchanged);
    chain.place.run("INSERT INTO items VALUES (NULL, 2)").await;
    let failure = chain.read(false).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ErpValue, Disposition::Park));
    assert!(failure.message().contains("column no, row 2: NULL stands in a column of the key"), "{failure}");
    chain.tables[0].key = vec!["No".into()];
    let failure = chain.read(false).await.unwrap_err();
    assert_eq!(failure.code(), Code::ConfigInvalid);
    assert!(failure.message().contains("table items") && failure.message().contains("did you mean no?"), "{failure}");
}

#[tokio::test]
async fn a_change_of_columns_is_told_and_the_table_goes_in_full() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, no BIGINT, price DECIMAL(9,2)); INSERT INTO items VALUES (1, 1, 1);
        CREATE TABLE sales (id INTEGER PRIMARY KEY);",
        vec![incremental("items", &["id"], &["no"], Overlap::Equal), whole("sales")],
    )
    .await;
    assert!(table(&chain.send().await.files[0]).drift.is_empty());
    chain
        .place
        .run("ALTER TABLE items DROP COLUMN price; ALTER TABLE items ADD COLUMN name TEXT; ALTER TABLE sales ADD day DATE")
        .await;
    let mut strict = chain.tables.clone();
    strict.iter_mut().for_each(|table| table.drift = DriftPolicy { added: Policy::Stop, ..DriftPolicy::default() });
    let lenient = std::mem::replace(&mut chain.tables, strict);
    for full in [false, true] {
        let failure = chain.read(full).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::SchemaChanged, Disposition::Park));
        for said in [
            "table items: column name was added, TEXT, column price was removed, DECIMAL(9,2)",
            "table sales: column day was added, DATE",
        ] {
            assert!(failure.message().contains(said), "{failure}");
        }
    }
    chain.tables = lenient;
    let changed = chain.send().await;
    assert_eq!(sent(&changed), (Mode::Replace, 1));
    let drift = &table(&changed.files[0]).drift;
    assert!(matches!(drift.as_slice(), [Drift::Added { .. }, Drift::Removed { .. }]), "{drift:?}");
    let next = chain.send().await;
    assert!(table(&next.files[0]).drift.is_empty() && table(&next.files[0]).mode == Mode::Merge);
    // Another order is no change for a person, but the rows have another form.
    let reordered = "SELECT name, no, id FROM items";
    chain.tables[0].query = Some(reordered.to_owned());
    let whole = chain.send().await;
    assert_eq!((sent(&whole), table(&whole.files[0]).drift.len()), ((Mode::Replace, 1), 0));
}

#[tokio::test]
async fn a_row_that_is_missing_among_the_changed_ones_parks_the_transfer() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, no BIGINT); INSERT INTO items VALUES (1, 1), (2, 2);",
        vec![incremental("items", &["id"], &["no"], Overlap::Count(1))],
    )
    .await;
    chain.send().await;
    let request =
        ExtractRequest { previous: chain.previous.clone(), form: Form::Plain, ..chain.place.request(chain.tables.clone()) };
    let failure = super::failures::without_row(request, 2).await;
    assert_eq!(failure.code(), Code::ExtractMismatch);
    assert!(failure.message().contains("1 rows were read, the database counts 2"), "{failure}");
}

#[tokio::test]
async fn a_row_of_the_far_future_does_not_stop_the_changes() {
    let mut chain = Chain::new(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, changed TIMESTAMP);
        INSERT INTO items VALUES (1, '2026-02-28 10:00:00'), (2, '9999-12-31 00:00:00');",
        vec![incremental("items", &["id"], &["changed"], Overlap::Equal)],
    )
    .await;
    assert_eq!(watermark(&chain.send().await.files[0]).through, ["2026-02-28T10:00:00"]);
    chain.place.run("INSERT INTO items VALUES (3, '2026-03-01 10:00:00')").await;
    assert_eq!(sent(&chain.send().await), (Mode::Merge, 3));
    assert_eq!(chain.app.rows("items").len(), 3);
}
