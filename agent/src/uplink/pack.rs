//! Stage `pack`: the list of the packed files, which is the last thing that travels to be written.

use std::{io::Read as _, path::Path, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, FileName, Stage, TransferEvent,
    digest::{Sha256Digest, Sha256Hasher},
    manifest::Manifest,
    packed::{MAX_PACKED_LIST_BYTES, PackedFile, PackedList, packed_name},
    state::Place,
};
use towpath_transport::files::{FileStore, file_failure};

use super::folder;
use crate::{blocking::blocking, layout::Layout, parts::Parts, small_file};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Stage `pack`.
#[derive(Debug, Clone)]
pub struct PackStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for PackStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Pack
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let id = lease.record.key.id;
        let parts = Arc::clone(&self.parts);
        let packed = blocking(move || {
            let (manifest, digest) = folder::manifest(&*parts.files, &parts.layout, id)?;
            let packed = packed_files(&*parts.files, &parts.layout, &manifest)?;
            let list = PackedList { version: 1, transfer: id, manifest: digest, files: packed };
            let unfit = |error| Failure::park(Code::Internal, format!("the packed list of transfer {id}")).caused_by(error);
            list.check_against(&manifest, digest).map_err(unfit)?;
            let bytes = list.to_bytes().map_err(unfit)?;
            small_file::write_if_different(&*parts.files, &parts.layout.packed(id), &bytes)?;
            Ok(Sha256Digest::of(&bytes))
        })
        .await?;
        Ok(StepOutcome::Event(TransferEvent::Packed { packed }))
    }
}

/// The packed files as `extract` noted them, or else as they lie on the disk.
fn packed_files(files: &dyn FileStore, layout: &Layout, manifest: &Manifest) -> Result<Vec<PackedFile>, Failure> {
    let id = manifest.transfer;
    let noted: Option<Vec<PackedFile>> = folder::noted(files, &layout.extracted(id), MAX_PACKED_LIST_BYTES)?;
    let mut noted = noted.unwrap_or_default().into_iter();
    let mut packed = Vec::new();
    for entry in manifest.sent_files() {
        let name = packed_name(&entry.name)
            .map_err(|error| Failure::park(Code::Internal, format!("the packed name of {}", entry.name)).caused_by(error))?;
        let path = layout.sent(id, &name);
        let stat = files.stat(&path).map_err(|error| file_failure("looking at", &path, error))?;
        packed.push(match noted.next().filter(|file| file.name == name && file.size == stat.len) {
            Some(file) => file,
            None => measure(files, &path, name)?,
        });
    }
    Ok(packed)
}

fn measure(files: &dyn FileStore, path: &Path, name: FileName) -> Result<PackedFile, Failure> {
    let failed = |error| file_failure("reading", path, error);
    let mut file = files.open(path).map_err(failed)?;
    let mut hasher = Sha256Hasher::new();
    let mut size = 0u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Ok(PackedFile { name, size, sha256: hasher.finish() });
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
        size += count as u64;
    }
}
