//! The receipt chain of a transfer: who has signed what, and what that proves. Checked from the documents alone; the same can
//! be done with `ssh-keygen -Y verify`. Agent and receiver keep different documents and believe different keys; what follows
//! from them, and the words for it, is one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use towpath_transfer::{
    Code, Direction, Failure, TransferKey, TransferState,
    digest::Sha256Digest,
    failure::Result,
    manifest::{Manifest, Mode},
    packed::PackedList,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
};

use crate::{public::PublicKey, sshsig::Namespace};

/// The name under which the relay's receipt key is pinned. No agent or receiver can have it, because names have no `@`.
pub const RELAY_PRINCIPAL: &str = "relay@towpath";

/// Every receipt there is, in the order of the ways.
pub const RECEIPTS: [ReceiptStage; 4] =
    [ReceiptStage::Accepted, ReceiptStage::Imported, ReceiptStage::Delivered, ReceiptStage::Rejected];

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
    /// Which way it travels.
    pub direction: Direction,
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

    /// The chain for a person: a line for the transfer, and one for each document.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let head = format!("transfer {} ({}, {})", self.transfer, self.direction, self.state);
        let told = self.links.iter().map(|link| {
            let mark = if link.ok { "ok   " } else { "WRONG" };
            let key = link.fingerprint.as_ref().map(|key| format!(" (key {key})")).unwrap_or_default();
            let code = link.code.map(|code| format!(" [{code}]")).unwrap_or_default();
            format!("{mark} {:<14} {}{key}{code}", link.document, link.says)
        });
        std::iter::once(head).chain(told).collect()
    }
}

/// Who signs on a transfer's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// The ERP end.
    Agent,
    /// The relay.
    Relay,
    /// The app's end.
    Receiver,
}

impl Party {
    /// Whose word a document is.
    #[must_use]
    pub const fn of(direction: Direction, document: Option<ReceiptStage>) -> Self {
        let (origin, other) = match direction {
            Direction::Uplink => (Self::Agent, Self::Receiver),
            Direction::Downlink => (Self::Receiver, Self::Agent),
        };
        match document {
            None => origin,
            Some(ReceiptStage::Accepted) => Self::Relay,
            Some(ReceiptStage::Imported | ReceiptStage::Delivered | ReceiptStage::Rejected) => other,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Relay => "relay",
            Self::Receiver => "receiver",
        }
    }
}

/// A key that is believed, and the name it is believed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The name.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// Whom one end believes.
pub trait Believes {
    /// Checks a signature that must be by `party`, and says by whom it is.
    ///
    /// # Errors
    /// `signature-invalid`; `agent-unapproved` or `receiver-unapproved` for a key that only a person can approve.
    fn signer(&self, party: Party, namespace: Namespace, message: &[u8], signature: &[u8]) -> Result<Signer>;
}

/// One document as an end keeps it.
#[derive(Debug)]
pub struct Document<T> {
    /// Where it lies, or should.
    pub path: PathBuf,
    /// What lies there.
    pub content: Result<Option<T>>,
    /// Whether it must be there by now.
    pub due: bool,
}

/// What an end keeps of a transfer.
#[derive(Debug)]
pub struct Kept {
    /// `manifest.json` and its signature.
    pub manifest: Document<(Vec<u8>, Vec<u8>)>,
    /// `packed.json`.
    pub packed: Document<Vec<u8>>,
    /// The receipts, in the order of the way.
    pub receipts: Vec<(ReceiptStage, Document<SignedReceipt>)>,
}

/// Checks every document of a transfer that is there or should be.
#[must_use]
pub fn check(key: &TransferKey, direction: Direction, state: &TransferState, kept: Kept, believes: &dyn Believes) -> Chain {
    let checking = Checking { key, direction, believes };
    let mut links = Vec::new();
    let manifest = match kept.manifest.content {
        Ok(Some((bytes, signature))) => match checking.manifest(&bytes, &signature) {
            Ok((manifest, signer, says)) => {
                links.push(right(&kept.manifest.path, Some(&signer), says));
                Origin::Known(Box::new(manifest), Sha256Digest::of(&bytes))
            }
            Err(failure) => {
                links.push(broken(&kept.manifest.path, &failure));
                Origin::Wrong
            }
        },
        Ok(None) if !kept.manifest.due => Origin::NotKept,
        Ok(None) => {
            links.push(missing(&kept.manifest.path, Code::FileFailed));
            Origin::Wrong
        }
        Err(failure) => {
            links.push(broken(&kept.manifest.path, &failure));
            Origin::Wrong
        }
    };
    links.extend(Checking::packed(kept.packed, &manifest));
    let mut ended = None;
    for (stage, document) in kept.receipts {
        match document.content {
            Ok(Some(signed)) => {
                links.push(match checking.receipt(&signed, stage, &manifest, ended) {
                    Ok((signer, says)) => right(&document.path, Some(&signer), says),
                    Err(failure) => broken(&document.path, &failure),
                });
                if stage != ReceiptStage::Accepted {
                    ended = Some(stage);
                }
            }
            Ok(None) if document.due => links.push(missing(&document.path, Code::ReceiptInvalid)),
            Ok(None) => {}
            Err(failure) => links.push(broken(&document.path, &failure)),
        }
    }
    let ok = links.iter().all(|link| link.ok);
    Chain { transfer: key.id.to_string(), direction, state: state.word(), ok, links }
}

/// What is known of the manifest when the receipts are looked at.
enum Origin {
    Known(Box<Manifest>, Sha256Digest),
    /// It is not kept here; a receipt names it by its digest.
    NotKept,
    Wrong,
}

struct Checking<'a> {
    key: &'a TransferKey,
    direction: Direction,
    believes: &'a dyn Believes,
}

impl Checking<'_> {
    fn manifest(&self, bytes: &[u8], signature: &[u8]) -> Result<(Manifest, Signer, String)> {
        let party = Party::of(self.direction, None);
        let signer = self.believes.signer(party, Namespace::Manifest, bytes, signature)?;
        let unusable = |e| Failure::park(Code::ManifestInvalid, "it cannot be read").caused_by(e);
        let manifest = Manifest::parse(bytes).map_err(unusable)?;
        let of = TransferKey { tenant: manifest.tenant.clone(), agent: manifest.agent.clone(), id: manifest.transfer };
        if of != *self.key || manifest.direction != self.direction {
            return Err(Failure::park(Code::ManifestInvalid, format!("it belongs to {} {of}", manifest.direction)));
        }
        let said = match self.direction {
            Direction::Uplink => format!(
                "{} rows in {} tables of job {} are what it read from the ERP",
                rows_of(&manifest),
                manifest.files.len(),
                manifest.job
            ),
            Direction::Downlink => format!(
                "{} of kind {}, {} bytes, are what it sends to agent {} for job {}",
                counted(manifest.files.len(), "file", "files"),
                manifest.kind.as_ref().map_or("none", |kind| kind.as_str()),
                manifest.files.iter().map(|file| file.size).fold(0, u64::saturating_add),
                manifest.agent,
                manifest.job
            ),
        };
        let says = format!("{} {} signed, on {}, that {said}", party.word(), signer.name, manifest.created);
        Ok((manifest, signer, says))
    }

    fn packed(document: Document<Vec<u8>>, manifest: &Origin) -> Option<Link> {
        let path = &document.path;
        // Without a manifest that is believed there is nothing it could be compared with.
        let Origin::Known(manifest, digest) = manifest else { return None };
        let fits = |bytes: &[u8]| -> Result<usize> {
            let unfit = |e| Failure::park(Code::PackedListInvalid, "it does not belong to the manifest").caused_by(e);
            let list = PackedList::parse(bytes).map_err(unfit)?;
            list.check_against(manifest, *digest).map_err(unfit)?;
            Ok(list.files.len())
        };
        match document.content {
            Ok(None) => document.due.then(|| missing(path, Code::PackedListInvalid)),
            Ok(Some(bytes)) => Some(match fits(&bytes) {
                Ok(files) => {
                    let files = counted(files, "packed file", "packed files");
                    right(path, None, format!("names exactly this manifest and {files}"))
                }
                Err(failure) => broken(path, &failure),
            }),
            Err(failure) => Some(broken(path, &failure)),
        }
    }

    fn receipt(
        &self,
        signed: &SignedReceipt,
        stage: ReceiptStage,
        manifest: &Origin,
        ended: Option<ReceiptStage>,
    ) -> Result<(Signer, String)> {
        let wrong = |why: &str| Failure::park(Code::ReceiptInvalid, why.to_owned());
        let receipt = signed.parse().map_err(|error| wrong("it cannot be read").caused_by(error))?;
        if receipt.key() != *self.key || receipt.stage != stage || receipt.direction != self.direction {
            return Err(wrong("it is of another transfer or stage"));
        }
        let signer = self.signed_by(signed, &receipt)?;
        if stage != ReceiptStage::Accepted
            && let Some(other) = ended
        {
            return Err(wrong(&format!("there is a {} receipt of the same transfer", other.as_str())));
        }
        if stage != ReceiptStage::Rejected {
            match manifest {
                Origin::Known(_, digest) if receipt.manifest != Some(*digest) => return Err(wrong("it is for another manifest")),
                Origin::Known(manifest, _) if stage == ReceiptStage::Imported => same_rows(manifest, &receipt)?,
                Origin::Known(..) | Origin::NotKept => {}
                Origin::Wrong => return Err(wrong("there is no manifest that it could be for")),
            }
        }
        let says = sentence(&receipt, &signer, matches!(manifest, Origin::Known(..)));
        Ok((signer, says))
    }

    fn signed_by(&self, signed: &SignedReceipt, receipt: &Receipt) -> Result<Signer> {
        let (message, signature) = (signed.receipt.as_bytes(), signed.signature.as_bytes());
        let party = Party::of(self.direction, Some(receipt.stage));
        let signer = self.believes.signer(party, Namespace::Receipt, message, signature).map_err(|why| match why.code() {
            // What a person can approve keeps its own code.
            Code::AgentUnapproved | Code::ReceiverUnapproved => why,
            _ => Failure::park(Code::ReceiptInvalid, "its signature was not believed").caused_by(why),
        })?;
        if receipt.signer != signer.key.fingerprint() {
            let why = format!("it says it is signed by {}, but {} has signed", receipt.signer, signer.key.fingerprint());
            return Err(Failure::park(Code::ReceiptInvalid, why));
        }
        Ok(signer)
    }
}

/// The rows that the receiver counted in its database are those of the manifest. What a merged table has besides the rows that
/// were sent is known to the receiver alone.
fn same_rows(manifest: &Manifest, receipt: &Receipt) -> Result<()> {
    for table in manifest.files.iter().filter_map(|file| file.table()) {
        let counted = receipt.rows.iter().find(|rows| rows.table == table.table).map(|rows| rows.rows);
        if counted.is_some() && table.mode == Mode::Merge {
            continue;
        }
        if counted != Some(table.rows) {
            let counted = counted.map_or_else(|| "no".to_owned(), |rows| rows.to_string());
            let why = format!("table {} has {} rows in the manifest, and {counted} rows were imported", table.table, table.rows);
            return Err(Failure::park(Code::ReceiptInvalid, why));
        }
    }
    Ok(())
}

fn sentence(receipt: &Receipt, signer: &Signer, manifest_known: bool) -> String {
    let (time, name) = (receipt.time, &signer.name);
    let party = Party::of(receipt.direction, Some(receipt.stage)).word();
    let which = match &receipt.manifest {
        Some(digest) if !manifest_known => format!("the manifest with SHA-256 {digest}"),
        _ => "exactly this manifest".to_owned(),
    };
    match receipt.stage {
        ReceiptStage::Accepted => format!("the relay signed, on {time}, that it held every file of {which}, whole"),
        ReceiptStage::Imported => {
            let rows = receipt.rows.iter().map(|table| table.rows).fold(0, u64::saturating_add);
            let tables = receipt.rows.len();
            format!("{party} {name} signed, on {time}, that the app has all {rows} rows in {tables} tables of {which}")
        }
        ReceiptStage::Delivered => {
            format!("{party} {name} signed, on {time}, that every file of {which} was delivered to the ERP")
        }
        ReceiptStage::Rejected => {
            let why = receipt.reason.as_ref().map_or_else(String::new, |reason| format!(": {} [{}]", reason.detail, reason.code));
            let done = if receipt.direction == Direction::Uplink { "imported" } else { "delivered" };
            format!("{party} {name} signed, on {time}, that nothing of this transfer was {done}{why}")
        }
    }
}

fn rows_of(manifest: &Manifest) -> u64 {
    manifest.files.iter().filter_map(|file| file.table()).map(|table| table.rows).fold(0, u64::saturating_add)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn right(path: &Path, signer: Option<&Signer>, says: String) -> Link {
    Link {
        document: name_of(path),
        path: path.display().to_string(),
        signer: signer.map(|signer| signer.name.clone()),
        fingerprint: signer.map(|signer| signer.key.fingerprint().to_string()),
        ok: true,
        code: None,
        says,
    }
}

fn missing(path: &Path, code: Code) -> Link {
    let what = if code == Code::ReceiptInvalid { "receipt" } else { "document" };
    broken(path, &Failure::park(code, format!("this {what} should be here and is missing")))
}

fn broken(path: &Path, failure: &Failure) -> Link {
    let report = failure.report();
    // The code stands beside the sentence.
    let says = report.strip_suffix(&format!(" [{}]", failure.code())).unwrap_or(&report).to_owned();
    let (document, path) = (name_of(path), path.display().to_string());
    Link { document, path, signer: None, fingerprint: None, ok: false, code: Some(failure.code()), says }
}

#[cfg(test)]
mod tests;
