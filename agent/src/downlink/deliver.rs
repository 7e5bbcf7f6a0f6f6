//! Stage `deliver`: staged, placed, acted on, and signed for.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Order, Step, StepOutcome, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId, TransferState,
    digest::Sha256Digest,
    failure::Result,
    manifest::{MANIFEST_NAME, Manifest},
    receipt::MAX_SIGNATURE_BYTES,
    state::{Place, PlacedFile},
};

use super::{
    action::{ActionFile, ActionOf},
    decide,
    download::Downloads,
    stage_files,
};
use crate::{
    blocking::blocking,
    config::{ActionConfig, DeliveryConfig},
    parts::Parts,
    small_file,
    trust::check_receiver,
    uplink::folder,
};

/// Stage `deliver`.
#[derive(Debug, Clone)]
pub struct DeliverStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for DeliverStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Deliver
    }

    /// While nothing fails that is the order in which they were sent; what fails again and again lets the others pass.
    fn order(&self) -> Order {
        Order::Due
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let (parts, record) = (Arc::clone(&self.parts), &lease.record);
        let id = record.key.id;
        let turn = self.parts.delivering.begin(id)?;
        let event = match record.state.clone() {
            TransferState::Verified { manifest } => {
                let manifest = self.manifest(record, manifest).await?;
                let staging = move || {
                    let _turn = turn;
                    stage(&parts, &manifest)
                };
                blocking(staging).await?
            }
            TransferState::Staged { folder, files, .. } => {
                let placing = move || {
                    let _turn = turn;
                    stage_files::place(&parts, id, &PathBuf::from(folder), &files)
                };
                blocking(placing).await?;
                TransferEvent::Placed
            }
            TransferState::Placed { manifest, folder, files } => self.act(record, manifest, folder.into(), files).await?,
            _ => return Err(Failure::park(Code::Internal, format!("transfer {id} is not to be delivered"))),
        };
        Ok(StepOutcome::Event(event))
    }
}

fn stage(parts: &Parts, manifest: &Manifest) -> Result<TransferEvent> {
    check_still_believed(parts, manifest.transfer)?;
    let folder = &delivery(parts, manifest)?.folder;
    let absolute = std::path::absolute(folder);
    let absolute = absolute.map_err(|error| no_folder(folder).caused_by(error))?;
    let files = stage_files::stage(parts, manifest, &absolute)?;
    let folder = absolute.into_os_string().into_string().map_err(|_| no_folder(folder))?;
    Ok(TransferEvent::Staged { folder, files })
}

/// Whoever signed it may have been taken back since it was verified; it waits then, as what is offered does.
fn check_still_believed(parts: &Parts, id: TransferId) -> Result<()> {
    let path = parts.layout.of(Direction::Downlink).signature(id);
    // What was verified counts, also where the disk has spoilt or lost the signature since.
    let Ok(Some(signature)) = small_file::read(&*parts.files, &path, MAX_SIGNATURE_BYTES) else { return Ok(()) };
    match check_receiver(&*parts.trust, &parts.agent, &signature) {
        Err(failure) if failure.code() == Code::ReceiverUnapproved => Err(failure),
        _ => Ok(()),
    }
}

fn no_folder(folder: &std::path::Path) -> Failure {
    Failure::retry(Code::DeliveryFailed, format!("the delivery folder {} cannot be used", folder.display()))
}

/// What the configuration says of return files of this kind.
fn delivery(parts: &Parts, manifest: &Manifest) -> Result<DeliveryConfig> {
    let kind = manifest.kind.as_ref().ok_or_else(|| Failure::park(Code::ManifestInvalid, "the manifest names no kind"))?;
    parts.config.now().delivery(kind, &manifest.job).cloned().ok_or_else(|| {
        let message = format!(
            "the configuration says nowhere where return files of kind {kind} (job {}) are to go: add a [[delivery]] for them",
            manifest.job
        );
        Failure::retry(Code::DeliveryMissing, message)
    })
}

impl DeliverStep {
    /// The manifest with the digest that was verified. One that the disk has spoilt since is fetched once more.
    async fn manifest(&self, record: &TransferRecord, digest: Sha256Digest) -> Result<Manifest> {
        let (parts, id) = (Arc::clone(&self.parts), record.key.id);
        let kept = blocking(move || folder::manifest(&*parts.files, &parts.layout.of(Direction::Downlink), id));
        if let Ok((manifest, found)) = kept.await
            && found == digest
        {
            return Ok(manifest);
        }
        tracing::warn!(transfer = %id, file = MANIFEST_NAME, "damaged on the disk; fetched anew");
        Downloads::of(&self.parts, id)?.manifest(record, digest).await
    }

    /// What is to follow, then the receipt. An action that has succeeded and was not signed for is done again, and knows it.
    async fn act(
        &self,
        record: &TransferRecord,
        digest: Sha256Digest,
        folder: PathBuf,
        files: Vec<PlacedFile>,
    ) -> Result<TransferEvent> {
        let id = record.key.id;
        let parts = Arc::clone(&self.parts);
        if let Some((outcome, _)) = blocking(move || decide::decided(&parts, id, Some(digest))).await? {
            return Ok(TransferEvent::Decided { outcome });
        }
        let manifest = self.manifest(record, digest).await?;
        let parts = Arc::clone(&self.parts);
        let prepared = blocking(move || {
            stage_files::forget(&parts, id, &folder)?;
            let action = delivery(&parts, &manifest)?.action();
            if matches!(action, Some(ActionConfig::Load(_))) {
                stage_files::verified(&parts, &manifest)?;
            }
            let placed = stage_files::placed(&parts, id, &files)?;
            Ok((action, of(&parts, manifest, folder, &placed)?))
        });
        let (action, of) = prepared.await?;
        if let Some(action) = &action {
            self.parts.actions.act(action, &of).await?;
        }
        let parts = Arc::clone(&self.parts);
        let outcome = blocking(move || decide::delivered(&parts, id, digest)).await?;
        Ok(TransferEvent::Decided { outcome })
    }
}

fn of(parts: &Parts, manifest: Manifest, folder: PathBuf, placed: &[PlacedFile]) -> Result<ActionOf> {
    let layout = parts.layout.of(Direction::Downlink);
    let plain = layout.plain(manifest.transfer);
    let kind = manifest.kind.ok_or_else(|| Failure::park(Code::ManifestInvalid, "the manifest names no kind"))?;
    let files = placed.iter().map(|file| ActionFile {
        name: file.name.clone(),
        delivered: folder.join(file.placed.as_str()),
        plain: plain.join(file.name.as_str()),
    });
    Ok(ActionOf {
        transfer: manifest.transfer,
        kind,
        files: files.collect(),
        folder,
        log: layout.action_log(manifest.transfer),
        done: layout.acted(manifest.transfer),
    })
}
