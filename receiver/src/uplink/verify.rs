//! `verify`: compares everything that has landed with the signed manifest, before anything is imported.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, Stage, TransferEvent, TransferKey,
    manifest::{MANIFEST_NAME, Manifest},
    state::Place,
};

use super::{
    check::{self, Expected, Opened},
    decide,
};
use crate::{agent_keys, parts::Parts};

/// The stage.
#[derive(Debug, Clone)]
pub struct Verify(pub Arc<Parts>);

#[async_trait]
impl Step for Verify {
    fn place(&self) -> Place {
        Place::Receiver
    }

    fn stage(&self) -> Stage {
        Stage::Verify
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let (parts, key) = (Arc::clone(&self.0), lease.key().clone());
        agent_keys::follow_signer(&parts, &key).await?;
        blocking(move || verify(&parts, &key)).await.map(StepOutcome::Event)
    }
}

fn verify(parts: &Parts, key: &TransferKey) -> Result<TransferEvent, Failure> {
    // Decided before, and stopped before the journal knew.
    if let Some(outcome) = decide::decided_before(parts, key)? {
        return Ok(TransferEvent::Decided { outcome });
    }
    let opened = match open(parts, key) {
        Ok(opened) => opened,
        Err(failure) => return reject(parts, key, None, failure),
    };
    match check::contents(&*parts.files, &parts.layout.landed(key), &opened) {
        Ok(_) => Ok(TransferEvent::Verified { manifest: opened.digest }),
        Err(failure) => reject(parts, key, Some(&opened), failure),
    }
}

/// Opens what has landed of a transfer and checks it as far as that needs no content.
///
/// # Errors
/// As [`check::open`].
pub fn open(parts: &Parts, key: &TransferKey) -> Result<Opened, Failure> {
    check_is_there(parts, key)?;
    let expected = Expected { tenant: Some(key.tenant.clone()), agent: Some(key.agent.clone()), transfer: Some(key.id) };
    let opened = check::open(&*parts.files, &parts.layout.landed(key), &expected, &parts.trust.signers()?)?;
    check_sizes(&opened.manifest, parts.limits.unpacked_file_bytes)?;
    for file in &opened.manifest.files {
        match file.csv() {
            Some(table) if parts.tables.allows(table.table.as_str()) => {}
            Some(table) => {
                let told = format!("table {} is not among the tables this receiver imports", table.table);
                return Err(Failure::park(Code::ImportRefused, told));
            }
            None => return Err(Failure::park(Code::ImportRefused, format!("{} is not a table", file.name))),
        }
    }
    Ok(opened)
}

/// What has landed is known by its manifest. Where that is gone it is this machine's disk that has lost it, and nobody is to blame.
fn check_is_there(parts: &Parts, key: &TransferKey) -> Result<(), Failure> {
    match parts.files.stat(&parts.layout.landed(key).join(MANIFEST_NAME)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let told = "the manifest of what has landed is gone: is the volume of the landing there? The relay hands the transfer on \
                        once more";
            Err(Failure::retry(Code::FileFailed, told).caused_by(e))
        }
        _ => Ok(()),
    }
}

/// Refuses a transfer of which a file says that it unpacks to more than `limit` bytes.
///
/// # Errors
/// `limit-exceeded`.
pub fn check_sizes(manifest: &Manifest, limit: u64) -> Result<(), Failure> {
    match manifest.sent_files().find(|file| file.size > limit) {
        None => Ok(()),
        Some(file) => {
            let told = format!("{} would unpack to {} bytes, and this receiver takes at most {limit}", file.name, file.size);
            Err(Failure::park(Code::LimitExceeded, told))
        }
    }
}

/// Decides against the transfer where the failure is its own; passes every other failure on.
///
/// # Errors
/// The failure itself, or what went wrong while deciding.
pub fn reject(parts: &Parts, key: &TransferKey, opened: Option<&Opened>, failure: Failure) -> Result<TransferEvent, Failure> {
    if !decide::is_rejection(&failure) {
        return Err(failure);
    }
    let outcome = decide::rejected(parts, key, opened.map(|o| o.digest), &failure)?;
    Ok(TransferEvent::Decided { outcome })
}

/// Runs file work on a thread that may block.
///
/// # Errors
/// What `work` returns; `internal` where it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let joined = towpath_transport::files::blocking(work).await;
    joined.map_err(|e| Failure::park(Code::Internal, "a worker thread failed").caused_by(e))?
}
