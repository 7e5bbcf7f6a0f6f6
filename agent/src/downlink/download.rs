//! Fetches the files of one transfer from the relay, each whole or to be gone on with.

use std::{io::Read as _, path::PathBuf, sync::Arc};

use towpath_journal::TransferRecord;
use towpath_transfer::{
    Code, Direction, Failure, FileName, RemotePath, TransferId,
    digest::{Sha256Digest, Sha256Hasher},
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_NAME},
    md5sums,
    packed::{MAX_PACKED_LIST_BYTES, MD5SUMS_NAME, PACKED_NAME, PART_SUFFIX, PackedFile},
    receipt::MAX_SIGNATURE_BYTES,
    state::Identity,
};
use towpath_transport::{
    files::{FileStore, WriteFile, file_failure, ignore_missing, publish},
    store::{Far, RemoteStore, Retry, RetryPolicy, StoreError, StoreErrorKind, read_remote},
};

use super::describe::{self, Described};
use crate::{
    blocking::blocking,
    layout::Layout,
    parts::{Parts, Progress},
    room, small_file,
    uplink::folder::own_name,
};

/// What needs room here.
pub(crate) const RETURN_FILES: &str = "the return files";
/// Bytes that are gathered before they are written.
pub const WRITE_BYTES: usize = 1024 * 1024;
/// Bytes read at a time from a file of our own.
const CHUNK: usize = 256 * 1024;
/// How often a file is fetched within one step before the step pauses: once, and once more from its first byte.
pub const TRIES: u32 = 2;

/// One transfer's files on their way from the relay.
pub(crate) struct Downloads<'a> {
    parts: &'a Parts,
    store: Retry,
    id: TransferId,
    layout: Layout,
    folder: RemotePath,
}

impl<'a> Downloads<'a> {
    /// Connects when the first file is asked for.
    pub(crate) fn of(parts: &'a Parts, id: TransferId) -> Result<Self> {
        let store =
            Retry::new(Arc::clone(&parts.stores), RetryPolicy::default(), Arc::clone(&parts.clock), Arc::clone(&parts.entropy));
        Ok(Self { parts, store, id, layout: parts.layout.of(Direction::Downlink), folder: remote_folder(id)? })
    }

    /// What describes the transfer: from the disk where it is there, else from the relay. The lists are written when they agree with
    /// what is signed.
    ///
    /// # Errors
    /// Those of [`Downloads::manifest`] and of [`describe::described`].
    pub(crate) async fn described(&self, record: &TransferRecord, identity: Identity) -> Result<Described> {
        match describe::open(self.parts, record, identity).await {
            // What is damaged here is fetched once more before anybody is blamed for it.
            Err(failure) if failure.code() != Code::ReceiverUnapproved => {}
            other => return other,
        }
        let manifest = self.manifest(record, identity.manifest).await?;
        let packed = self.offered(PACKED_NAME, MAX_PACKED_LIST_BYTES, identity.packed).await?;
        let md5sums = self.document(MD5SUMS_NAME, md5sums::MAX_BYTES).await?;
        let described = describe::described(self.parts, manifest, identity, &packed, &md5sums)?;
        self.keep([(PACKED_NAME, packed), (MD5SUMS_NAME, md5sums)])?;
        Ok(described)
    }

    /// The manifest, from the relay. Its signature comes first, and the manifest only where an approved receiver has made it; neither is
    /// written before the one signs the other for this transfer. So a relay that has nothing signed puts nothing on the disk.
    ///
    /// # Errors
    /// `digest-mismatch` (retry) where it is not the one with this digest, `limit-exceeded` (retry) where it is too large, `disk-full`
    /// (retry) where the reserve is not free; those of [`describe::approved`] and [`describe::signed`]; as relay and disk report. None of
    /// them says that what is signed is wrong.
    pub(crate) async fn manifest(&self, record: &TransferRecord, digest: Sha256Digest) -> Result<Manifest> {
        self.signed_manifest(record, digest).await.map_err(describe::unsigned)
    }

    async fn signed_manifest(&self, record: &TransferRecord, digest: Sha256Digest) -> Result<Manifest> {
        let signature = self.document(SIGNATURE_NAME, MAX_SIGNATURE_BYTES).await?;
        describe::approved(self.parts, &signature).await?;
        let manifest = self.offered(MANIFEST_NAME, MAX_MANIFEST_BYTES, digest).await?;
        let believed = describe::signed(self.parts, record, &manifest, &signature)?;
        self.keep([(SIGNATURE_NAME, signature), (MANIFEST_NAME, manifest)])?;
        Ok(believed)
    }

    fn keep(&self, documents: [(&str, Vec<u8>); 2]) -> Result<()> {
        room::check_here(self.parts, documents.iter().map(|(_, bytes)| bytes.len() as u64).sum(), RETURN_FILES)?;
        for (name, bytes) in documents {
            small_file::write_if_different(&*self.parts.files, &self.layout.sent(self.id, &own_name(name)?), &bytes)?;
        }
        Ok(())
    }

    async fn document(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        read_remote(&self.store, &self.path(&own_name(name)?)?, limit).await.map_err(far)
    }

    /// A file of which the offer names the digest.
    async fn offered(&self, name: &str, limit: usize, digest: Sha256Digest) -> Result<Vec<u8>> {
        let bytes = self.document(name, limit).await?;
        if Sha256Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        let message = format!("{name} of transfer {} is not the file that the relay has offered", self.id);
        Err(Failure::retry(Code::DigestMismatch, message))
    }

    /// Fetches one packed file unless it is here with its length. What an interrupted try has left is gone on with.
    ///
    /// # Errors
    /// `digest-mismatch` (retry) where the relay gives other bytes than it has listed; as relay and disk report.
    pub(crate) async fn packed(&self, file: &PackedFile) -> Result<()> {
        let whole = self.layout.sent(self.id, &file.name);
        if self.parts.files.stat(&whole).is_ok_and(|stat| stat.len == file.size) {
            self.tell(&file.name, file.size, file.size);
            return Ok(());
        }
        for _ in 0..TRIES {
            if self.attempt(file).await? {
                return Ok(());
            }
        }
        let message = format!("{} of transfer {} came from the relay with other bytes than it has listed", file.name, self.id);
        Err(Failure::retry(Code::DigestMismatch, message))
    }

    /// As [`Downloads::packed`], for a file that is here and was damaged here.
    pub(crate) async fn packed_anew(&self, file: &PackedFile) -> Result<()> {
        let whole = self.layout.sent(self.id, &file.name);
        ignore_missing(self.parts.files.remove(&whole)).map_err(|error| file_failure("removing", &whole, error))?;
        self.packed(file).await
    }

    /// `false` where the bytes were wrong; nothing of them is kept then.
    async fn attempt(&self, file: &PackedFile) -> Result<bool> {
        let part_name = file
            .name
            .with_suffix(PART_SUFFIX)
            .map_err(|error| Failure::park(Code::Internal, format!("the part name of {}", file.name)).caused_by(error))?;
        let part = self.layout.sent(self.id, &part_name);
        let (files, path, size) = (Arc::clone(&self.parts.files), part.clone(), file.size);
        let mut sink = blocking(move || Sink::go_on(files, path, size)).await?;
        let mut reader = self.store.open(&self.path(&file.name)?, sink.written).await.map_err(far)?;
        let mut gathered = Vec::with_capacity(CHUNK);
        let mut too_long = false;
        while let Some(bytes) = reader.next().await.map_err(far)? {
            // A relay may send without end; what is more than it has listed is not even written.
            if sink.written + gathered.len() as u64 + bytes.len() as u64 > size {
                too_long = true;
                break;
            }
            gathered.extend_from_slice(&bytes);
            if gathered.len() >= WRITE_BYTES {
                let full = std::mem::take(&mut gathered);
                sink = blocking(move || sink.write(&full)).await?;
                self.tell(&file.name, sink.written, size);
            }
        }
        drop(reader);
        let (whole, expected) = (self.layout.sent(self.id, &file.name), file.sha256);
        let done = blocking(move || {
            let sink = sink.write(&gathered)?;
            if too_long || sink.written != size { sink.give_up() } else { sink.finish(&whole, expected) }
        });
        let done = done.await?;
        if done {
            self.tell(&file.name, size, size);
        }
        Ok(done)
    }

    fn tell(&self, name: &FileName, done: u64, total: u64) {
        self.parts.watcher.progress(self.id, &Progress::Received { name: name.clone(), done, total });
    }

    fn path(&self, name: &FileName) -> Result<RemotePath> {
        let joined = self.folder.clone().join(name.clone());
        joined.map_err(|error| Failure::park(Code::Internal, format!("the far path of {name}")).caused_by(error))
    }
}

/// The transfer's folder in the agent's root at the relay.
fn remote_folder(id: TransferId) -> Result<RemotePath> {
    let root = RemotePath::root().join(own_name("downlink")?);
    root.and_then(|downlink| id.to_string().parse().and_then(|name| downlink.join(name)))
        .map_err(|error| Failure::park(Code::Internal, format!("the far folder of transfer {id}")).caused_by(error))
}

/// What the relay does not have now, has too much of, or answers wrongly, may be right again later: the offer still stands.
fn far(error: StoreError) -> Failure {
    let code = match error.kind() {
        StoreErrorKind::NotFound | StoreErrorKind::Denied => Code::NotFound,
        StoreErrorKind::Limit => Code::LimitExceeded,
        StoreErrorKind::Protocol | StoreErrorKind::Unsupported | StoreErrorKind::Exists => Code::RelayProtocol,
        _ => return error.into_failure(Far::Relay),
    };
    Failure::retry(code, "fetching return files from the relay").caused_by(error)
}

/// A file that is being written, and what of it is written.
struct Sink {
    files: Arc<dyn FileStore>,
    part: PathBuf,
    file: Box<dyn WriteFile>,
    hasher: Sha256Hasher,
    written: u64,
}

impl Sink {
    /// Goes on at the end of what is there, unless that is more than the whole file may be.
    fn go_on(files: Arc<dyn FileStore>, part: PathBuf, size: u64) -> Result<Self> {
        let failed = |what: &str, error| file_failure(what, &part, error);
        if files.stat(&part).is_ok_and(|stat| stat.len > size) {
            ignore_missing(files.remove(&part)).map_err(|error| failed("removing", error))?;
        }
        let mut file = files.open_append(&part).map_err(|error| failed("opening", error))?;
        let mut hasher = Sha256Hasher::new();
        let mut written = 0u64;
        let mut there = files.open(&part).map_err(|error| failed("opening", error))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = there.read(&mut chunk).map_err(|error| failed("reading", error))?;
            if count == 0 {
                break;
            }
            hasher.update(chunk.get(..count).unwrap_or_default());
            written += count as u64;
        }
        file.seek(std::io::SeekFrom::Start(written)).map_err(|error| failed("opening", error))?;
        Ok(Self { files, part, file, hasher, written })
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self> {
        self.file.write_all(bytes).map_err(|error| file_failure("writing", &self.part, error))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(self)
    }

    fn finish(mut self, whole: &std::path::Path, expected: Sha256Digest) -> Result<bool> {
        let hasher = std::mem::replace(&mut self.hasher, Sha256Hasher::new());
        if hasher.finish() != expected {
            return self.give_up();
        }
        self.file.sync_all().map_err(|error| file_failure("syncing", &self.part, error))?;
        publish(&*self.files, &self.part, whole).map_err(|error| file_failure("renaming", &self.part, error))?;
        Ok(true)
    }

    fn give_up(self) -> Result<bool> {
        ignore_missing(self.files.remove(&self.part)).map_err(|error| file_failure("removing", &self.part, error))?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition;

    use super::*;

    #[test]
    fn whatever_the_relay_answers_wrongly_is_asked_for_again() {
        use StoreErrorKind as Kind;
        for (kind, code) in [
            (Kind::NotFound, Code::NotFound),
            (Kind::Denied, Code::NotFound),
            (Kind::Limit, Code::LimitExceeded),
            (Kind::Protocol, Code::RelayProtocol),
            (Kind::Unsupported, Code::RelayProtocol),
            (Kind::Exists, Code::RelayProtocol),
        ] {
            let failure = far(StoreError::new(kind, "test"));
            assert_eq!((failure.code(), failure.disposition()), (code, Disposition::Retry), "{kind:?}");
        }
        // What only a person can mend.
        assert_eq!(far(StoreError::new(Kind::HostKeyUnknown, "test")).disposition(), Disposition::Park);
    }
}
