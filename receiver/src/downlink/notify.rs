//! `notify`: tells the relay what it may fetch.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome, TransferRecord};
use towpath_transfer::{
    Code, Failure, RemotePath, Stage, TransferEvent, TransferState,
    api::Export,
    manifest::MANIFEST_NAME,
    state::{Announced, Place},
};

use super::export::{LaidOut, laid_out, restore};
use crate::{parts::Parts, uplink::verify::blocking};

/// The stage.
#[derive(Debug, Clone)]
pub struct Notify(pub Arc<Parts>);

#[async_trait]
impl Step for Notify {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Notify
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let TransferState::Exported { manifest } = lease.record.state else {
            return Err(Failure::park(Code::Internal, format!("transfer {} is not to be announced", lease.key())));
        };
        let (parts, record) = (Arc::clone(&self.0), lease.record.clone());
        let laid = blocking(move || match laid_out(&parts, &record.key)? {
            Some(laid) if laid.digest == manifest => Ok(laid),
            _ => restore(&parts, &record, manifest),
        })
        .await?;
        let export = export(&lease.record, laid)?;
        let status = self.0.relay.export(&export).await?;
        if status.transfer != export.transfer {
            let told = format!("told of transfer {}, the relay answered for {}", export.transfer, status.transfer);
            return Err(Failure::retry(Code::RelayProtocol, told));
        }
        Ok(StepOutcome::Event(TransferEvent::Notified))
    }
}

fn export(record: &TransferRecord, laid: LaidOut) -> Result<Export, Failure> {
    let key = &record.key;
    let sequence = record.sequence.ok_or_else(|| Failure::park(Code::Internal, format!("transfer {key} has no number")))?;
    // Counted from the landing's folder, as `Layout::laid_out` has it on disk.
    let path: RemotePath = format!("downlink/{}/{}/{MANIFEST_NAME}", key.agent, key.id).parse().map_err(
        |e: towpath_transfer::name::InvalidName| Failure::park(Code::Internal, "a path of our own is none").caused_by(e),
    )?;
    let announced = Announced { path, size: laid.size, manifest: laid.digest };
    Ok(Export { transfer: key.id, agent: key.agent.clone(), sequence, announced })
}
