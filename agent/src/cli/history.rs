//! `history` and `show`: the transfers that were made.

use std::sync::Arc;

use towpath_journal::{Filter, MAX_LIST, TransferRecord};
use towpath_transfer::{Code, Direction, Failure, failure::Result, state::Outcome};

use super::{
    output, quietly,
    status::of,
    tables,
    transfer_args::{HistoryArgs, ShowArgs},
};
use crate::{
    host::Host,
    parts::Parts,
    view::{FileView, TransferDetail, TransferView, action_output, detail},
};

pub(super) async fn history(host: &Host, args: &HistoryArgs) -> Result<()> {
    quietly(host, async |open| {
        let parts = &open.parts;
        let of = of(parts, args.job.as_ref());
        let filter = Filter { direction: args.direction.map(Into::into).or(of.direction), ..of };
        let records = parts.journal.list(&filter, args.limit.min(MAX_LIST), None).await?;
        let views: Vec<TransferView> = records.iter().map(Into::into).collect();
        if args.output.json {
            return output::json(&views);
        }
        let rows = views.into_iter().map(|one| {
            let reason = one.rejection.map(|r| r.code).or(one.failure.map(|f| f.code));
            vec![
                one.transfer,
                one.direction.to_string(),
                one.job.unwrap_or_default(),
                one.sequence.map(|n| n.to_string()).unwrap_or_default(),
                if one.parked { format!("{} (parked)", one.state) } else { one.state.to_owned() },
                one.created.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                reason.map(|code| code.to_string()).unwrap_or_default(),
            ]
        });
        let columns = ["transfer", "direction", "job", "seq", "state", "created (utc)", "reason"];
        output::table(&columns, rows.collect(), "nothing was sent or received yet")
    })
    .await
}

pub(super) async fn show(host: &Host, args: &ShowArgs) -> Result<()> {
    quietly(host, async |open| {
        let record = find(&open.parts, args.transfer).await?;
        let view = detail(&open.parts, &record).await?;
        if args.output.json {
            return output::json(&view);
        }
        tell_one(&view)?;
        match action_output(&open.parts, &record)? {
            Some(printed) => output::line(&format!("\nwhat followed the delivery has printed:\n{}", printed.trim_end())),
            None => Ok(()),
        }
    })
    .await
}

async fn find(parts: &Arc<Parts>, id: towpath_transfer::TransferId) -> Result<TransferRecord> {
    let found = parts.journal.get(&parts.key(id)).await?;
    found.ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {id}; see: towpath-agent history")))
}

fn tell_one(one: &TransferDetail) -> Result<()> {
    let view = &one.view;
    output::line(&format!("transfer {} ({}, {})", view.transfer, view.direction, view.job.as_deref().unwrap_or("?")))?;
    let parked = if view.parked { ", waits for a person" } else { "" };
    output::line(&format!("state    {}{parked}", view.state))?;
    output::line(&format!("folder   {}", one.folder))?;
    if let Some(failure) = &view.failure {
        output::line(&format!("trouble  {} [{}]", failure.report, failure.code))?;
    }
    if let Some(rejection) = &view.rejection {
        output::line(&format!("rejected {} [{}]", rejection.detail, rejection.code))?;
    }
    for receipt in &one.receipts {
        output::line(&format!("receipt  {receipt}"))?;
    }
    tables::tell_source("source  ", one.snapshot.as_ref(), &one.warnings)?;
    if view.direction == Direction::Downlink {
        tell_files(one)?;
    } else {
        tables::tell(&one.tables, "no table is read yet")?;
    }
    for event in &one.events {
        output::line(&format!("{}  {}", event.at.strftime("%Y-%m-%d %H:%M:%S"), event_word(&event.event)))?;
    }
    Ok(())
}

fn tell_files(one: &TransferDetail) -> Result<()> {
    if let Some(kind) = &one.kind {
        output::line(&format!("kind     {kind}"))?;
    }
    if let Some(folder) = &one.delivery_folder {
        output::line(&format!("to       {folder}"))?;
    }
    let row = |file: &FileView| {
        vec![file.file.clone(), output::grouped(file.bytes), file.placed.clone().unwrap_or_else(|| "-".to_owned())]
    };
    output::table(&["file", "bytes", "name there"], one.files.iter().map(row).collect(), "its manifest is not here yet")
}

fn event_word(event: &towpath_transfer::TransferEvent) -> &'static str {
    use towpath_transfer::TransferEvent as E;
    match event {
        E::Extracted { .. } => "extracted: manifest signed",
        E::Packed { .. } => "packed: everything to send is on disk",
        E::Pushed => "pushed: the relay was told that it is complete",
        E::PushAgain => "the relay asks for files again",
        E::Accepted => "accepted: the relay has signed for every file",
        E::Settled { .. } => "settled: the last receipt has arrived",
        E::Pulled => "pulled: every packed file is here",
        E::Verified { .. } => "verified: everything agrees with the receiver's signature",
        E::Staged { .. } => "staged: every file lies whole beside the delivery folder's own",
        E::Placed => "placed: every file has its name in the delivery folder",
        E::Decided { outcome: Outcome::Delivered } => "decided: signed as delivered",
        E::Decided { .. } => "decided: signed as rejected",
        E::Abandoned { .. } => "abandoned",
        _ => "moved on",
    }
}
