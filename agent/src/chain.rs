//! The receipt chain of a transfer: who has signed what, and what that proves. Checked from the files alone; the same
//! can be done with `ssh-keygen -Y verify`.

use std::path::Path;

use serde::Serialize;
use towpath_keys::{AllowedSigners, Namespace};
use towpath_transfer::{
    Code, Failure, TransferId, TransferState,
    digest::Sha256Digest,
    failure::Result,
    manifest::{MAX_MANIFEST_BYTES, Manifest},
    packed::PackedList,
    receipt::{MAX_SIGNATURE_BYTES, Receipt, ReceiptStage, SignedReceipt},
};

use crate::{parts::Parts, small_file, trust::check_receipt, uplink::folder};

/// One document of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The document's file name.
    pub document: String,
    /// Where it lies.
    pub path: String,
    /// Whose signature it carries, where it is believed.
    pub signer: Option<String>,
    /// The fingerprint of the key that signed.
    pub fingerprint: Option<String>,
    /// Whether everything about it is right.
    pub ok: bool,
    /// The operator error code of what is wrong.
    pub code: Option<Code>,
    /// What is proven, or what is wrong, in a sentence.
    pub says: String,
}

/// The chain of one transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// The transfer.
    pub transfer: String,
    /// The word of its state in the journal.
    pub state: &'static str,
    /// Whether every document that should be there is there and right.
    pub ok: bool,
    /// The documents, in the order of the way.
    pub links: Vec<Link>,
}

impl Chain {
    /// The first thing that is wrong.
    #[must_use]
    pub fn problem(&self) -> Option<Failure> {
        let wrong = self.links.iter().find(|link| !link.ok)?;
        Some(Failure::park(wrong.code.unwrap_or(Code::ReceiptInvalid), format!("{}: {}", wrong.document, wrong.says)))
    }
}

/// Checks every document of a transfer that should be there by now.
///
/// # Errors
/// `not-found` where the journal has no such transfer; as journal and disk report. What is wrong with a document is in the chain.
pub async fn verify(parts: &Parts, id: TransferId) -> Result<Chain> {
    let record = parts.journal.get(&parts.key(id)).await?;
    let record = record.ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {id}")))?;
    let signers = parts.trust.signers()?;
    let mut links = Vec::new();
    let manifest = match check_manifest(parts, &signers, id) {
        Ok((manifest, digest, link)) => {
            links.push(link);
            links.extend(check_packed(parts, &manifest, digest));
            Some((manifest, digest))
        }
        Err(failure) => {
            links.push(broken(&parts.layout.manifest(id), &failure));
            None
        }
    };
    for stage in [ReceiptStage::Accepted, ReceiptStage::Imported, ReceiptStage::Rejected] {
        let path = parts.layout.receipt(id, stage);
        match folder::kept_receipt(&*parts.files, &parts.layout, id, stage) {
            Ok(Some(signed)) => links.push(match check_one(parts, &signers, id, &signed, stage, manifest.as_ref()) {
                Ok((signer, fingerprint, says)) => right(&path, signer, fingerprint, says),
                Err(failure) => broken(&path, &failure),
            }),
            Ok(None) if is_due(&record.state, stage) => {
                links.push(broken(&path, &Failure::park(Code::ReceiptInvalid, "this receipt should be here and is missing")));
            }
            Ok(None) => {}
            Err(failure) => links.push(broken(&path, &failure)),
        }
    }
    Ok(Chain { transfer: id.to_string(), state: record.state.word(), ok: links.iter().all(|link| link.ok), links })
}

fn is_due(state: &TransferState, stage: ReceiptStage) -> bool {
    match state {
        TransferState::Accepted { .. } => stage == ReceiptStage::Accepted,
        TransferState::Imported => matches!(stage, ReceiptStage::Accepted | ReceiptStage::Imported),
        TransferState::Rejected { .. } => stage == ReceiptStage::Rejected,
        _ => false,
    }
}

fn check_manifest(parts: &Parts, signers: &AllowedSigners, id: TransferId) -> Result<(Manifest, Sha256Digest, Link)> {
    let path = parts.layout.manifest(id);
    let bytes = small_file::read_existing(&*parts.files, &path, MAX_MANIFEST_BYTES)?;
    let signature = small_file::read_existing(&*parts.files, &parts.layout.signature(id), MAX_SIGNATURE_BYTES)?;
    let key = signers.verify(parts.agent.as_str(), Namespace::Manifest, &bytes, &signature)?;
    let manifest = Manifest::parse(&bytes).map_err(|e| Failure::park(Code::ManifestInvalid, "it cannot be read").caused_by(e))?;
    if manifest.transfer != id {
        return Err(Failure::park(Code::ManifestInvalid, format!("it belongs to transfer {}", manifest.transfer)));
    }
    let says = format!(
        "this agent signed, on {}, that {} rows in {} tables of job {} are what it read from the ERP",
        manifest.created,
        rows_of(&manifest),
        manifest.files.len(),
        manifest.job
    );
    let link = right(&path, parts.agent.to_string(), key.fingerprint().to_string(), says);
    Ok((manifest, Sha256Digest::of(&bytes), link))
}

fn check_packed(parts: &Parts, manifest: &Manifest, digest: Sha256Digest) -> Option<Link> {
    let id = manifest.transfer;
    let path = parts.layout.packed(id);
    if !small_file::exists(&*parts.files, &path) {
        return None;
    }
    let fits = |list: PackedList| {
        let unfit = |e| Failure::park(Code::PackedListInvalid, "it does not belong to the manifest").caused_by(e);
        list.check_against(manifest, digest).map_err(unfit).map(|()| list.files.len())
    };
    Some(match folder::packed_list(&*parts.files, &parts.layout, id).and_then(fits) {
        Ok(files) => Link {
            document: name_of(&path),
            path: path.display().to_string(),
            signer: None,
            fingerprint: None,
            ok: true,
            code: None,
            says: format!("names exactly this manifest and {files} packed files"),
        },
        Err(failure) => broken(&path, &failure),
    })
}

fn check_one(
    parts: &Parts,
    signers: &AllowedSigners,
    id: TransferId,
    signed: &SignedReceipt,
    stage: ReceiptStage,
    manifest: Option<&(Manifest, Sha256Digest)>,
) -> Result<(String, String, String)> {
    let wrong = |why: &str| Failure::park(Code::ReceiptInvalid, why.to_owned());
    let receipt = signed.parse().map_err(|e| wrong("it cannot be read").caused_by(e))?;
    if receipt.key() != parts.key(id) || receipt.stage != stage {
        return Err(wrong("it is of another transfer or stage"));
    }
    let signer = check_receipt(signers, &parts.agent, signed, &receipt)?;
    if stage != ReceiptStage::Rejected {
        let (manifest, digest) = manifest.ok_or_else(|| wrong("there is no manifest that it could be for"))?;
        if receipt.manifest != Some(*digest) {
            return Err(wrong("it is for another manifest"));
        }
        if stage == ReceiptStage::Imported {
            same_rows(manifest, &receipt)?;
        }
    }
    let says = sentence(&receipt, &signer);
    Ok((signer, receipt.signer.to_string(), says))
}

/// The rows that the receiver counted in its database are those of the manifest.
fn same_rows(manifest: &Manifest, receipt: &Receipt) -> Result<()> {
    for table in manifest.files.iter().filter_map(|file| file.table()) {
        let counted = receipt.rows.iter().find(|rows| rows.table == table.table).map(|rows| rows.rows);
        if counted != Some(table.rows) {
            let counted = counted.map_or_else(|| "no".to_owned(), |rows| rows.to_string());
            let why = format!("table {} has {} rows in the manifest, and {counted} rows were imported", table.table, table.rows);
            return Err(Failure::park(Code::ReceiptInvalid, why));
        }
    }
    Ok(())
}

fn sentence(receipt: &Receipt, signer: &str) -> String {
    let time = receipt.time;
    match receipt.stage {
        ReceiptStage::Accepted => format!("the relay signed, on {time}, that it held every file of exactly this manifest, whole"),
        ReceiptStage::Imported => {
            let rows: u64 = receipt.rows.iter().map(|table| table.rows).sum();
            let tables = receipt.rows.len();
            format!(
                "receiver {signer} signed, on {time}, that the app has all {rows} rows in {tables} tables of exactly this manifest"
            )
        }
        ReceiptStage::Rejected => {
            let why = receipt.reason.as_ref().map_or_else(String::new, |reason| format!(": {} [{}]", reason.detail, reason.code));
            format!("receiver {signer} signed, on {time}, that nothing of this transfer was imported{why}")
        }
        ReceiptStage::Delivered => format!("{signer} signed, on {time}, that every file was delivered"),
    }
}

fn rows_of(manifest: &Manifest) -> u64 {
    manifest.files.iter().filter_map(|file| file.table()).map(|table| table.rows).sum()
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn right(path: &Path, signer: String, fingerprint: String, says: String) -> Link {
    let (document, path) = (name_of(path), path.display().to_string());
    Link { document, path, signer: Some(signer), fingerprint: Some(fingerprint), ok: true, code: None, says }
}

fn broken(path: &Path, failure: &Failure) -> Link {
    let report = failure.report();
    // The code stands beside the sentence.
    let says = report.strip_suffix(&format!(" [{}]", failure.code())).unwrap_or(&report).to_owned();
    let (document, path) = (name_of(path), path.display().to_string());
    Link { document, path, signer: None, fingerprint: None, ok: false, code: Some(failure.code()), says }
}
