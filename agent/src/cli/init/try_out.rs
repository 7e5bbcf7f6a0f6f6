//! The dry run: everything is read and packed as it would be sent, and thrown away.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use tokio::sync::mpsc;
use towpath_transfer::{Code, Failure, TransferId, failure::Result, manifest::Label};
use towpath_transport::files::{file_failure, ignore_missing};

use super::SetUp;
use crate::{
    cli::{output, progress::Console},
    config::JobConfig,
    extract::{ExtractEvent, ExtractRequest, Form, extract},
    host::Host,
    parts::Watcher as _,
    uplink::extract::{MAX_WAITING_EVENTS, progress},
};

/// A table that was read.
#[derive(Debug, Serialize)]
pub(super) struct DryTable {
    table: Label,
    rows: u64,
    /// Bytes as CSV.
    csv_bytes: u64,
    /// Bytes packed, as they would be sent.
    packed_bytes: u64,
}

impl SetUp<'_> {
    /// Reads every table of every job, unless that is not wanted or only the service can. A person may go on although it has failed.
    pub(super) async fn dry_run(&self, host: &Host) -> Result<Vec<DryTable>> {
        if self.answers.dry_run == Some(false) {
            output::say("left out");
            return Ok(Vec::new());
        }
        let mut tables = Vec::new();
        for line in host.settings().unseen() {
            output::say(&format!("note: {line}"));
        }
        for job in host.settings().jobs.iter().filter(|job| !job.source.is_unseen()) {
            match self.dry_job(host, job).await {
                Ok(read) => tables.extend(read),
                Err(failure) if self.dialog.is_there() && failure.code() != Code::Cancelled => {
                    output::say(&format!("job {}: {}\nhelp: see docs/errors/{}.md", job.name, failure.report(), failure.code()));
                    if !self.dialog.yes("Go on all the same, and mend it in the configuration later?", false).await? {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        let row = |table: &DryTable| {
            vec![
                table.table.to_string(),
                output::grouped(table.rows),
                output::grouped(table.csv_bytes),
                output::grouped(table.packed_bytes),
            ]
        };
        // Only the result stands on standard output.
        output::say(&output::table_text(&["table", "rows", "csv bytes", "bytes to send"], tables.iter().map(row).collect()));
        Ok(tables)
    }

    async fn dry_job(&self, host: &Host, job: &JobConfig) -> Result<Vec<DryTable>> {
        let folder = host.layout.dry_run();
        let clear = || {
            let gone = ignore_missing(host.files.remove_dir_all(&folder));
            gone.map_err(|error| file_failure("removing", &folder, error))
        };
        clear()?;
        host.files.create_dir_all(&folder).map_err(|error| file_failure("making the folder", &folder, error))?;
        let request = ExtractRequest {
            job: job.clone(),
            folder: folder.clone(),
            previous: None,
            full: true,
            anew: BTreeSet::new(),
            form: Form::Packed,
        };
        let (events, mut seen) = mpsc::channel(MAX_WAITING_EVENTS);
        let console = Arc::new(Console::new());
        let id = TransferId::new(&**host.clock(), &**host.entropy());
        let show = async {
            let mut tables = Vec::new();
            while let Some(event) = seen.recv().await {
                if let ExtractEvent::TableFinished { table, rows, bytes, packed, .. } = &event {
                    tables.push(DryTable { table: table.clone(), rows: *rows, csv_bytes: *bytes, packed_bytes: *packed });
                }
                if let Some(progress) = progress(event) {
                    console.progress(id, &progress);
                }
            }
            tables
        };
        let parts = host.extract_parts();
        let (extracted, tables) = tokio::join!(extract(&parts, request, events, self.dialog.stop().clone()), show);
        console.finish();
        clear()?;
        let extracted = extracted.map_err(|failure| match failure.code() {
            Code::Cancelled => Failure::park(Code::Cancelled, "told to stop; nothing was written"),
            _ => failure,
        })?;
        for warning in &extracted.warnings {
            output::say(&format!("warning: {warning}"));
        }
        Ok(tables)
    }
}
