//! Tables as they are printed: what was read of each, how it was sent, and what is worth saying.

use towpath_transfer::failure::Result;

use super::output;
use crate::view::{SnapshotView, TableView};

/// The most tables that are told one by one where not all were asked for.
const MAX_TOLD: usize = 20;

/// All tables of a transfer, and their remarks.
pub(super) fn tell(tables: &[TableView], if_none: &str) -> Result<()> {
    let row = |table: &TableView| {
        let app_rows = table.app_rows.map_or_else(|| "-".to_owned(), output::grouped);
        vec![
            table.table.clone(),
            output::grouped(table.rows),
            table.sent_as(),
            output::grouped(table.csv_bytes),
            output::grouped(table.packed_bytes),
            app_rows,
        ]
    };
    let columns = ["table", "rows", "sent as", "csv bytes", "sent bytes", "rows in the app"];
    output::table(&columns, tables.iter().map(row).collect(), if_none)?;
    for table in tables {
        for remark in table.remarks() {
            output::line(&format!("{}: {remark}", table.table))?;
        }
    }
    Ok(())
}

/// Of a job's tables those that are worth a line each, up to [`MAX_TOLD`]; `transfer` is where the others are told.
pub(super) fn tell_remarkable(job: &str, tables: &[TableView], transfer: &str) -> Result<()> {
    let remarkable: Vec<&TableView> = tables.iter().filter(|table| !table.remarks().is_empty()).collect();
    for table in remarkable.iter().take(MAX_TOLD) {
        let in_app = table.app_rows.map(|rows| format!(", {} in the app", output::grouped(rows))).unwrap_or_default();
        let (name, rows) = (&table.table, output::grouped(table.rows));
        output::line(&format!("{job}: {name}: {}, {rows} rows{in_app}; {}", table.sent_as(), table.remarks().join("; ")))?;
    }
    match remarkable.len().saturating_sub(MAX_TOLD) {
        0 => Ok(()),
        more => output::hint(&format!("{job}: {more} more tables: towpath-agent show {transfer}")),
    }
}

/// How the database was read, and what an administrator should know of it. `what` is how each line begins.
pub(super) fn tell_source(what: &str, snapshot: Option<&SnapshotView>, warnings: &[String]) -> Result<()> {
    if let Some(snapshot) = snapshot {
        let consistent = if snapshot.consistent {
            "all tables are of one state of the database"
        } else {
            "the tables are NOT of one state of the database"
        };
        output::line(&format!("{what} {consistent} ({})", snapshot.isolation))?;
    }
    warnings.iter().try_for_each(|warning| output::line(&format!("{what} warning: {warning}")))
}
