//! Accept: every file is compared with what `complete` named, and the relay signs that it holds them.

use std::{
    io::Read as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_keys::{Identity, Namespace, PublicKey};
use towpath_transfer::{
    Clock, Code, Direction, Failure, FileName, Stage, TransferEvent, TransferId,
    digest::{Sha256Digest, Sha256Hasher},
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedFile, PackedList},
    receipt::{MAX_SIGNATURE_BYTES, Receipt, ReceiptStage, SignedReceipt},
    state::{Identity as Travels, MissingFile, Place},
};
use towpath_transport::files::{FileStore, file_failure};

use super::identity_of;
use crate::{
    registry::Registry,
    scope::AgentScope,
    spool::{Spool, SpoolFile, blocking},
};

/// The most missing files that one answer names; the rest shows when these are mended.
pub const MAX_MISSING: usize = 1_000;
/// How much of a file is read at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// The files of a transfer that are not packed content.
const OWN_FILES: usize = 4;

/// The stage.
#[derive(Debug)]
pub struct Accept {
    spool: Arc<Spool>,
    registry: Registry,
    receipt_key: Identity,
    clock: Arc<dyn Clock>,
    /// Held from looking for a receipt to having written one, so that a transfer has one receipt.
    signing: Arc<Mutex<()>>,
}

/// What is known of a transfer before its files are looked at.
struct Claim {
    scope: AgentScope,
    id: TransferId,
    travels: Travels,
    sequence: Option<towpath_transfer::Sequence>,
    key: PublicKey,
}

/// What comparing found.
enum Found {
    /// Everything is as named.
    Whole,
    /// These are not; sending them again mends it.
    Missing(Vec<MissingFile>),
}

impl Accept {
    /// The stage over these parts; `receipt_key` signs.
    #[must_use]
    pub fn new(spool: Arc<Spool>, registry: Registry, receipt_key: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { spool, registry, receipt_key, clock, signing: Arc::default() }
    }

    /// The key with which the agent signs; one that was revoked meanwhile counts no more.
    async fn enrolled_key(&self, scope: &AgentScope) -> Result<PublicKey> {
        let end = self.registry.end(scope.tenant(), scope.agent()).await?;
        let end = end.ok_or_else(|| Failure::park(Code::AgentUnapproved, format!("{scope} is not enrolled")))?;
        if end.revoked.is_some() {
            return Err(Failure::park(Code::AgentRevoked, format!("{scope} was revoked after it completed the transfer")));
        }
        PublicKey::try_from(&end.key)
    }

    /// The receipt that was signed for this manifest, or a new one. Written once: a repeated step finds the first. What
    /// lies there and is not signed with the relay's key (half of it was written, or somebody changed it) is written anew.
    /// To be called with `signing` held.
    fn sign(spool: &Spool, key: &Identity, clock: &dyn Clock, claim: &Claim) -> Result<()> {
        let known = spool.receipt(&claim.scope, claim.id, ReceiptStage::Accepted)?;
        let ours = PublicKey::try_from(key.public_line())?;
        let same = |signed: &SignedReceipt| {
            let (text, signature) = (signed.receipt.as_bytes(), signed.signature.as_bytes());
            let receipt = signed.parse().ok().filter(|receipt| receipt.key() == claim.scope.key(claim.id));
            receipt.is_some_and(|receipt| receipt.manifest == Some(claim.travels.manifest))
                && towpath_keys::verify(signature, Namespace::Receipt, text, &ours).is_ok()
        };
        if known.as_ref().is_some_and(same) {
            return Ok(());
        }
        let receipt = Receipt {
            version: 1,
            transfer: claim.id,
            tenant: claim.scope.tenant().tenant().clone(),
            agent: claim.scope.agent().clone(),
            direction: Direction::Uplink,
            stage: ReceiptStage::Accepted,
            manifest: Some(claim.travels.manifest),
            rows: Vec::new(),
            reason: None,
            time: clock.now(),
            signer: key.fingerprint(),
        };
        let internal = |e| Failure::park(Code::Internal, "write a receipt as JSON").caused_by(e);
        let bytes = receipt.to_bytes().map_err(internal)?;
        let signature = key.sign(Namespace::Receipt, &bytes)?;
        let receipt =
            String::from_utf8(bytes).map_err(|e| Failure::park(Code::Internal, "write a receipt as text").caused_by(e))?;
        spool.keep_receipt(&claim.scope, claim.id, ReceiptStage::Accepted, &SignedReceipt { receipt, signature })
    }
}

#[async_trait]
impl Step for Accept {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Accept
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let scope = AgentScope::of_lease(lease);
        let key = self.enrolled_key(&scope).await?;
        let (id, sequence) = (lease.key().id, lease.record.sequence);
        let claim = Claim { scope, id, travels: identity_of(lease)?, sequence, key };
        let (spool, signer, clock) = (Arc::clone(&self.spool), self.receipt_key.clone(), Arc::clone(&self.clock));
        let signing = Arc::clone(&self.signing);
        let event = blocking(move || match compare(&spool, &claim)? {
            Found::Missing(missing) => Ok(TransferEvent::FoundIncomplete { missing }),
            Found::Whole => {
                let _alone = signing.lock().unwrap_or_else(PoisonError::into_inner);
                Self::sign(&spool, &signer, &*clock, &claim)?;
                Ok(TransferEvent::Accepted)
            }
        });
        event.await?.map(StepOutcome::Event)
    }
}

/// What is wrong with files of one transfer, up to [`MAX_MISSING`].
#[derive(Default)]
struct Missing(Vec<MissingFile>);

impl Missing {
    fn note(&mut self, name: &FileName, problem: impl Into<String>) {
        if self.0.len() < MAX_MISSING {
            self.0.push(MissingFile { name: name.clone(), problem: problem.into() });
        }
    }
}

fn own_name(name: &str) -> Result<FileName> {
    name.parse().map_err(|e: towpath_transfer::name::InvalidName| Failure::park(Code::Internal, "name a file").caused_by(e))
}

/// Compares every file of the transfer with what was named. Blocking.
fn compare(spool: &Spool, claim: &Claim) -> Result<Found> {
    let present = spool.list(&claim.scope, claim.id, spool.quota().limits().files_per_transfer)?;
    let mut missing = Missing::default();
    let manifest = named(spool, claim, &present, MANIFEST_NAME, claim.travels.manifest, MAX_MANIFEST_BYTES, &mut missing)?;
    let packed = named(spool, claim, &present, PACKED_NAME, claim.travels.packed, MAX_PACKED_LIST_BYTES, &mut missing)?;
    for name in [SIGNATURE_NAME, MD5SUMS_NAME] {
        if !present.iter().any(|file| file.name.as_str() == name) {
            missing.note(&own_name(name)?, "is not there");
        }
    }
    let (Some(manifest), Some(packed)) = (manifest, packed) else { return Ok(Found::Missing(missing.0)) };
    let list = structure(claim, &manifest, &packed)?;
    if let Some(signature) = spool.read(&claim.scope, claim.id, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)? {
        towpath_keys::verify(&signature, Namespace::Manifest, &manifest, &claim.key)?;
    }
    for file in &list.files {
        if let Some(problem) = packed_problem(spool, claim, &present, file)? {
            missing.note(&file.name, problem);
        }
    }
    if !missing.0.is_empty() {
        return Ok(Found::Missing(missing.0));
    }
    remove_strangers(spool, claim, &present, &list)?;
    Ok(Found::Whole)
}

/// A file that `complete` named by its digest; `None` where it is not as named.
fn named(
    spool: &Spool,
    claim: &Claim,
    present: &[SpoolFile],
    name: &str,
    digest: Sha256Digest,
    limit: usize,
    missing: &mut Missing,
) -> Result<Option<Vec<u8>>> {
    let file = own_name(name)?;
    let size = present.iter().find(|found| found.name == file).map(|found| found.size);
    if size.is_some_and(|size| size > limit as u64) {
        missing.note(&file, format!("is larger than {limit} bytes"));
        return Ok(None);
    }
    match spool.read(&claim.scope, claim.id, name, limit)? {
        None => missing.note(&file, "is not there"),
        Some(bytes) if Sha256Digest::of(&bytes) != digest => missing.note(&file, "is not the one that `complete` named"),
        Some(bytes) => return Ok(Some(bytes)),
    }
    Ok(None)
}

/// What sending again cannot mend: the named bytes themselves are wrong.
fn structure(claim: &Claim, manifest_bytes: &[u8], packed_bytes: &[u8]) -> Result<PackedList> {
    let refused = |code: Code, what: &str| Failure::park(code, format!("the transfer cannot be accepted: {what}"));
    let manifest = Manifest::parse(manifest_bytes)
        .map_err(|e| refused(Code::ManifestInvalid, "its manifest is not of the protocol").caused_by(e))?;
    let ours = manifest.transfer == claim.id
        && manifest.tenant == *claim.scope.tenant().tenant()
        && manifest.agent == *claim.scope.agent()
        && manifest.direction == Direction::Uplink;
    if !ours {
        return Err(refused(Code::ManifestInvalid, "its manifest is of another transfer, agent, tenant or direction"));
    }
    if claim.sequence.is_some_and(|sequence| sequence != manifest.sequence) {
        return Err(refused(Code::SequenceForked, "its manifest has another sequence number than at first"));
    }
    let list = PackedList::parse(packed_bytes)
        .map_err(|e| refused(Code::PackedListInvalid, "its packed list is not of the protocol").caused_by(e))?;
    list.check_against(&manifest, claim.travels.manifest)
        .map_err(|e| refused(Code::PackedListInvalid, "its packed list is not the one of its manifest").caused_by(e))?;
    Ok(list)
}

fn packed_problem(spool: &Spool, claim: &Claim, present: &[SpoolFile], file: &PackedFile) -> Result<Option<String>> {
    // The listing is sorted by name as the store sorts, by bytes.
    let found = present.binary_search_by(|known| known.name.as_str().cmp(file.name.as_str())).ok().and_then(|at| present.get(at));
    let Some(found) = found else { return Ok(Some("is not there".to_owned())) };
    if found.size != file.size {
        return Ok(Some(format!("has {} bytes instead of {}", found.size, file.size)));
    }
    let path = spool.path(&claim.scope, claim.id, file.name.as_str());
    let digest = digest_of(&**spool.files(), &path).map_err(|e| file_failure("read", &path, e))?;
    Ok((digest != file.sha256).then(|| "differs from its digest".to_owned()))
}

/// The SHA-256 of a file, read piece by piece. Blocking.
fn digest_of(files: &dyn FileStore, path: &Path) -> std::io::Result<Sha256Digest> {
    let mut file = files.open(path)?;
    let (mut hasher, mut chunk) = (Sha256Hasher::new(), vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(chunk.get(..read).unwrap_or_default());
    }
}

/// What a repeated extract has left behind is not part of the transfer; nobody can write here now.
fn remove_strangers(spool: &Spool, claim: &Claim, present: &[SpoolFile], list: &PackedList) -> Result<()> {
    debug_assert!(list.files.len() <= MAX_FILES);
    let mut names: Vec<&str> = Vec::with_capacity(list.files.len() + OWN_FILES);
    names.extend([MANIFEST_NAME, SIGNATURE_NAME, PACKED_NAME, MD5SUMS_NAME]);
    names.extend(list.files.iter().map(|file| file.name.as_str()));
    names.sort_unstable();
    for stranger in present.iter().filter(|file| names.binary_search(&file.name.as_str()).is_err()) {
        tracing::info!(transfer = %claim.id, file = %stranger.name, "removing a file that is not part of its transfer");
        spool.remove_file(&claim.scope, claim.id, stranger)?;
    }
    Ok(())
}
