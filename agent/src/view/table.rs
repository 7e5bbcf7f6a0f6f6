//! One table of a transfer: what was read of it, and how it was sent.

use jiff::Timestamp;
use serde::Serialize;
use towpath_journal::TransferRecord;
use towpath_transfer::{
    Code, Failure,
    failure::Result,
    manifest::{Content, Drift, FileEntry, Label, Mode, Watermark},
    packed::{PackedFile, packed_name},
    receipt::{ReceiptStage, TableRows},
};

use crate::{parts::Parts, small_file, uplink::folder};

/// The most bytes of a source's warnings that are read.
const MAX_WARNINGS_BYTES: usize = 1024 * 1024;

/// One table of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableView {
    /// The table.
    pub table: String,
    /// Its CSV file.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// The length of its CSV in bytes.
    pub csv_bytes: u64,
    /// The length of its packed file in bytes; 0 where nothing was sent.
    pub packed_bytes: u64,
    /// Whether nothing was sent because the app has exactly this content.
    pub unchanged: bool,
    /// Whether its rows are the app's table, or are merged into it by key.
    pub mode: Mode,
    /// The transfer that it builds on.
    pub base: Option<String>,
    /// Its key.
    pub key: Vec<Label>,
    /// The range of the watermark, where only changed rows are sent.
    pub watermark: Option<Watermark>,
    /// When all rows or all keys were last sent, where only changed rows are sent otherwise.
    pub compared: Option<Timestamp>,
    /// How many keys went with it, so that rows which the ERP has deleted are found; absent where none did.
    pub keys: Option<u64>,
    /// How its columns differ from those of the job's last import.
    pub drift: Vec<Drift>,
    /// Columns whose values are pseudonyms.
    pub pseudonymised: Vec<Label>,
    /// Texts in which NUL characters were replaced.
    pub nul_replaced: u64,
    /// Rows that the app's table has since, as the receiver has signed.
    pub app_rows: Option<u64>,
}

impl TableView {
    /// How it was sent, in a few words.
    #[must_use]
    pub fn sent_as(&self) -> String {
        match (&self.watermark, self.mode) {
            _ if self.unchanged => "unchanged".to_owned(),
            (Some(watermark), Mode::Merge) => format!("changed since {}", watermark.after.join(" ")),
            (None, Mode::Merge) => "merged by key".to_owned(),
            (_, Mode::Replace) => "whole".to_owned(),
        }
    }

    /// What is worth saying of it beside its rows, a sentence each.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let listed = |names: &[Label]| names.iter().map(Label::as_str).collect::<Vec<_>>().join(", ");
        let mut remarks: Vec<String> = self.drift.iter().map(ToString::to_string).collect();
        if let Some(watermark) = &self.watermark {
            let columns = listed(&watermark.columns);
            remarks.push(match watermark.through.as_slice() {
                [] => format!("no row has a value of {columns} yet, so that the next transfer has the whole table again"),
                through => format!("read through {columns} = {}", through.join(" ")),
            });
        }
        if let Some(keys) = self.keys {
            remarks.push(format!("all {keys} keys were sent with it, so that rows deleted in the ERP are found"));
        }
        if !self.pseudonymised.is_empty() {
            remarks.push(format!("pseudonyms instead of the values of {}", listed(&self.pseudonymised)));
        }
        if self.nul_replaced > 0 {
            remarks.push(format!("NUL characters in {} texts were replaced by U+FFFD", self.nul_replaced));
        }
        remarks
    }
}

/// The tables of a transfer that was read: as far as they can be told without the journal's history.
///
/// # Errors
/// As the disk reports; `manifest-invalid` where the manifest was changed.
pub fn tables(parts: &Parts, record: &TransferRecord) -> Result<Vec<TableView>> {
    let id = record.key.id;
    if !small_file::exists(&*parts.files, &parts.layout.manifest(id)) {
        return Ok(Vec::new());
    }
    let (manifest, _) = folder::manifest(&*parts.files, &parts.layout, id)?;
    table_views(manifest.files.iter(), &[], &imported_rows(parts, record))
}

/// What was noted of the source when a transfer was read.
///
/// # Errors
/// As the disk reports.
pub fn warnings(parts: &Parts, record: &TransferRecord) -> Result<Vec<String>> {
    let noted = folder::noted(&*parts.files, &parts.layout.warnings(record.key.id), MAX_WARNINGS_BYTES)?;
    Ok(noted.unwrap_or_default())
}

/// The rows that the receiver has signed for. A receipt that cannot be read tells none; whether it is genuine `receipts verify` says.
pub(super) fn imported_rows(parts: &Parts, record: &TransferRecord) -> Vec<TableRows> {
    let kept = folder::kept_receipt(&*parts.files, &parts.layout, record.key.id, ReceiptStage::Imported);
    let receipt = kept.ok().flatten().and_then(|signed| signed.parse().ok());
    receipt.map(|receipt| receipt.rows).unwrap_or_default()
}

/// The tables among the files of a manifest.
///
/// # Errors
/// Where a file has a name that no packed file can have.
pub fn table_views<'a>(
    entries: impl Iterator<Item = &'a FileEntry>,
    packed: &[PackedFile],
    imported: &[TableRows],
) -> Result<Vec<TableView>> {
    let mut tables: Vec<TableView> = Vec::new();
    for entry in entries {
        let name = packed_name(&entry.name)
            .map_err(|error| Failure::park(Code::Internal, format!("the packed name of {}", entry.name)).caused_by(error))?;
        let packed_bytes = packed.iter().find(|file| file.name == name).map_or(0, |file| file.size);
        let table = match &entry.content {
            Content::Table(table) => table,
            Content::Keys(keys) => {
                // Keys stand after their table.
                if let Some(of) = tables.iter_mut().rfind(|view| view.table == keys.table.as_str()) {
                    of.keys = Some(keys.rows);
                    of.packed_bytes = of.packed_bytes.saturating_add(packed_bytes);
                }
                continue;
            }
            Content::File => continue,
        };
        tables.push(TableView {
            table: table.table.to_string(),
            file: entry.name.to_string(),
            rows: table.rows,
            csv_bytes: entry.size,
            packed_bytes,
            unchanged: entry.unchanged,
            mode: table.mode,
            base: entry.base.map(|base| base.to_string()),
            key: table.key.clone(),
            watermark: table.watermark.clone(),
            compared: table.compared,
            keys: None,
            drift: table.drift.clone(),
            pseudonymised: table.pseudonymised.clone(),
            nul_replaced: table.nul_replaced,
            app_rows: imported.iter().find(|rows| rows.table == table.table).map(|rows| rows.rows),
        });
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use towpath_transfer::manifest::{Column, SqlType, Table};

    use super::*;

    fn entry(name: &str, content: Content) -> FileEntry {
        let digests = towpath_transfer::digest::FileHasher::new().finish();
        FileEntry {
            name: name.parse().unwrap(),
            media_type: "text/csv".into(),
            size: 10,
            md5: digests.md5,
            sha256: digests.sha256,
            unchanged: false,
            base: None,
            content,
        }
    }

    #[test]
    fn everything_that_a_person_should_know_of_a_table_is_told() {
        let label = |text: &str| -> Label { text.parse().unwrap() };
        let column = |name, sql_type| Column { name: label(name), sql_type, nullable: true };
        let columns = vec![column("id", SqlType::Text), column("changed", SqlType::Timestamp)];
        let whole = Table::whole(label("items"), columns, 3, Vec::new());
        let mut table = Table {
            mode: Mode::Merge,
            watermark: Some(Watermark {
                columns: vec![label("changed")],
                after: vec!["2026-02-28T00:00:00".into()],
                through: vec!["2026-03-01T00:00:00".into()],
            }),
            drift: vec![Drift::Removed { column: label("price"), from: SqlType::BigInt }],
            pseudonymised: vec![label("id")],
            nul_replaced: 2,
            ..whole.clone()
        };
        let keys = Content::Keys(Table { rows: 7, ..whole.clone() });
        let imported = [TableRows::new(label("items"), 7)];
        let entries = [entry("items.csv", Content::Table(table.clone())), entry("items.keys.csv", keys)];
        let views = table_views(entries.iter(), &[], &imported).unwrap();
        assert_eq!((views.len(), views[0].keys, views[0].app_rows), (1, Some(7), Some(7)));
        assert_eq!(views[0].sent_as(), "changed since 2026-02-28T00:00:00");
        let remarks = views[0].remarks().join("; ");
        for said in [
            "column price was removed, BIGINT",
            "read through changed = 2026-03-01T00:00:00",
            "all 7 keys",
            "pseudonyms instead of the values of id",
            "in 2 texts were replaced",
        ] {
            assert!(remarks.contains(said), "{remarks}");
        }
        table.watermark.as_mut().unwrap().through.clear();
        table.mode = Mode::Replace;
        let empty = table_views([entry("items.csv", Content::Table(table))].iter(), &[], &[]).unwrap();
        assert_eq!(empty[0].sent_as(), "whole");
        assert!(empty[0].remarks().join("; ").contains("the whole table again"));
        let plain = table_views([entry("items.csv", Content::Table(whole))].iter(), &[], &[]).unwrap();
        assert!(plain[0].remarks().is_empty());
    }
}
