//! Accept: every file is compared with what `complete` named, and the relay signs that it holds them.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_keys::{Namespace, PublicKey};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferEvent, TransferId,
    digest::Sha256Digest,
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedFile, PackedList},
    receipt::MAX_SIGNATURE_BYTES,
    state::{Identity as Travels, MissingFile, Place},
};

use super::identity_of;
use crate::{
    registry::Registry,
    scope::AgentScope,
    signer::Signer,
    spool::{GONE, Missing, Room, Spool, SpoolFile, blocking, own_name},
};

/// The files of a transfer that are not packed content.
const OWN_FILES: usize = 4;

/// The stage.
#[derive(Debug)]
pub struct Accept {
    spool: Arc<Spool>,
    registry: Registry,
    signer: Signer,
}

/// What is known of a transfer before its files are looked at.
struct Claim {
    scope: AgentScope,
    id: TransferId,
    travels: Travels,
    sequence: Option<towpath_transfer::Sequence>,
    keys: Vec<PublicKey>,
}

/// What comparing found.
enum Found {
    /// Everything is as named.
    Whole,
    /// These are not; sending them again mends it.
    Missing(Vec<MissingFile>),
}

impl Accept {
    /// The stage over these parts.
    #[must_use]
    pub fn new(spool: Arc<Spool>, registry: Registry, signer: Signer) -> Self {
        Self { spool, registry, signer }
    }

    /// The keys with which the agent may have signed, which may have changed its key since; one that was revoked counts no more.
    async fn enrolled_keys(&self, scope: &AgentScope) -> Result<Vec<PublicKey>> {
        let end = self.registry.end(scope.tenant(), scope.agent()).await?;
        let end = end.ok_or_else(|| Failure::park(Code::AgentUnapproved, format!("{scope} is not enrolled")))?;
        if end.revoked.is_some() {
            return Err(Failure::park(Code::AgentRevoked, format!("{scope} was revoked after it completed the transfer")));
        }
        end.keys().map(PublicKey::try_from).collect()
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
        let keys = self.enrolled_keys(&scope).await?;
        let (id, sequence) = (lease.key().id, lease.record.sequence);
        let claim = Claim { scope, id, travels: identity_of(lease)?, sequence, keys };
        let (spool, signer) = (Arc::clone(&self.spool), self.signer.clone());
        let event = blocking(move || match compare(&spool, &claim)? {
            Found::Missing(missing) => Ok(TransferEvent::FoundIncomplete { missing }),
            Found::Whole => {
                spool.hold(Room::Uplink, &claim.scope, claim.id)?;
                signer.accepted(&spool, &claim.scope, claim.id, Direction::Uplink, claim.travels.manifest)?;
                Ok(TransferEvent::Accepted)
            }
        });
        event.await?.map(StepOutcome::Event)
    }
}

/// Compares every file of the transfer with what was named. Blocking.
fn compare(spool: &Spool, claim: &Claim) -> Result<Found> {
    let present = spool.list(Room::Uplink, &claim.scope, claim.id, spool.quota().limits().files_per_transfer)?;
    let mut missing = Missing::default();
    let manifest = named(spool, claim, &present, MANIFEST_NAME, claim.travels.manifest, MAX_MANIFEST_BYTES, &mut missing)?;
    let packed = named(spool, claim, &present, PACKED_NAME, claim.travels.packed, MAX_PACKED_LIST_BYTES, &mut missing)?;
    for name in [SIGNATURE_NAME, MD5SUMS_NAME] {
        if !present.iter().any(|file| file.name.as_str() == name) {
            missing.note(&own_name(name)?, GONE);
        }
    }
    let (Some(manifest), Some(packed)) = (manifest, packed) else { return Ok(Found::Missing(missing.0)) };
    let list = structure(claim, &manifest, &packed)?;
    if let Some(signature) = spool.read(Room::Uplink, &claim.scope, claim.id, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)? {
        check_signature(&signature, &manifest, &claim.keys)?;
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

/// By whichever of its keys the agent has signed.
fn check_signature(signature: &[u8], manifest: &[u8], keys: &[PublicKey]) -> Result<()> {
    let signer = towpath_keys::signer_of(signature)?;
    if !keys.contains(&signer) {
        let message = format!("the manifest is signed by {}, which is not a key of this agent", signer.fingerprint());
        return Err(Failure::park(Code::SignatureInvalid, message));
    }
    towpath_keys::verify(signature, Namespace::Manifest, manifest, &signer)
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
    match spool.read(Room::Uplink, &claim.scope, claim.id, name, limit)? {
        None => missing.note(&file, GONE),
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
    let Some(found) = found else { return Ok(Some(GONE.to_owned())) };
    if found.size != file.size {
        return Ok(Some(format!("has {} bytes instead of {}", found.size, file.size)));
    }
    let digest = spool.digest(Room::Uplink, &claim.scope, claim.id, file.name.as_str())?;
    Ok((digest != Some(file.sha256)).then(|| "differs from its digest".to_owned()))
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
        spool.remove_file(Room::Uplink, &claim.scope, claim.id, stranger)?;
    }
    Ok(())
}
