//! `diff`: what has changed between two transfers.

use towpath_transfer::{Code, Failure, TransferId, failure::Result, manifest::Manifest};

use super::{output, quietly, transfer_args::DiffArgs};
use crate::{
    host::Host,
    parts::Parts,
    uplink::folder,
    view::{Difference, TableDifference, difference},
};

pub(super) async fn run(host: &Host, args: &DiffArgs) -> Result<()> {
    quietly(host, async |open| {
        let (from, to) = (manifest(&open.parts, args.from).await?, manifest(&open.parts, args.to).await?);
        let found = difference(&from, &to)?;
        if args.output.json { output::json(&found) } else { tell(&found) }
    })
    .await
}

async fn manifest(parts: &Parts, id: TransferId) -> Result<Manifest> {
    let record = parts.journal.get(&parts.key(id)).await?;
    let unknown = || Failure::park(Code::NotFound, format!("there is no transfer {id}; see: towpath-agent history"));
    let direction = record.ok_or_else(unknown)?.direction;
    let unread = |failure: Failure| {
        let message = format!("transfer {id} has no manifest here: it was not read yet, or is not kept any more");
        Failure::park(Code::NotFound, message).caused_by(failure)
    };
    Ok(folder::manifest(&*parts.files, &parts.layout.of(direction), id).map_err(unread)?.0)
}

fn tell(found: &Difference) -> Result<()> {
    for (word, side) in [("from", &found.from), ("to  ", &found.to)] {
        output::line(&format!("{word}  {}  {}", side.transfer, side.created.strftime("%Y-%m-%d %H:%M:%S UTC")))?;
    }
    let rows = |rows: Option<u64>| rows.map_or_else(|| "-".to_owned(), output::grouped);
    let row = |table: &TableDifference| {
        vec![table.table.to_string(), table.change.as_str().to_owned(), rows(table.rows_before), rows(table.rows_after)]
    };
    let lines = found.tables.iter().map(row).collect();
    output::table(&["table", "change", "rows before", "rows after"], lines, "neither transfer has a table")?;
    for table in &found.tables {
        for change in &table.columns {
            output::line(&format!("{}: {change}", table.table))?;
        }
        for total in &table.totals {
            let values = match total.count_after.cmp(&total.count_before) {
                std::cmp::Ordering::Equal => String::new(),
                _ => format!(", values {} -> {}", total.count_before, total.count_after),
            };
            output::line(&format!(
                "{}: sum of {} {} -> {} ({}{}{values})",
                table.table,
                total.column,
                total.sum_before,
                total.sum_after,
                if total.difference.is_negative() { "" } else { "+" },
                total.difference
            ))?;
        }
    }
    Ok(())
}
