//! `receipts`: what is proven, and by whom.

use serde::Serialize;
use towpath_journal::Filter;
use towpath_keys::chain::RECEIPTS;
use towpath_transfer::{Code, Failure, TransferId, failure::Result};

use super::{args::ReceiptsCommand, output, quietly};
use crate::{chain, host::Host, parts::Parts, uplink::folder};

#[derive(Serialize)]
struct ReceiptView {
    stage: &'static str,
    path: String,
    receipt: serde_json::Value,
}

pub(super) async fn run(host: &Host, command: &ReceiptsCommand) -> Result<()> {
    quietly(host, async |open| match command {
        ReceiptsCommand::Verify { transfer, output } => verify(&open.parts, *transfer, output.json).await,
        ReceiptsCommand::Show { transfer, output } => show(&open.parts, *transfer, output.json).await,
    })
    .await
}

/// The transfer that is named, or the newest that has ended.
async fn chosen(parts: &Parts, named: Option<TransferId>) -> Result<TransferId> {
    if let Some(id) = named {
        return Ok(id);
    }
    let ended = Filter { ended: Some(true), ..Filter::default() };
    let newest = parts.journal.list(&ended, 1, None).await?.into_iter().next();
    let none = || Failure::park(Code::NotFound, "no transfer has ended yet, so there is no receipt");
    Ok(newest.ok_or_else(none)?.key.id)
}

async fn verify(parts: &Parts, named: Option<TransferId>, json: bool) -> Result<()> {
    let chain = chain::verify(parts, chosen(parts, named).await?).await?;
    if json {
        output::json(&chain)?;
    } else {
        output::line(&chain.lines().join("\n"))?;
    }
    chain.problem().map_or(Ok(()), Err)
}

async fn show(parts: &Parts, named: Option<TransferId>, json: bool) -> Result<()> {
    let id = chosen(parts, named).await?;
    let unknown = || Failure::park(Code::NotFound, format!("there is no transfer {id}; see: towpath-agent history"));
    let record = parts.journal.get(&parts.key(id)).await?.ok_or_else(unknown)?;
    let layout = parts.layout.of(record.direction);
    let mut found = Vec::new();
    for stage in RECEIPTS {
        let Some(signed) = folder::kept_receipt(&*parts.files, &layout, id, stage)? else { continue };
        let receipt = serde_json::from_str(&signed.receipt)
            .map_err(|error| Failure::park(Code::ReceiptInvalid, format!("the {} receipt", stage.as_str())).caused_by(error))?;
        let path = layout.receipt(id, stage).display().to_string();
        found.push(ReceiptView { stage: stage.as_str(), path, receipt });
    }
    if json {
        return output::json(&found);
    }
    if found.is_empty() {
        return Err(Failure::park(Code::NotFound, format!("there is no receipt of transfer {id} here")));
    }
    for one in &found {
        output::line(&format!("# {}", one.path))?;
        output::json(&one.receipt)?;
    }
    Ok(())
}
