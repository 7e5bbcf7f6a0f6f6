//! Pack: what was fetched is packed for its way to the agent; what the receiver has signed stays as it is.

use std::{io::Read as _, num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, FileName, Stage, TransferEvent, TransferId, TransferState,
    codec::{CodecError, PackedDigests, Packer},
    digest::{Sha256Digest, Sha256Hasher},
    failure::Result,
    manifest::{FileEntry, MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    md5sums,
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PackedFile, PackedList, packed_name},
    receipt::MAX_SIGNATURE_BYTES,
    state::Place,
};
use towpath_transport::files::{FileStore, file_failure};

use super::wrong_state;
use crate::{
    scope::AgentScope,
    spool::{Reserved, Room, Spool, SpoolFile, blocking},
};

/// Threads that pack one transfer.
const WORKERS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");
/// How much of a file is read at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// By how much packed bytes may be more than the plain ones: a part of them, and some bytes (bzip2's manual says 1 % and 600).
const GROWTH_PART: u64 = 50;
const GROWTH_BYTES: u64 = 4096;

/// The stage.
#[derive(Debug)]
pub struct Pack {
    spool: Arc<Spool>,
}

/// One transfer.
struct Job {
    spool: Arc<Spool>,
    scope: AgentScope,
    id: TransferId,
    manifest: Sha256Digest,
}

impl Pack {
    /// The stage over this spool.
    #[must_use]
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool }
    }
}

#[async_trait]
impl Step for Pack {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Pack
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let TransferState::Fetched { announced } = &lease.record.state else { return Err(wrong_state(lease)) };
        let (scope, id, manifest) = (AgentScope::of_lease(lease), lease.key().id, announced.manifest);
        // A step that is given up goes on packing on its thread: the next one waits until that has ended.
        let alone = self.spool.freeze(&scope, id).await;
        let job = Job { spool: Arc::clone(&self.spool), scope, id, manifest };
        let packed = blocking(move || {
            let _alone = alone;
            let done = job.run();
            if matches!(&done, Err(failure) if failure.code() == Code::SpoolFull) {
                // A disk that has filled up needs the room of what cannot become whole now.
                job.spool.remove(Room::Packed, &job.scope, job.id)?;
            }
            done
        });
        Ok(StepOutcome::Event(packed.await??))
    }
}

impl Job {
    fn run(&self) -> Result<TransferEvent> {
        if let Some(packed) = self.packed_before()? {
            return self.done(packed);
        }
        self.spool.remove(Room::Packed, &self.scope, self.id)?;
        let folder = self.spool.folder(Room::Packed, &self.scope, self.id);
        self.spool.files().create_dir_all(&folder).map_err(|e| file_failure("make the folder", &folder, e))?;
        let Some((manifest, bytes)) = self.manifest(Room::Fetched)? else { return self.fetch_again(MANIFEST_NAME) };
        let signature = self.spool.read(Room::Fetched, &self.scope, self.id, SIGNATURE_NAME, MAX_SIGNATURE_BYTES)?;
        let Some(signature) = signature else { return self.fetch_again(SIGNATURE_NAME) };
        let mut files = Vec::new();
        for entry in manifest.sent_files() {
            match self.pack(entry)? {
                Some(packed) => files.push(packed),
                None => return self.fetch_again(entry.name.as_str()),
            }
        }
        let internal = |what: &str| Failure::park(Code::Internal, format!("write {what} of transfer {}", self.id));
        let list = PackedList { version: 1, transfer: self.id, manifest: self.manifest, files };
        list.check_against(&manifest, self.manifest).map_err(|e| internal(PACKED_NAME).caused_by(e))?;
        let list = list.to_bytes().map_err(|e| internal(PACKED_NAME).caused_by(e))?;
        let sums = md5sums::write(manifest.sent_files().map(|entry| (&entry.md5, &entry.name)));
        let sums = sums.map_err(|e| internal(MD5SUMS_NAME).caused_by(e))?;
        self.write(MD5SUMS_NAME, sums.as_bytes())?;
        self.write(SIGNATURE_NAME, &signature)?;
        self.write(MANIFEST_NAME, &bytes)?;
        // Last: with it there, everything is.
        self.write(PACKED_NAME, &list)?;
        self.done(Sha256Digest::of(&list))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.spool.write(Room::Packed, &self.scope, self.id, name, bytes)
    }

    fn done(&self, packed: Sha256Digest) -> Result<TransferEvent> {
        self.spool.remove(Room::Fetched, &self.scope, self.id)?;
        Ok(TransferEvent::Packed { packed })
    }

    fn fetch_again(&self, what: &str) -> Result<TransferEvent> {
        tracing::warn!(transfer = %self.scope.key(self.id), file = what, "a fetched file is not as it was any more: it is fetched again");
        Ok(TransferEvent::FetchAgain)
    }

    /// The manifest in a room, where it is the announced one.
    fn manifest(&self, room: Room) -> Result<Option<(Manifest, Vec<u8>)>> {
        let bytes = self.spool.read(room, &self.scope, self.id, MANIFEST_NAME, MAX_MANIFEST_BYTES)?;
        let Some(bytes) = bytes.filter(|bytes| Sha256Digest::of(bytes) == self.manifest) else { return Ok(None) };
        let manifest = Manifest::parse(&bytes)
            .map_err(|e| Failure::park(Code::ManifestInvalid, "read the manifest that was fetched").caused_by(e))?;
        Ok(Some((manifest, bytes)))
    }

    /// The digest of the packed list that an earlier try has written, where everything it names is there.
    fn packed_before(&self) -> Result<Option<Sha256Digest>> {
        let (spool, scope, id) = (&self.spool, &self.scope, self.id);
        let Some(bytes) = spool.read(Room::Packed, scope, id, PACKED_NAME, MAX_PACKED_LIST_BYTES)? else { return Ok(None) };
        let Some((manifest, _)) = self.manifest(Room::Packed)? else { return Ok(None) };
        let list = PackedList::parse(&bytes).ok().filter(|list| list.check_against(&manifest, self.manifest).is_ok());
        let Some(list) = list else { return Ok(None) };
        for file in &list.files {
            if spool.digest(Room::Packed, scope, id, file.name.as_str())? != Some(file.sha256) {
                return Ok(None);
            }
        }
        Ok(Some(Sha256Digest::of(&bytes)))
    }

    /// Packs one file; `None` where the plain one is not as its manifest says, and then it is gone.
    fn pack(&self, entry: &FileEntry) -> Result<Option<PackedFile>> {
        let (spool, scope, id) = (&self.spool, &self.scope, self.id);
        let name = packed_name(&entry.name).map_err(|e| {
            Failure::park(Code::ManifestInvalid, format!("{} is too long a name to travel", entry.name)).caused_by(e)
        })?;
        let reserved = spool.reserve(scope.tenant(), room_for(entry))?;
        let packed = self.pack_into(entry, &name, &reserved);
        // What counts is what lies there now, whether it is whole or not.
        reserved.settle(spool.length(&spool.path(Room::Packed, scope, id, name.as_str()))?)?;
        match packed? {
            Some(PackedDigests { size, sha256 }) => Ok(Some(PackedFile { name, size, sha256 })),
            None => {
                let plain = spool.path(Room::Fetched, scope, id, entry.name.as_str());
                let size = spool.length(&plain)?;
                spool.remove_file(Room::Fetched, scope, id, &SpoolFile { name: entry.name.clone(), size })?;
                Ok(None)
            }
        }
    }

    /// Packs the plain file into a durable one; `None` where the plain bytes are not those of the manifest.
    fn pack_into(&self, entry: &FileEntry, name: &FileName, reserved: &Reserved) -> Result<Option<PackedDigests>> {
        let (spool, scope, id) = (&self.spool, &self.scope, self.id);
        let files: &dyn FileStore = &**spool.files();
        let (from, to) =
            (spool.path(Room::Fetched, scope, id, entry.name.as_str()), spool.path(Room::Packed, scope, id, name.as_str()));
        let mut plain = match files.open(&from) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| file_failure("read", &from, e))?,
        };
        let target = files.create(&to).map_err(|e| file_failure("write", &to, e))?;
        let failed = |e: CodecError| e.into_failure(format!("pack {}", from.display()));
        let mut packer = Packer::new(target, WORKERS).map_err(failed)?;
        let (mut hasher, mut chunk, mut size) = (Sha256Hasher::new(), vec![0; CHUNK], 0u64);
        loop {
            let read = plain.read(&mut chunk).map_err(|e| file_failure("read", &from, e))?;
            size = size.saturating_add(read as u64);
            if size > entry.size {
                return Ok(None);
            }
            if read == 0 {
                break;
            }
            let bytes = chunk.get(..read).unwrap_or_default();
            hasher.update(bytes);
            // There are hardly ever more packed bytes than plain ones; by how many more, the reservation has room.
            reserved.ask(read as u64)?;
            std::io::Write::write_all(&mut packer, bytes).map_err(|e| failed(e.into()))?;
        }
        let (mut target, digests) = packer.finish().map_err(failed)?;
        if size != entry.size || hasher.finish() != entry.sha256 {
            return Ok(None);
        }
        target.sync_all().map_err(|e| file_failure("write", &to, e))?;
        Ok(Some(digests))
    }
}

/// The most bytes that a file can pack to.
pub(super) fn room_for(entry: &FileEntry) -> u64 {
    entry.size.saturating_add(entry.size / GROWTH_PART).saturating_add(GROWTH_BYTES)
}
