//! The decision over a transfer: one receipt, signed once, and never a second one that differs.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use towpath_keys::Namespace;
use towpath_transfer::{
    Code, Direction, Disposition, Failure, JobName, TransferKey,
    digest::Sha256Digest,
    id::MAX_SLUG_BYTES,
    receipt::{Receipt, ReceiptStage, SignedReceipt, TableRows},
    state::{Outcome, Rejection},
};
use towpath_transport::files::{FileStore, file_failure, ignore_missing, write_whole};

use crate::{kept, parts::Parts};

/// The reason beside a transfer in quarantine.
pub const REASON_NAME: &str = "reason.json";

/// The note of an import that was begun and is not signed for yet, beside the receipts.
const NOTE_NAME: &str = "importing";

/// Held from looking for a receipt until a new one is written.
static DECISION: Mutex<()> = Mutex::new(());

/// What lies beside a transfer in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineReason {
    /// When it was rejected.
    pub time: jiff::Timestamp,
    /// Why.
    #[serde(flatten)]
    pub rejection: Rejection,
}

/// Whether a failure says that the transfer itself is wrong, so that no later try can end differently.
#[must_use]
pub fn is_rejection(failure: &Failure) -> bool {
    let about_the_transfer = matches!(
        failure.code(),
        Code::ManifestInvalid
            | Code::SignatureInvalid
            | Code::AgentUnapproved
            | Code::PackedListInvalid
            | Code::TransferIncomplete
            | Code::DigestMismatch
            | Code::ContentInvalid
            | Code::UnpackFailed
            | Code::LimitExceeded
            | Code::Superseded
            | Code::BaseMissing
            | Code::ImportRefused
    );
    about_the_transfer && failure.disposition() == Disposition::Park
}

/// The receipt that was signed for a transfer before, where one was.
///
/// # Errors
/// Where it cannot be read.
pub fn decided(parts: &Parts, key: &TransferKey) -> Result<Option<(Receipt, SignedReceipt)>, Failure> {
    for stage in [ReceiptStage::Imported, ReceiptStage::Rejected] {
        let Some(signed) = kept::receipt(&*parts.files, &parts.layout, key, stage)? else { continue };
        let path = kept::receipt_path(&parts.layout, key, stage);
        let damaged = || Failure::park(Code::ReceiptInvalid, format!("{} was altered on this machine", path.display()));
        let receipt = signed.parse().map_err(|e| damaged().caused_by(e))?;
        towpath_keys::verify(
            signed.signature.as_bytes(),
            Namespace::Receipt,
            signed.receipt.as_bytes(),
            parts.identity.public_key(),
        )
        .map_err(|e| damaged().caused_by(e))?;
        kept::held(&*parts.files, &path)?;
        return Ok(Some((receipt, signed)));
    }
    Ok(None)
}

/// How a transfer was decided before, where it was; what may have been left undone after a rejection was signed is done now.
///
/// # Errors
/// As [`decided`], or where it cannot be moved to quarantine.
pub fn decided_before(parts: &Parts, key: &TransferKey) -> Result<Option<Outcome>, Failure> {
    let outcome = decided(parts, key)?.and_then(|(receipt, _)| receipt.outcome());
    if let Some(Outcome::Rejected(rejection)) = &outcome {
        quarantine(parts, key, rejection)?;
    }
    Ok(outcome)
}

/// Notes durably, before the transaction begins, whose database a transfer is imported into. Should what has landed be
/// spoilt between the commit and the receipt, the ledger there is still asked first, and nothing that was imported is
/// signed for as rejected.
///
/// # Errors
/// Where it cannot be written.
pub fn note_import(parts: &Parts, key: &TransferKey, job: &JobName) -> Result<(), Failure> {
    let folder = parts.layout.receipts(key);
    parts.files.create_dir_all(&folder).map_err(|e| file_failure("creating", &folder, e))?;
    let path = folder.join(NOTE_NAME);
    write_whole(&*parts.files, &path, job.as_str().as_bytes()).map_err(|e| file_failure("writing", &path, e))
}

/// The job that [`note_import`] has noted.
///
/// # Errors
/// Where it cannot be read.
pub fn noted_import(parts: &Parts, key: &TransferKey) -> Result<Option<JobName>, Failure> {
    let path = parts.layout.receipts(key).join(NOTE_NAME);
    let bytes = kept::read(&*parts.files, &path, MAX_SLUG_BYTES)?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok()))
}

/// Signs for an import. Where a receipt exists already, that one stands.
///
/// # Errors
/// Where it cannot be signed or written.
pub fn imported(parts: &Parts, key: &TransferKey, manifest: Sha256Digest, rows: Vec<TableRows>) -> Result<Outcome, Failure> {
    decide(parts, key, ReceiptStage::Imported, Some(manifest), rows, None)
}

/// Signs a rejection and moves what has landed into quarantine. Where a receipt exists already, that one stands.
///
/// # Errors
/// Where it cannot be signed, written or moved.
pub fn rejected(parts: &Parts, key: &TransferKey, manifest: Option<Sha256Digest>, why: &Failure) -> Result<Outcome, Failure> {
    let report = why.report();
    let detail = report.strip_suffix(&format!(" [{}]", why.code())).unwrap_or(&report).to_owned();
    let rejection = Rejection { code: why.code(), detail };
    let outcome = decide(parts, key, ReceiptStage::Rejected, manifest, Vec::new(), Some(rejection))?;
    if let Outcome::Rejected(rejection) = &outcome {
        quarantine(parts, key, rejection)?;
    }
    Ok(outcome)
}

fn decide(
    parts: &Parts,
    key: &TransferKey,
    stage: ReceiptStage,
    manifest: Option<Sha256Digest>,
    rows: Vec<TableRows>,
    reason: Option<Rejection>,
) -> Result<Outcome, Failure> {
    let outcome_of = |receipt: &Receipt| {
        receipt.outcome().ok_or_else(|| Failure::park(Code::Internal, "a receipt of the receiver decides nothing"))
    };
    // A lease that ran out can bring two workers here at once; the second must find the first one's receipt whole.
    let _one_at_a_time = DECISION.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((receipt, _)) = decided(parts, key)? {
        return outcome_of(&receipt);
    }
    let receipt = Receipt {
        version: 1,
        transfer: key.id,
        tenant: key.tenant.clone(),
        agent: key.agent.clone(),
        direction: Direction::Uplink,
        stage,
        manifest,
        rows,
        reason,
        time: parts.clock.now(),
        signer: parts.identity.fingerprint(),
    };
    let bytes = receipt.to_bytes().map_err(|e| Failure::park(Code::Internal, "writing a receipt failed").caused_by(e))?;
    let signature = parts.identity.sign(Namespace::Receipt, &bytes)?;
    let files = &*parts.files;
    if let (ReceiptStage::Imported, Some(digest)) = (stage, manifest) {
        keep_manifest(parts, key, digest)?;
    }
    let text = String::from_utf8(bytes).map_err(|e| Failure::park(Code::Internal, "a receipt is not text").caused_by(e))?;
    kept::keep_receipt(files, &parts.layout, key, stage, &SignedReceipt { receipt: text, signature })?;
    // A note that comes back after a power cut does no harm: the receipt is looked for first.
    let note = parts.layout.receipts(key).join(NOTE_NAME);
    ignore_missing(files.remove(&note)).map_err(|e| file_failure("removing", &note, e))?;
    outcome_of(&receipt)
}

/// Keeps the manifest that was imported beside the receipt, so that the chain can be checked when nothing else is left of the
/// transfer. Where what has landed was spoilt meanwhile, the receipt alone must do: it names the manifest by its digest.
fn keep_manifest(parts: &Parts, key: &TransferKey, digest: Sha256Digest) -> Result<(), Failure> {
    match kept::manifest(&*parts.files, &parts.layout.landed(key)) {
        Ok(Some((bytes, signature))) if Sha256Digest::of(&bytes) == digest => {
            kept::keep_manifest(&*parts.files, &parts.layout, key, &bytes, &signature)
        }
        Ok(_) => Ok(()),
        Err(failure) => {
            tracing::warn!(transfer = %key, code = %failure.code(), error = %failure.report(), "the manifest is not kept");
            Ok(())
        }
    }
}

fn quarantine(parts: &Parts, key: &TransferKey, rejection: &Rejection) -> Result<(), Failure> {
    let files = &*parts.files;
    let landed = parts.layout.landed(key);
    let target = parts.layout.quarantined(&key.agent, key.id);
    let agent_folder = parts.layout.quarantine().join(key.agent.as_str());
    files.create_dir_all(&agent_folder).map_err(|e| file_failure("creating", &agent_folder, e))?;
    if exists(files, &landed)? {
        if exists(files, &target)? {
            // It has landed again after it was moved: the first copy is the one that was judged.
            remove_tree(files, &landed)?;
        } else {
            files.rename(&landed, &target).map_err(|e| file_failure("moving to quarantine", &landed, e))?;
        }
    }
    // Also where an earlier try has moved it: it may have failed before that was durable. The target comes first, so that it is never
    // in neither.
    files.sync_dir(&agent_folder).map_err(|e| file_failure("syncing", &agent_folder, e))?;
    sync_landing(parts, key)?;
    if exists(files, &target)? {
        let reason = QuarantineReason { time: parts.clock.now(), rejection: rejection.clone() };
        let text = serde_json::to_vec_pretty(&reason)
            .map_err(|e| Failure::park(Code::Internal, "writing a reason failed").caused_by(e))?;
        let path = target.join(REASON_NAME);
        write_whole(files, &path, &text).map_err(|e| file_failure("writing", &path, e))?;
    }
    crate::quarantine::bound(files, &parts.layout, &key.agent, &parts.limits)
}

/// Removes what has landed of a transfer, where it is still there, durably: a part of it that came back with a power cut would be
/// found by nobody. May be repeated.
///
/// # Errors
/// As the disk reports.
pub fn remove_landed(parts: &Parts, key: &TransferKey) -> Result<(), Failure> {
    remove_tree(&*parts.files, &parts.layout.landed(key))?;
    sync_landing(parts, key)
}

/// Makes durable that a transfer does not lie on the landing any more.
fn sync_landing(parts: &Parts, key: &TransferKey) -> Result<(), Failure> {
    let folder = parts.layout.landing_agent(&key.agent);
    ignore_missing(parts.files.sync_dir(&folder)).map_err(|e| file_failure("syncing", &folder, e))
}

fn remove_tree(files: &dyn FileStore, path: &Path) -> Result<(), Failure> {
    ignore_missing(files.remove_dir_all(path)).map_err(|e| file_failure("removing", path, e))
}

fn exists(files: &dyn FileStore, path: &Path) -> Result<bool, Failure> {
    match files.stat(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(file_failure("looking for", path, e)),
    }
}
