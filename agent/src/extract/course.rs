//! Which course a table takes: its rows as they are, or only those that have changed since the last import.
//!
//! Nothing is kept for this but the manifests: what the app has is what the last imported one says.

use std::time::Duration;

use jiff::Timestamp;
use towpath_transfer::{
    TransferId,
    digest::Sha256Digest,
    manifest::{Mode, Table},
};

use super::{
    columns::Columns,
    source::{Since, SinceValue},
    watermark,
};
use crate::config::{EachFile, IncrementalConfig, TableConfig};

/// What a table of the app is known to be: as a manifest has it that was imported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Imported<'a> {
    pub(super) transfer: TransferId,
    pub(super) table: &'a Table,
    /// The digest of the CSV; of a merged table that of its changed rows.
    pub(super) sha256: Sha256Digest,
}

/// How the rows of a table go into the app's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// As the manifest has it.
    pub(super) mode: Mode,
    /// What a merge builds on; without it the app's table is emptied first.
    pub(super) base: Option<TransferId>,
    /// From where on rows are read; `None` for all.
    pub(super) since: Option<Since>,
    /// The greatest watermark so far.
    pub(super) through: Vec<String>,
    /// When the app was last known to have exactly the ERP's rows, where the table is incremental.
    pub(super) compared: Option<Timestamp>,
    /// Whether all keys follow.
    pub(super) keys: bool,
    /// What the app has; where the bytes come out the same, they are not sent.
    pub(super) same_as: Option<(TransferId, Sha256Digest)>,
}

impl Course {
    const fn whole() -> Self {
        Self { mode: Mode::Replace, base: None, since: None, through: Vec::new(), compared: None, keys: false, same_as: None }
    }
}

/// Decides over one table. `full` sends every row whatever the app has.
pub(super) fn decide(
    table: &TableConfig,
    columns: &Columns,
    pseudonyms: Option<Sha256Digest>,
    imported: Option<Imported<'_>>,
    full: bool,
    now: Timestamp,
) -> Course {
    let known = imported.filter(|imported| !full && goes_on(columns, pseudonyms, imported.table));
    if table.each_file == EachFile::Merges {
        return merged_files(known);
    }
    let whole = Course {
        // What the app has of a merged table is more than its last file.
        same_as: known
            .filter(|imported| imported.table.mode == Mode::Replace)
            .map(|imported| (imported.transfer, imported.sha256)),
        compared: table.incremental.as_ref().map(|_| now),
        ..Course::whole()
    };
    let changed = |incremental| changed_rows(incremental, columns, known?, now);
    table.incremental.as_ref().and_then(changed).unwrap_or(whole)
}

/// Whether the app's table can be gone on with: it has these very columns, this key, and pseudonyms by the same key.
fn goes_on(columns: &Columns, pseudonyms: Option<Sha256Digest>, before: &Table) -> bool {
    before.columns == columns.sent
        && before.key == columns.key
        && before.pseudonymised == columns.pseudonymised
        && before.pseudonym_key == pseudonyms.filter(|_| !columns.pseudonymised.is_empty())
}

/// The files of one transfer are merged into what the app has. Where that cannot be gone on with, the app begins anew with them.
fn merged_files(known: Option<Imported<'_>>) -> Course {
    let (base, since) = (known.map(|imported| imported.transfer), known.map(|_| Since::default()));
    Course { mode: Mode::Merge, base, since, ..Course::whole() }
}

/// Only rows from the last watermark on, less the overlap; `None` where there is none to go on from.
fn changed_rows(incremental: &IncrementalConfig, columns: &Columns, known: Imported<'_>, now: Timestamp) -> Option<Course> {
    let before = known.table.watermark.as_ref().filter(|before| before.columns == columns.watermark)?;
    let watermark = columns.watermark_columns();
    if before.through.len() != watermark.len() {
        return None;
    }
    // What was changed since such a one would not be read until the clock has come as far.
    let first = watermark.first().zip(before.through.first());
    if first.is_some_and(|(column, through)| watermark::is_far_ahead(column.sql_type, through, now)) {
        return None;
    }
    // Behind a first column that goes back, the others say nothing.
    let compared = match incremental.overlap {
        crate::config::Overlap::Equal => watermark.len(),
        _ => 1,
    };
    let value = |(column, through): (&towpath_transfer::manifest::Column, &String)| {
        let value = watermark::before(column.sql_type, through, incremental.overlap)?;
        Some(SinceValue { column: column.name.to_string(), sql_type: column.sql_type, value })
    };
    let since: Option<Vec<SinceValue>> = watermark.iter().zip(&before.through).take(compared).map(value).collect();
    let keys = is_due(known.table.compared, incremental.compare_keys, now);
    Some(Course {
        mode: Mode::Merge,
        base: Some(known.transfer),
        since: Some(Since(since?)),
        through: before.through.clone(),
        compared: if keys { Some(now) } else { known.table.compared },
        keys,
        same_as: None,
    })
}

/// A comparison in the future is one by a clock that was wrong.
fn is_due(compared: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    let Some(compared) = compared.filter(|compared| *compared <= now) else { return true };
    Duration::try_from(now.duration_since(compared)).is_ok_and(|since| since >= every)
}

#[cfg(test)]
mod tests {
    use towpath_transfer::manifest::{Column, SqlType, Watermark};

    use super::*;
    use crate::config::Overlap;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn config() -> TableConfig {
        TableConfig {
            key: vec!["id".to_owned()],
            incremental: Some(IncrementalConfig {
                watermark: vec!["day".to_owned(), "time".to_owned()],
                overlap: Overlap::Equal,
                compare_keys: DAY,
            }),
            ..TableConfig::whole("items".parse().unwrap())
        }
    }

    fn columns() -> Columns {
        let column = |name: &str, sql_type| Column { name: name.parse().unwrap(), sql_type, nullable: name != "id" };
        let sent = vec![column("id", SqlType::BigInt), column("day", SqlType::Date), column("time", SqlType::Time)];
        Columns {
            read: sent.clone(),
            sent,
            all: true,
            key: vec!["id".parse().unwrap()],
            pseudonymised: Vec::new(),
            watermark: vec!["day".parse().unwrap(), "time".parse().unwrap()],
        }
    }

    fn before() -> Table {
        let columns = columns();
        Table {
            key: columns.key,
            watermark: Some(Watermark {
                columns: columns.watermark,
                after: Vec::new(),
                through: vec!["2026-02-28".to_owned(), "23:00:00".to_owned()],
            }),
            compared: Some(at("2026-03-01T00:00:00Z")),
            ..Table::whole("items".parse().unwrap(), columns.sent, 3, Vec::new())
        }
    }

    fn decided(config: &TableConfig, before: Option<&Table>, full: bool, now: &str) -> Course {
        let transfer = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap();
        let imported = before.map(|table| Imported { transfer, table, sha256: Sha256Digest::of(b"") });
        decide(config, &columns(), None, imported, full, at(now))
    }

    fn shown(course: &Course) -> Vec<(String, String)> {
        course.since.iter().flat_map(|since| &since.0).map(|one| (one.column.clone(), one.value.clone())).collect()
    }

    #[test]
    fn changed_rows_follow_an_import_that_can_be_gone_on_with() {
        let course = decided(&config(), Some(&before()), false, "2026-03-01T12:00:00Z");
        assert_eq!(course.mode, Mode::Merge);
        assert!(course.base.is_some() && !course.keys && course.same_as.is_none());
        assert_eq!(shown(&course), [("day".into(), "2026-02-28".into()), ("time".into(), "23:00:00".into())]);
        assert_eq!(course.compared, Some(at("2026-03-01T00:00:00Z")));
        let mut overlapping = config();
        overlapping.incremental.as_mut().unwrap().overlap = Overlap::Time(DAY);
        let course = decided(&overlapping, Some(&before()), false, "2026-03-01T12:00:00Z");
        assert_eq!(shown(&course), [("day".into(), "2026-02-27".into())]);
        assert_eq!(course.through, ["2026-02-28", "23:00:00"]);
    }

    #[test]
    fn whatever_breaks_the_chain_sends_the_whole_table() {
        let whole = |config: &TableConfig, change: fn(&mut Table), full| {
            let mut before = before();
            change(&mut before);
            let course = decided(config, Some(&before), full, "2026-03-01T12:00:00Z");
            assert_eq!((course.mode, course.base, &course.since), (Mode::Replace, None, &None));
            assert_eq!(course.compared, Some(at("2026-03-01T12:00:00Z")));
            course
        };
        assert!(whole(&config(), |_| {}, true).same_as.is_none());
        whole(&config(), |table| table.columns[1].sql_type = SqlType::Timestamp, false);
        whole(&config(), |table| table.columns.swap(1, 2), false);
        whole(&config(), |table| table.key.clear(), false);
        whole(&config(), |table| table.pseudonym_key = Some(Sha256Digest::of(b"another")), false);
        // The app has these very rows, though not as the beginning of changes.
        assert!(whole(&config(), |table| table.watermark = None, false).same_as.is_some());
        whole(&config(), |table| table.watermark.as_mut().unwrap().columns.truncate(1), false);
        whole(&config(), |table| table.watermark.as_mut().unwrap().through.clear(), false);
        whole(&config(), |table| table.watermark.as_mut().unwrap().through[0] = "never".into(), false);
        // It was taken while the clock was wrong.
        whole(&config(), |table| table.watermark.as_mut().unwrap().through[0] = "2036-01-01".into(), false);
        assert_eq!(decided(&config(), None, false, "2026-03-01T12:00:00Z").mode, Mode::Replace);
        // A merged table's last file is not the table.
        let plain = TableConfig { incremental: None, ..config() };
        let merged = Table { mode: Mode::Merge, ..before() };
        let course = decided(&plain, Some(&merged), false, "2026-03-01T12:00:00Z");
        assert_eq!((course.mode, course.same_as, course.compared), (Mode::Replace, None, None));
        assert!(decided(&plain, Some(&before()), false, "2026-03-01T12:00:00Z").same_as.is_some());
    }

    #[test]
    fn keys_are_compared_when_it_is_time() {
        for (now, keys) in [("2026-03-01T23:59:59Z", false), ("2026-03-02T00:00:00Z", true), ("2026-02-27T00:00:00Z", true)] {
            let course = decided(&config(), Some(&before()), false, now);
            assert_eq!(course.keys, keys, "{now}");
            assert_eq!(course.compared == Some(at(now)), keys, "{now}");
        }
        let never = Table { compared: None, ..before() };
        assert!(decided(&config(), Some(&never), false, "2026-03-01T12:00:00Z").keys);
    }

    #[test]
    fn files_are_merged_into_what_the_app_has_or_begin_anew() {
        let files = TableConfig { incremental: None, each_file: EachFile::Merges, ..config() };
        let merged = Table { mode: Mode::Merge, watermark: None, compared: None, ..before() };
        let course = decided(&files, Some(&merged), false, "2026-03-01T12:00:00Z");
        assert_eq!((course.mode, course.base.is_some(), course.keys), (Mode::Merge, true, false));
        let anew =
            [decided(&files, Some(&merged), true, "2026-03-01T12:00:00Z"), decided(&files, None, false, "2026-03-01T12:00:00Z")];
        assert!(anew.iter().all(|course| (course.mode, course.base) == (Mode::Merge, None)));
    }
}
