//! How a transfer ended here, signed: one receipt, written once.

use towpath_keys::Namespace;
use towpath_transfer::{
    Code, Direction, Disposition, Failure, TransferId,
    digest::Sha256Digest,
    failure::Result,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::{Outcome, Rejection},
};

use towpath_transport::files::{file_failure, ignore_missing};

use crate::{parts::Parts, small_file, uplink::folder};

/// Whether a failure says that what is signed for a transfer is wrong, in itself or in what the relay lists for it, so that no later try can
/// end differently.
#[must_use]
pub fn is_rejection(failure: &Failure) -> bool {
    let about_the_transfer = matches!(
        failure.code(),
        Code::PackedListInvalid | Code::DigestMismatch | Code::ContentInvalid | Code::UnpackFailed | Code::LimitExceeded
    );
    about_the_transfer && failure.disposition() == Disposition::Park
}

/// A receipt of ours that is kept.
///
/// # Errors
/// `receipt-invalid` where it is damaged, and as the disk reports.
pub fn kept(parts: &Parts, id: TransferId, stage: ReceiptStage) -> Result<Option<SignedReceipt>> {
    folder::kept_receipt(&*parts.files, &parts.layout.of(Direction::Downlink), id, stage)
}

/// The receipt that was signed for a transfer before, where one was: it stands, and is durable. A refusal of another manifest than
/// `manifest` does not: it was told to nobody, because what was told does not begin anew.
///
/// # Errors
/// `receipt-invalid` where it was altered, and as the disk reports.
pub fn decided(parts: &Parts, id: TransferId, manifest: Option<Sha256Digest>) -> Result<Option<(Outcome, SignedReceipt)>> {
    for stage in [ReceiptStage::Delivered, ReceiptStage::Rejected] {
        let of_another =
            |refused: Option<Sha256Digest>| stage == ReceiptStage::Rejected && manifest.is_some() && refused != manifest;
        let signed = match kept(parts, id, stage) {
            // What cannot be read names no manifest.
            Err(failure) if failure.code() == Code::ReceiptInvalid && of_another(None) => continue,
            other => other?,
        };
        let Some(signed) = signed else { continue };
        let altered =
            || Failure::park(Code::ReceiptInvalid, format!("the {} receipt of transfer {id} was altered here", stage.as_str()));
        let receipt = match signed.parse() {
            Err(_) if of_another(None) => continue,
            other => other.map_err(|error| altered().caused_by(error))?,
        };
        if of_another(receipt.manifest) {
            continue;
        }
        // Signed by the key of that time, which may have been followed by another since.
        let (message, signature) = (signed.receipt.as_bytes(), signed.signature.as_bytes());
        let own = parts.trust.signers()?.verify(parts.agent.as_str(), Namespace::Receipt, message, signature);
        own.map_err(|error| altered().caused_by(error))?;
        // From here on the journal, the relay and the receiver rely on this receipt and on no other.
        small_file::held(&*parts.files, &parts.layout.of(Direction::Downlink).receipt(id, stage))?;
        let outcome = receipt.outcome().filter(|_| receipt.key() == parts.key(id) && receipt.stage == stage);
        return Ok(Some((outcome.ok_or_else(altered)?, signed)));
    }
    Ok(None)
}

/// Signs that every file was delivered and that what was to follow has succeeded.
///
/// # Errors
/// Where it cannot be signed or written.
pub fn delivered(parts: &Parts, id: TransferId, manifest: Sha256Digest) -> Result<Outcome> {
    decide(parts, id, ReceiptStage::Delivered, manifest, None)
}

/// Signs that nothing of the transfer is delivered, and why.
///
/// # Errors
/// Where it cannot be signed or written.
pub fn rejected(parts: &Parts, id: TransferId, manifest: Sha256Digest, why: &Failure) -> Result<Outcome> {
    let report = why.report();
    let detail = report.strip_suffix(&format!(" [{}]", why.code())).unwrap_or(&report).to_owned();
    tracing::warn!(transfer = %id, code = %why.code(), "rejected: {report}");
    decide(parts, id, ReceiptStage::Rejected, manifest, Some(Rejection { code: why.code(), detail }))
}

fn decide(
    parts: &Parts,
    id: TransferId,
    stage: ReceiptStage,
    manifest: Sha256Digest,
    reason: Option<Rejection>,
) -> Result<Outcome> {
    if let Some((outcome, _)) = decided(parts, id, Some(manifest))? {
        return Ok(outcome);
    }
    if stage == ReceiptStage::Delivered {
        // What was refused and told to nobody before the transfer began anew must not contradict this.
        let refusal = parts.layout.of(Direction::Downlink).receipt(id, ReceiptStage::Rejected);
        ignore_missing(parts.files.remove(&refusal)).map_err(|error| file_failure("removing", &refusal, error))?;
    }
    let own = parts.identity.now();
    let receipt = Receipt {
        version: 1,
        transfer: id,
        tenant: parts.tenant.clone(),
        agent: parts.agent.clone(),
        direction: Direction::Downlink,
        stage,
        manifest: Some(manifest),
        rows: Vec::new(),
        reason,
        time: parts.clock.now(),
        signer: own.fingerprint(),
    };
    let internal = |what: &str| Failure::park(Code::Internal, format!("the receipt of transfer {id}: {what}"));
    let bytes = receipt.to_bytes().map_err(|error| internal("it cannot be written").caused_by(error))?;
    let outcome = receipt.outcome().ok_or_else(|| internal("it ends nothing"))?;
    let signature = own.sign(Namespace::Receipt, &bytes)?;
    // An agent that enrolled before it signed receipts has its key pinned for manifests only.
    parts.trust.pin(parts.agent.as_str(), Namespace::Receipt, own.public_key())?;
    let receipt = String::from_utf8(bytes).map_err(|error| internal("it is not text").caused_by(error))?;
    let signed = SignedReceipt { receipt, signature };
    folder::keep_receipt(&*parts.files, &parts.layout.of(Direction::Downlink), id, stage, &signed)?;
    Ok(outcome)
}
