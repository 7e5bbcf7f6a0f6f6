//! The tables of a transfer from the ERP, as `show` tells them.

use serde::Serialize;
use towpath_transfer::{
    TransferKey,
    manifest::{Content, Drift, FileEntry, Manifest, Mode},
    receipt::{Receipt, ReceiptStage},
};
use towpath_transport::files::Disk;

use crate::{kept, layout::Layout};

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ShownTable {
    pub(super) table: String,
    /// How its rows go into the app's table.
    pub(super) mode: Mode,
    /// Whether no rows were sent, because they are what they were.
    pub(super) unchanged: bool,
    /// The rows that were sent.
    pub(super) rows: u64,
    /// Whether the keys of all rows came with it.
    pub(super) keys: bool,
    /// The rows that the app's table had after the import.
    pub(super) app_rows: Option<u64>,
    /// How its columns have changed.
    pub(super) drift: Vec<Drift>,
}

/// By the manifest, as long as there is one, and the receipt, once there is one.
pub(super) fn tables(layout: &Layout, key: &TransferKey) -> Vec<ShownTable> {
    let folders = [layout.receipts(key), layout.landed(key), layout.quarantined(&key.agent, key.id)];
    let manifest = folders.iter().find_map(|folder| kept::manifest(&Disk, folder).ok().flatten());
    let Some(manifest) = manifest.and_then(|(bytes, _)| Manifest::parse(&bytes).ok()) else { return Vec::new() };
    let signed = kept::receipt(&Disk, layout, key, ReceiptStage::Imported).ok().flatten();
    shown(&manifest, signed.and_then(|signed| signed.parse().ok()).as_ref())
}

fn shown(manifest: &Manifest, receipt: Option<&Receipt>) -> Vec<ShownTable> {
    let table = |entry: &FileEntry| {
        let table = entry.table()?;
        let counted = receipt.and_then(|receipt| receipt.rows.iter().find(|counted| counted.table == table.table));
        let keys = |other: &FileEntry| matches!(&other.content, Content::Keys(keys) if keys.table == table.table);
        Some(ShownTable {
            table: table.table.to_string(),
            mode: table.mode,
            unchanged: entry.unchanged,
            rows: table.rows,
            keys: manifest.files.iter().any(keys),
            app_rows: counted.map(|counted| counted.rows),
            drift: table.drift.clone(),
        })
    };
    manifest.files.iter().filter_map(table).collect()
}

impl ShownTable {
    /// What a table of text has of it, under [`HEAD`].
    pub(super) fn row(&self) -> Vec<String> {
        let mode = match (self.unchanged, self.mode, self.keys) {
            (true, _, _) => "unchanged",
            (false, Mode::Replace, _) => "replace",
            (false, Mode::Merge, false) => "merge",
            (false, Mode::Merge, true) => "merge, keys compared",
        };
        let app_rows = self.app_rows.map_or_else(String::new, |rows| rows.to_string());
        let drift: Vec<String> = self.drift.iter().map(ToString::to_string).collect();
        vec![self.table.clone(), mode.to_owned(), self.rows.to_string(), app_rows, drift.join("; ")]
    }
}

/// The columns of [`ShownTable::row`].
pub(super) const HEAD: [&str; 5] = ["table", "mode", "rows", "rows in the app", "changed columns"];

#[cfg(test)]
mod tests {
    use towpath_transfer::{manifest::SqlType, receipt::TableRows};

    use super::*;
    use crate::testing::{Is, Plain, Sent, id, manifest, sent, table};

    #[test]
    fn a_table_says_how_it_came_and_what_it_is_now() {
        let drift = vec![Drift::Added { column: "t".parse().unwrap(), to: SqlType::Text }];
        let changes = Plain { is: Is::Changes, base: Some(id(1)), drift, ..table("items", "n,t\r\n4,d\r\n") };
        let keys = Plain { is: Is::Keys, ..table("items", "n\r\n4\r\n") };
        let unchanged = Plain { base: Some(id(1)), ..table("sales", "n,t\r\n1,a\r\n") };
        let manifest = manifest(&Sent { tables: vec![changes, keys, unchanged], ..sent(2) });
        let receipt = Receipt {
            version: 1,
            transfer: id(2),
            tenant: manifest.tenant.clone(),
            agent: manifest.agent.clone(),
            direction: manifest.direction,
            stage: ReceiptStage::Imported,
            manifest: None,
            rows: vec![TableRows::new("items".parse().unwrap(), 7)],
            reason: None,
            time: manifest.created,
            signer: crate::testing::identity(1).fingerprint(),
        };
        let rows: Vec<Vec<String>> = shown(&manifest, Some(&receipt)).iter().map(ShownTable::row).collect();
        assert_eq!(
            rows,
            [["items", "merge, keys compared", "1", "7", "column t was added, TEXT"], ["sales", "unchanged", "1", "", ""]]
        );
    }
}
