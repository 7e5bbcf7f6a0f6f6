//! Fetch: every file that a receiver has announced comes from the tenant's app server, and is compared with the signed manifest.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_keys::{Namespace, PublicKey};
use towpath_transfer::{
    Code, Direction, Failure, FileName, RemotePath, Sequence, Stage, TransferEvent, TransferId, TransferState,
    api::Role,
    digest::Sha256Digest,
    failure::Result,
    manifest::{FileEntry, MANIFEST_NAME, Manifest, SIGNATURE_NAME},
    name::InvalidName,
    packed::PART_SUFFIX,
    receipt::MAX_SIGNATURE_BYTES,
    state::{Announced, Place},
};
use towpath_transport::{
    files::{file_failure, ignore_missing, publish},
    store::{Far, FetchError, StoreError, StoreErrorKind, fetch, read_remote},
};

use super::{missing, pack::room_for, wrong_state};
use crate::{
    registry::Registry,
    scope::AgentScope,
    spool::{Reserved, Room, Spool, SpoolFile, blocking},
    uplink::forward::{AppServer, AppServers, patient, while_theirs},
};

/// The stage.
#[derive(Debug)]
pub struct Fetch {
    spool: Arc<Spool>,
    registry: Registry,
    app_servers: Arc<dyn AppServers>,
}

/// What is to be fetched, and from where.
struct Job {
    scope: AgentScope,
    id: TransferId,
    sequence: Option<Sequence>,
    announced: Announced,
    server: AppServer,
    folder: RemotePath,
}

/// The manifest as it came, and what it says.
struct Signed {
    bytes: Vec<u8>,
    signature: Vec<u8>,
    manifest: Manifest,
}

impl Job {
    fn far(&self, name: &FileName) -> Result<RemotePath> {
        self.folder.clone().join(name.clone()).map_err(|e| too_deep().caused_by(e))
    }

    /// A small file, where it is there and no longer than `limit`.
    async fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        let name: FileName = name.parse().map_err(|e: InvalidName| Failure::park(Code::Internal, "name a file").caused_by(e))?;
        let read = read_remote(&*self.server.store, &self.far(&name)?, limit).await;
        read.map_err(|e| match e.kind() {
            StoreErrorKind::NotFound => missing(&format!("{name} is not there")).caused_by(e),
            StoreErrorKind::Limit => missing(&format!("{name} is larger than {limit} bytes")).caused_by(e),
            _ => e.into_failure(Far::AppServer),
        })
    }
}

fn too_deep() -> Failure {
    Failure::park(Code::AppServerRefused, "the announced folder is too deep")
}

fn refused(code: Code, what: &str) -> Failure {
    Failure::park(code, format!("the return files cannot be taken: {what}"))
}

impl Fetch {
    /// The stage over these parts.
    #[must_use]
    pub fn new(spool: Arc<Spool>, registry: Registry, app_servers: Arc<dyn AppServers>) -> Self {
        Self { spool, registry, app_servers }
    }

    async fn job(&self, scope: AgentScope, lease: &Lease) -> Result<Job> {
        let TransferState::Announced { announced } = &lease.record.state else { return Err(wrong_state(lease)) };
        let server = self.app_servers.connect(scope.tenant()).await?;
        let below = announced.path.parent().unwrap_or_default();
        let folder = below.components().iter().cloned().try_fold(server.folder.clone(), RemotePath::join);
        let folder = folder.map_err(|e| too_deep().caused_by(e))?;
        let (id, sequence) = (lease.key().id, lease.record.sequence);
        Ok(Job { scope, id, sequence, announced: announced.clone(), server, folder })
    }

    /// The manifest, which must be the announced one, of this transfer, and signed by the tenant's receiver.
    async fn manifest(&self, job: &Job) -> Result<Signed> {
        let limit = usize::try_from(job.announced.size).unwrap_or(usize::MAX);
        let bytes = job.read(MANIFEST_NAME, limit).await?;
        if bytes.len() != limit || Sha256Digest::of(&bytes) != job.announced.manifest {
            return Err(missing(&format!("{MANIFEST_NAME} is not the one that was announced")));
        }
        let manifest = Manifest::parse(&bytes)
            .map_err(|e| refused(Code::ManifestInvalid, "their manifest is not of the protocol").caused_by(e))?;
        let ours = manifest.transfer == job.id
            && manifest.tenant == *job.scope.tenant().tenant()
            && manifest.agent == *job.scope.agent()
            && manifest.direction == Direction::Downlink;
        if !ours {
            return Err(refused(Code::ManifestInvalid, "their manifest is of another transfer, agent, tenant or direction"));
        }
        if job.sequence != Some(manifest.sequence) {
            return Err(refused(Code::SequenceForked, "their manifest has another sequence number than was announced"));
        }
        let signature = job.read(SIGNATURE_NAME, MAX_SIGNATURE_BYTES).await?;
        let signed = Signed { bytes, signature, manifest };
        self.check_signer(job, &signed).await?;
        Ok(signed)
    }

    async fn check_signer(&self, job: &Job, signed: &Signed) -> Result<()> {
        for receiver in self.registry.peers(job.scope.tenant(), Role::Receiver).await? {
            let key = PublicKey::try_from(&receiver.public_key)?;
            if towpath_keys::verify(&signed.signature, Namespace::Manifest, &signed.bytes, &key).is_ok() {
                return Ok(());
            }
        }
        Err(refused(Code::SignatureInvalid, "no receiver that is enrolled and not revoked has signed their manifest"))
    }

    /// Every file, each kept under its name when it is whole and has its digest.
    async fn files(&self, job: &Job, manifest: &Manifest) -> Result<()> {
        let (spool, scope, id) = (Arc::clone(&self.spool), job.scope.clone(), job.id);
        let entries: Vec<FileEntry> = manifest.sent_files().cloned().collect();
        let prepare = move || prepare(&spool, &scope, id, &entries);
        let (reserved, left) = blocking(prepare).await??;
        for entry in left {
            self.app_servers.check(job.scope.tenant(), &job.server).await?;
            self.file(job, &reserved, &entry).await?;
        }
        Ok(())
    }

    async fn file(&self, job: &Job, reserved: &Reserved, entry: &FileEntry) -> Result<()> {
        let (scope, id) = (&job.scope, job.id);
        let part = part_name(&entry.name)?;
        let path = self.spool.path(Room::Fetched, scope, id, part.as_str());
        let (before, taken) = (self.spool.length(&path)?, AtomicU64::new(0));
        let allow = |bytes: u64| {
            reserved.take(bytes)?;
            taken.fetch_add(bytes, Ordering::SeqCst);
            Ok(())
        };
        let fetched = fetch(&*job.server.store, &job.far(&entry.name)?, entry.size, self.spool.files(), &path, &allow).await;
        if matches!(&fetched, Err(FetchError::Refused(_))) {
            // A disk that has filled up needs the room of what cannot become whole now.
            ignore_missing(self.spool.files().remove(&path)).map_err(|e| file_failure("remove", &path, e))?;
        }
        // What counts is what lies there now, whatever was allowed.
        let (counted, now) = (before.saturating_add(taken.into_inner()), self.spool.length(&path)?);
        reserved.put_back(counted.saturating_sub(now));
        fetched.map_err(|e| failed(&entry.name, &path, e))?;

        let (spool, scope, entry) = (Arc::clone(&self.spool), scope.clone(), entry.clone());
        blocking(move || {
            if spool.digest(Room::Fetched, &scope, id, part.as_str())? != Some(entry.sha256) {
                spool.remove_file(Room::Fetched, &scope, id, &SpoolFile { name: part, size: entry.size })?;
                return Err(missing(&format!("{} has another digest than its manifest says", entry.name)));
            }
            let name = spool.path(Room::Fetched, &scope, id, entry.name.as_str());
            publish(&**spool.files(), &path, &name).map_err(|e| file_failure("name the file", &name, e))
        })
        .await?
    }
}

#[async_trait]
impl Step for Fetch {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Fetch
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let scope = AgentScope::of_lease(lease);
        let _alone = self.spool.freeze(&scope, lease.key().id).await;
        let job = self.job(scope, lease).await.map_err(patient)?;
        let signed = self.manifest(&job).await.map_err(patient)?;
        let files = self.files(&job, &signed.manifest);
        while_theirs(&*self.app_servers, job.scope.tenant(), &job.server, files).await.map_err(patient)?;
        // It may have been revoked meanwhile: large files take long.
        self.check_signer(&job, &signed).await?;
        let (spool, scope, id) = (Arc::clone(&self.spool), job.scope.clone(), job.id);
        blocking(move || {
            spool.write(Room::Fetched, &scope, id, SIGNATURE_NAME, &signed.signature)?;
            spool.write(Room::Fetched, &scope, id, MANIFEST_NAME, &signed.bytes)
        })
        .await??;
        Ok(StepOutcome::Event(TransferEvent::Fetched))
    }
}

/// Makes the folder, drops what an earlier try has left and cannot be used, and takes room for everything that is to come.
/// Blocking. Returns the files that are not there yet.
fn prepare(spool: &Arc<Spool>, scope: &AgentScope, id: TransferId, entries: &[FileEntry]) -> Result<(Reserved, Vec<FileEntry>)> {
    let folder = spool.folder(Room::Fetched, scope, id);
    spool.files().create_dir_all(&folder).map_err(|e| file_failure("make the folder", &folder, e))?;
    // Packing needs room beside the plain files. It is taken along and given back in the end, so that whoever is fetched last can
    // be packed: without that, plain files alone could fill a tenant's share for ever.
    let to_pack = entries.iter().map(room_for).fold(0, u64::saturating_add);
    let (mut left, mut to_come) = (Vec::new(), 0u64);
    for entry in entries {
        let part = part_name(&entry.name)?;
        let kept = spool.length(&spool.path(Room::Fetched, scope, id, entry.name.as_str()))?;
        if spool.digest(Room::Fetched, scope, id, entry.name.as_str())? == Some(entry.sha256) {
            continue;
        }
        spool.remove_file(Room::Fetched, scope, id, &SpoolFile { name: entry.name.clone(), size: kept })?;
        let mut begun = spool.length(&spool.path(Room::Fetched, scope, id, part.as_str()))?;
        if begun > entry.size {
            spool.remove_file(Room::Fetched, scope, id, &SpoolFile { name: part, size: begun })?;
            begun = 0;
        }
        to_come = to_come.saturating_add(entry.size.saturating_sub(begun));
        left.push(entry.clone());
    }
    Ok((spool.reserve(scope.tenant(), to_come.saturating_add(to_pack))?, left))
}

fn part_name(name: &FileName) -> Result<FileName> {
    name.with_suffix(PART_SUFFIX)
        .map_err(|e| Failure::park(Code::ManifestInvalid, format!("{name} is too long a name to travel")).caused_by(e))
}

fn failed(name: &FileName, part: &std::path::Path, error: FetchError) -> Failure {
    match error {
        FetchError::Far(e) if e.kind() == StoreErrorKind::NotFound => missing(&format!("{name} is not there")).caused_by(e),
        FetchError::Far(e) => StoreError::into_failure(e, Far::AppServer),
        FetchError::Disk(e) => file_failure("write", part, e),
        FetchError::Refused(failure) => failure,
        e @ FetchError::Length { .. } => missing(&format!("{name} has another length than its manifest says")).caused_by(e),
    }
}
